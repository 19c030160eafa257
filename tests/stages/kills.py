"""Kill a stage at random moments, in processes forked from one: imports take longer than the stage.

Usage: python -m tests.stages.kills FOLDER KILLS SEED STAGE...
"""

import importlib
import json
import os
import random
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from anna import log, store

PAUSE = 0.01
"""Seconds that each batch takes longer: time to be killed in."""


def main() -> None:
    """Kill each stage so many times, then let it end; print kills and what the last run reused and computed."""
    folder, kills, rng = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    os.chdir(folder)
    stages = {name: importlib.import_module(f"stages.{name}").main for name in sys.argv[4:]}
    for name in ("cross_encoder", "query_likelihood", "likelihood_batches"):
        importlib.import_module(f"anna.teachers.{name}")
    for name, stage in stages.items():
        for _ in range(kills):
            if not kill(name, stage, rng):
                raise SystemExit(f"{name} ended before it was killed {kills} times: too little to do")
        if attempt(name, stage, num_batches=10**9, delay=0):
            raise SystemExit(f"{name} did not end")
    cost = {name: json.loads(Path(f"metrics/cost/{name}.json").read_text()) for name in stages}
    sys.stdout.write(json.dumps({name: [cost[name]["reused"], cost[name]["computed"]] for name in stages}))


def kill(name: str, stage: Callable[[], object], rng: random.Random) -> bool:
    """Kill the stage while it starts, or after a few batches; return whether it lived until then."""
    num_batches = rng.choice([0, 1, 1, 2, 2, 3])
    return attempt(name, stage, num_batches, rng.uniform(0, 3 * PAUSE if num_batches else 0.5))


def attempt(name: str, stage: Callable[[], object], num_batches: int, delay: float) -> bool:
    """Run the stage in a process of its own, kill it `delay` seconds after so many batches; return whether it lived."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            run(name, stage, writing)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    for _ in range(num_batches):
        if not os.read(reading, 1):  # it has ended
            break
    select.select([reading], [], [], 0)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    os.close(reading)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"{name} failed")
    return os.WIFSIGNALED(status)


def run(name: str, stage: Callable[[], object], told: int) -> None:
    """Run the stage with every batch a shard and shards joined often; write one byte to `told` before each."""
    store.SECONDS_BETWEEN_SHARDS, store.JOIN_AT = 0.0, 4
    original = store.Store._add

    def add(self: store.Store, *rows: object) -> None:
        os.write(told, b".")
        time.sleep(PAUSE)
        original(self, *rows)  # type: ignore[arg-type]

    store.Store._add = add  # type: ignore[method-assign]
    log.run_stage(name, stage)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
