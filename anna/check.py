"""Whether all of params.yaml is right, before anything runs: each stage reads its own sections, some after hours.

It stands above the stages and asks each of them by name for its sections: nothing in `anna` imports a stage.
"""

import importlib
import logging
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from anna.corpus.ingest import check_prompts
from anna.errors import InputError
from anna.params import HELD_OUT, STAGES, Params, Recorded, did_you_mean


def check(path: Path) -> None:
    """Refuse params that any stage would refuse, as far as the file alone tells.

    Raises:
        InputError: With all faults at once, a line for each section; where each is right, those in which two disagree.
    """
    found: dict[str, Any] = {}

    def load(cls: type[Params]) -> None:
        found[cls.section] = cls.load(path)

    faults = _faults(partial(load, cls) for cls in sections())
    if not faults:
        ingest, evaluate, prompts = found["ingest"], found["evaluate"], found["prompts"].tasks
        together = (
            partial(check_prompts, ingest.tasks, prompts),
            partial(_check_scored, ingest, evaluate, prompts),
            partial(_check_examples, ingest, evaluate),
        )
        faults = [f"{path}: {fault}" for fault in _faults(together)]
    if faults:
        raise InputError("\n".join(faults))


def sections() -> list[type[Params]]:
    """Return the class of each section that a stage acts on."""
    logging.disable(logging.WARNING)  # DeepSpeed misses a GPU as soon as it is imported; nothing here needs one
    try:
        stages = [importlib.import_module(f"stages.{name}") for name in STAGES]
    finally:
        logging.disable(logging.NOTSET)
    classes = dict.fromkeys(cls for stage in stages for cls in (*stage.PARAMS, *getattr(stage, "HOW", ())))
    return [cls for cls in classes if not issubclass(cls, Recorded)]


def _faults(checks: Iterable[Callable[[], None]]) -> list[str]:
    """Return what the checks refuse, each message once."""
    messages: dict[str, None] = {}
    for refuse in checks:
        try:
            refuse()
        except InputError as error:
            messages[str(error)] = None
    return list(messages)


def _check_scored(ingest: Any, evaluate: Any, prompts: Iterable[str]) -> None:
    """Refuse tasks to score that there are not, or that have no prompt."""
    if evaluate.benchmark == HELD_OUT:
        _check_held_out([source.task for source in ingest.held_out], evaluate.tasks or ())
        return
    from anna.evaluation import tasks  # mteb is heavy, and only its own benchmarks need it

    chosen = tasks.select_tasks(evaluate.benchmark, evaluate.tasks, lambda: tasks.EvalTables.read(()))
    missing = sorted({task.metadata.name for task in chosen} - set(prompts))
    if missing:
        raise InputError(f"prompts.tasks has no instruction for {missing}, tasks of evaluate; add one for each there")


def _check_held_out(declared: list[str], chosen: Iterable[str]) -> None:
    if not declared:
        raise InputError(
            f"evaluate.benchmark is {HELD_OUT!r}, but ingest.held_out declares no task; declare one there, or name one "
            "of mteb's benchmarks"
        )
    for name in chosen:
        if name not in declared:
            hint = did_you_mean(name, declared)
            raise InputError(f"evaluate.tasks: {name!r} is no task of ingest.held_out{hint}; it has {sorted(declared)}")


def _check_examples(ingest: Any, evaluate: Any) -> None:
    if evaluate.examples and not (ingest.held_out or ingest.examples):
        raise InputError(
            f"evaluate.examples is {evaluate.examples}, but no source gives in-context examples; set it to 0, or "
            "declare some in ingest.examples"
        )
    if evaluate.examples > ingest.examples_per_task:
        raise InputError(
            f"evaluate.examples is {evaluate.examples}, but ingest.examples_per_task is {ingest.examples_per_task}; "
            "lower the one, or raise the other"
        )
