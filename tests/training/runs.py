"""Whole training runs of the tiny model in processes of their own, which the tests can kill at a given moment."""

import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from deepspeed import DeepSpeedEngine
from safetensors.torch import load_file
from torch import Tensor

from anna import log
from anna.training import results, run, step
from anna.training.batches import Group
from anna.training.recipe import TrainParams
from tests.conftest import tiny_student
from tests.training.worker import prompts, recipe, toy_groups, toy_texts

NUM_STEPS = 6

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.training.runs", "dvclive"])  # imported once, for all processes


def dropping(**changes: Any) -> dict[str, Any]:
    """A recipe with dropout, a checkpoint every second step and a validation every third, as changed."""
    chosen = recipe(1, "lora").model_dump() | {
        "lora": {"rank": 4, "alpha": 8, "dropout": 0.1},
        "checkpoint_steps": 2,
        "validation_steps": 3,
        "validation_queries": 6,
        "keep": "best",
        "max_steps": NUM_STEPS,
        "epochs": 2,
    }
    return chosen | changes


def train(
    checkpoint: Path,
    folder: Path,
    chosen: dict[str, Any],
    *,
    ranks: int = 1,
    kill: tuple[str, int] | None = None,
    queries: int | None = None,
    scores: dict[int, float] | None = None,
    last_layer: str = "pretrained",
    code: int = 0,
) -> str:
    """Run `train_encoder` in `folder` on `ranks` processes and return what they said; with `kill`, SIGKILL them all.

    Args:
        checkpoint: The tiny model.
        folder: Working directory and place of all outputs.
        chosen: Recipe.
        ranks: Number of processes.
        kill: ("step", n): before step n is taken; ("save", n): while checkpoint n is written.
        queries: How many of the toy groups to train on; None: all.
        scores: Validation score by step, in place of the real one.
        last_layer: What the student's begins as.
        code: Expected exit code of the first process, where it is not killed.
    """
    folder.mkdir(exist_ok=True)
    said = folder / "log.txt"
    said.unlink(missing_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    rest = (port, checkpoint, folder, chosen, kill, queries, scores, last_layer)
    processes = [SERVER.Process(target=_rank, args=(rank, ranks, *rest)) for rank in range(ranks)]
    for process in processes:
        process.start()
    if kill:
        processes[0].join(300)
        for process in processes[1:]:
            process.kill()
    codes = [_join(process) for process in processes]
    assert codes[0] == (-signal.SIGKILL if kill else code), said.read_text()[-3000:]
    assert kill or code or not any(codes), said.read_text()[-3000:]
    return said.read_text()


def _join(process: BaseProcess) -> int | None:
    process.join(300)
    return process.exitcode


def _rank(
    rank: int,
    world_size: int,
    port: int,
    checkpoint: Path,
    folder: Path,
    chosen: dict[str, Any],
    kill: tuple[str, int] | None,
    queries: int | None,
    scores: dict[int, float] | None,
    last_layer: str,
) -> None:
    names = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": world_size,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    os.environ.update({name: str(value) for name, value in names.items()})
    os.chdir(folder)
    errors = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(errors, 1)
    os.dup2(errors, 2)
    torch.set_num_threads(1)
    if scores:
        fix_scores(scores)
    if kill and rank == 0:
        _arm(*kill)
    log.run_stage("train", lambda: _train(checkpoint, chosen, queries, last_layer))


def _train(checkpoint: Path, chosen: dict[str, Any], queries: int | None, last_layer: str) -> None:
    groups, validation = toy_groups()[:queries], toy_validation()
    texts = toy_texts()
    texts = texts._replace(
        queries={**texts.queries, **{f"v{group.query_id}": texts.queries[group.query_id] for group in toy_groups()}},
        positives={group.query_id: frozenset(group.doc_ids[:1]) for group in (*groups, *validation)},
    )
    run.train_encoder(
        data=run.TrainingData(groups, validation, texts, {}),
        student=tiny_student(checkpoint, layers=3, last_layer=last_layer),
        prompts=prompts(),
        recipe=TrainParams.model_validate(chosen),
        outputs=results.Outputs(Path("encoder"), Path("train.json"), Path("training.csv"), Path("validation.csv")),
        scratch=run.Scratch(Path("checkpoints"), Path("dvclive")),
    )


def fix_scores(scores: dict[int, float]) -> None:
    """Make validation return `scores` by step."""

    def score(engine: Any, *_: Any) -> float:
        return scores[engine.global_steps]

    run.score = score  # type: ignore[assignment]


def _arm(where: str, number: int) -> None:
    """Make this process kill itself."""
    owner, name = {"step": (step, "take"), "save": (DeepSpeedEngine, "save_checkpoint")}[where]
    real: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def deadly(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number and where == "step":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **kwargs)
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, deadly)


def toy_validation() -> list[Group]:
    """Groups of the validation split, of the toy tasks."""
    return [group._replace(query_id=f"v{group.query_id}") for group in toy_groups()[:9]]


def outcome(folder: Path) -> dict[str, Any]:
    """Return everything that must be the same however often a run was killed."""
    files = ("train.json", "training.csv", "validation.csv")
    return {name: (folder / name).read_bytes() for name in files}


def weights(folder: Path) -> dict[str, Tensor]:
    """Return the weights that a run has saved."""
    (path,) = (folder / "encoder").rglob("*.safetensors")
    return load_file(path)
