"""Two machines, each with a torchrun agent that meets the other at a rendezvous, train as one process does."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from anna.ranks import TOLD
from tests.training.test_engine import REPO, check_same

RUNS = [f"{stage}:{how}" for how in ("full:40", "lora:15") for stage in (1, 3)]


def train(checkpoint: Path, out: Path, runs: list[str], launchers: list[list[str]]) -> dict[str, Any]:
    """Run the worker under every launcher at once and return what the first rank saved."""
    environment = {k: v for k, v in os.environ.items() if k not in TOLD}
    environment["OMP_NUM_THREADS"] = "1"
    agents = [
        subprocess.Popen(
            [sys.executable, *launcher, "-m", "tests.training.worker", str(checkpoint), str(out), *runs],
            cwd=REPO,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for launcher in launchers
    ]
    said = [agent.communicate(timeout=580)[1] for agent in agents]
    assert [agent.returncode for agent in agents] == [0] * len(agents), "\n".join(text[-2000:] for text in said)
    saved: dict[str, Any] = torch.load(out, weights_only=False)
    return saved


@pytest.mark.slow
def test_two_hosts_give_the_losses_and_weights_of_one_process(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{probe.getsockname()[1]}"
    meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint={endpoint}", "--rdzv-id=test", "--local-addr=127.0.0.1"]
    agent = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", *meeting]
    alone = train(tiny_checkpoint, tmp_path / "one.pt", ["0:full:0", "0:lora:0"], [[]])
    hosts = train(tiny_checkpoint, tmp_path / "two.pt", RUNS, [agent, agent])
    assert (alone["world_size"], hosts["world_size"]) == (1, 2)
    for run in RUNS:
        check_same(hosts[run], alone[f"0:{run.split(':')[1]}:0"])
