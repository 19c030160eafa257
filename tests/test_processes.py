"""Two processes of this machine: what one gives, in order; killed, refused and left ones."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anna.engine import Items, Local, Model, ModelSpec
from anna.errors import InputError
from anna.processes import BATCHES_AHEAD, Processes
from anna.shards import Values

NUM_ITEMS = 60


def items() -> Items:
    return [("item", "y" * (number % 7) + str(number)) for number in range(NUM_ITEMS)]


def describe() -> dict[str, Any]:
    return {"model": "toy"}


def plan(items: Items) -> list[list[int]]:
    order = sorted(range(len(items)), key=lambda place: (-len(items[place][1]), place))
    return [order[start : start + 2] for start in range(0, len(order), 2)]


def load(log: Path, factor: float = 1.0, wanted: int = 2) -> Model:
    """Write down which process loads, and return a model that begins when so many have."""
    (log / f"{os.getpid()}-{time.monotonic_ns()}").touch()

    def compute(batch: Items) -> Values:
        until = time.monotonic() + 120
        while len(list(log.iterdir())) < wanted and time.monotonic() < until:
            time.sleep(0.01)
        return np.array([[factor * len(text), len(batch)] for _, text in batch], dtype=np.float32)

    return Model(plan, compute)


def load_one_that_kills() -> Model:
    return Model(plan, lambda batch: os.kill(os.getpid(), signal.SIGKILL))


def refuse() -> Model:
    raise InputError("the model is not there")


def loaders(log: Path) -> list[str]:
    return [path.name.split("-")[0] for path in log.iterdir()]


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    with Processes(2) as where:
        yield where


def test_results_are_those_of_one_process_and_models_are_loaded_once_each(processes: Processes, tmp_path: Path) -> None:
    for factor in (1.0, 2.0):
        log = tmp_path / str(factor)
        log.mkdir()
        spec = ModelSpec("toy", describe, partial(load, log, factor))
        found = [*processes.compute(spec, items()), *processes.compute(spec, items())]
        workers = loaders(log)
        assert len(workers) == len(set(workers)) == 2, "the two processes load, each once"
        assert str(os.getpid()) not in workers
        expected = list(Local().compute(spec, items())) * 2
        assert [batch for batch, _ in found] == [batch for batch, _ in expected]
        for (_, values), (_, wanted) in zip(found, expected, strict=True):
            np.testing.assert_array_equal(values, wanted)


def test_few_batches_are_handed_over_before_results_are_taken(processes: Processes, tmp_path: Path) -> None:
    taken: list[int] = []

    class Watched(list[tuple[str, str]]):
        def __getitem__(self, place: Any) -> Any:
            taken.append(place)
            return super().__getitem__(place)

        def __reduce__(self) -> Any:
            return list, (list(self),)

    stream = processes.compute(ModelSpec("toy", describe, partial(load, tmp_path, wanted=1)), Watched(items()))
    next(stream)
    assert len(taken) <= 2 * (2 * BATCHES_AHEAD + 1)
    assert len(list(stream)) == NUM_ITEMS // 2 - 1


def test_what_a_worker_refuses_is_one_line_here(processes: Processes) -> None:
    with pytest.raises(InputError, match=r"^the model is not there$"):
        list(processes.compute(ModelSpec("toy", describe, refuse), items()))


def test_a_killed_worker_ends_the_stage_with_its_remedy() -> None:
    expected = "toy: one of 2 processes was killed, most likely for want of memory; set scoring.workers to fewer"
    with Processes(2) as where, pytest.raises(InputError, match=expected):
        list(where.compute(ModelSpec("toy", describe, load_one_that_kills), items()))


SCRIPT = """
from pathlib import Path
from functools import partial
from anna.engine import ModelSpec
from anna.processes import Processes
from tests.test_processes import describe, items, load
if __name__ == "__main__":
    with Processes(2) as where:
        for _ in where.compute(ModelSpec("toy", describe, partial(load, Path("{log}"))), items()):
            print("computed", flush=True)
"""


def test_workers_end_with_a_killed_stage(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    script = tmp_path / "stage.py"
    script.write_text(SCRIPT.format(log=tmp_path / "log"))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, env=environment, text=True) as stage:
        assert stage.stdout is not None
        for _ in range(6):
            assert stage.stdout.readline() == "computed\n"
        stage.kill()
    workers = loaders(tmp_path / "log")
    assert len(workers) == 2
    until = time.monotonic() + 30
    while (alive := [pid for pid in workers if is_running(pid)]) and time.monotonic() < until:
        time.sleep(0.05)
    assert alive == []


def is_running(pid: str) -> bool:
    """Tell a process from one that has ended, and from one that has ended and that nobody has asked after."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
