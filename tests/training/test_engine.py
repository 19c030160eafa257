"""ZeRO stages, ranks and micro-steps are ways of computing the same thing."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from anna.ranks import TOLD

REPO = Path(__file__).parents[2]
RUNS = [f"{stage}:{how}" for how in ("full:0", "lora:0", "full:40", "lora:15") for stage in (0, 1, 2, 3)]
"""Micro-steps of 40 and 15 tokens cut a batch into pieces that differ in number from rank to rank."""


def train_all(checkpoint: Path, out: Path, ranks: int, runs: Sequence[str] = RUNS) -> dict[str, Any]:
    """Run the worker on `ranks` gloo processes and return what it saved, by run."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    command = [sys.executable, *launcher, "-m", "tests.training.worker", str(checkpoint), str(out), *runs]
    environment = {k: v for k, v in os.environ.items() if k not in TOLD}
    environment["OMP_NUM_THREADS"] = "1"
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    saved: dict[str, Any] = torch.load(out, weights_only=False)
    assert saved["world_size"] == ranks
    return saved


def check_same(got: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compare the losses and weights of two runs."""
    for ours, theirs in zip(got["records"], expected["records"], strict=True):
        assert ours["task"] == theirs["task"]
        for name in ("loss", "info_nce", "soft_label_ce", "batch_soft_label_ce", "gradient_norm"):
            assert ours[name] == pytest.approx(theirs[name], rel=2e-3, abs=1e-4), name
    assert got["state"].keys() == expected["state"].keys()
    for name, weight in expected["state"].items():
        torch.testing.assert_close(got["state"][name], weight, rtol=0, atol=2e-4, msg=name)


@pytest.fixture(scope="module")
def results(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """Every run, by number of ranks."""
    folder = tmp_path_factory.mktemp("engine")
    with ThreadPoolExecutor() as pool:  # each waits for processes of its own
        running = {ranks: pool.submit(train_all, tiny_checkpoint, folder / f"{ranks}.pt", ranks) for ranks in (1, 2)}
        return {ranks: future.result() for ranks, future in running.items()}


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("run", RUNS)
def test_every_way_gives_the_losses_and_weights_of_one_process_in_one_pass(
    run: str, ranks: int, results: dict[int, dict[str, Any]]
) -> None:
    expected, got = results[1][f"0:{run.split(':')[1]}:0"], results[ranks][run]
    check_same(got, expected)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for a CPU with g++")
def test_compiled_layers_whose_weights_come_and_go_give_the_same(
    tiny_checkpoint: Path, tmp_path: Path, results: dict[int, dict[str, Any]]
) -> None:
    runs = [f"3:{how}:compiled" for how in ("full:0", "lora:15")]
    got = train_all(tiny_checkpoint, tmp_path / "compiled.pt", 2, runs)
    for run in runs:
        check_same(got[run], results[1][f"0:{run.split(':')[1]}:0"])


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_loss_falls(method: str, results: dict[int, dict[str, Any]]) -> None:
    losses = [record["loss"] for record in results[1][f"0:{method}:0"]["records"]]
    assert sum(losses[-2:]) < sum(losses[:2])
