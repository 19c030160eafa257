"""Whether all of params.yaml is right, before anything runs: each stage reads its own sections, some after hours.

It stands above the stages and asks each of them by name for its sections: nothing in `anna` imports a stage.
"""

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from anna import local_models
from anna.corpus.ingest import check_prompts
from anna.errors import InputError
from anna.footprint import recomputed_layers
from anna.known_shapes import known_shape
from anna.origins import FilesOrigin, describe
from anna.params import HELD_OUT, STAGES, Params, Recorded, did_you_mean
from anna.training.checks import check_dims, check_last_layer, check_sides


def check(path: Path) -> dict[str, Any]:
    """Return every section as the stage that acts on it reads it, unless one would refuse it as far as the file tells.

    Raises:
        InputError: With all faults at once, a line for each section; where each is right, those in which two disagree.
    """
    found: dict[str, Any] = {}

    def load(cls: type[Params]) -> None:
        found[cls.section] = cls.load(path)

    faults = refusals(partial(load, cls) for cls in sections())
    if not faults:
        ingest, evaluate, prompts, train = (found[name] for name in ("ingest", "evaluate", "prompts", "train"))
        together = (
            partial(_check_files, found),
            partial(local_models.check_folders, found),
            partial(local_models.check_dense, found["retrieve_dense"]),
            partial(local_models.check_reranker, found["rerank"]),
            partial(local_models.check_student, found["student"], train, prompts.max_tokens),
            partial(check_prompts, ingest.tasks, prompts.tasks),
            partial(_check_sides, ingest, prompts.tasks),
            partial(_check_scored, ingest, evaluate, prompts.tasks),
            partial(_check_lengths, train, evaluate, prompts),
            partial(check_last_layer, train, found["student"]),
            partial(_check_sizes, train, found["student"]),
            partial(local_models.check_index, found["retrieve_dense"]),
            partial(_check_truncations, train, found["student"]),
        )
        faults = [f"{path}: {fault}" for fault in refusals(together)]
    if faults:
        raise InputError("\n".join(faults))
    return found


def sections() -> list[type[Params]]:
    """Return the class of each section that a stage acts on."""
    classes = dict.fromkeys(cls for stage in stage_scripts() for cls in (*stage.PARAMS, *getattr(stage, "HOW", ())))
    return [cls for cls in classes if not issubclass(cls, Recorded)]


def refusals(checks: Iterable[Callable[[], None]]) -> list[str]:
    """Return what the checks refuse, each message once."""
    messages: dict[str, None] = {}
    for refuse in checks:
        try:
            refuse()
        except InputError as error:
            messages[str(error)] = None
    return list(messages)


def _check_sides(ingest: Any, prompts: Mapping[str, Any]) -> None:
    """Refuse bare documents where evaluation prompts every text, of tasks that are trained or held out."""
    check_sides({source.task: source.type for source in ingest.held_out}, prompts)
    check_sides({source.task: source.kind for source in ingest.train}, prompts)


def _check_scored(ingest: Any, evaluate: Any, prompts: Iterable[str]) -> None:
    """Refuse tasks to score that there are not, or that have no prompt."""
    if evaluate.benchmark == HELD_OUT:
        _check_held_out([source.task for source in ingest.held_out], evaluate.tasks or ())
        if evaluate.with_examples and not ingest.examples_per_task:
            raise InputError(
                "evaluate.with_examples is true, but ingest.examples_per_task is 0; raise that, or set it to false"
            )
        return
    from anna.evaluation import tasks  # mteb is heavy, and only its own benchmarks need it

    chosen = tasks.benchmark_tasks(evaluate.benchmark, evaluate.tasks)
    missing = sorted({task.metadata.name for task in chosen} - set(prompts))
    if missing:
        raise InputError(f"prompts.tasks has no instruction for {missing}, tasks of evaluate; add one for each there")
    shown = {source.task for source in ingest.examples} if ingest.examples_per_task else set()
    without = sorted({task.metadata.name for task in chosen} - shown)
    if evaluate.with_examples and without:
        raise InputError(
            f"evaluate.with_examples is true, but nothing gives in-context examples of {without}; declare a source of "
            "each in ingest.examples and set ingest.examples_per_task above 0, or set it to false"
        )


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


def _check_files(found: Mapping[str, Any]) -> None:
    """Refuse files and folders that are not there, or that a stage writes anew, of all sections at once."""
    paths = sorted({origin.path for origin in local_origins(list(found.values()))})
    written = [path for path in paths if any(path.resolve().is_relative_to(own.resolve()) for own in stage_outputs())]
    if written:
        raise InputError(
            f"the pipeline itself writes {', '.join(map(str, written))}, so what is read there would change with every "
            "run; copy it elsewhere, and name the copy"
        )
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise InputError(f"these files do not exist, as seen from {Path.cwd()}: {missing}; correct each path")


def stage_outputs() -> list[Path]:
    """Return what all stages write."""
    return [path for stage in stage_scripts() for path in stage.OUTPUTS]


def stage_scripts() -> list[Any]:
    """Return the script of each of `STAGES`."""
    return [importlib.import_module(f"stages.{name}") for name in STAGES]


def local_origins(value: Any) -> Iterator[FilesOrigin]:
    """Yield every origin of kind files in sections, however deep."""
    if isinstance(value, FilesOrigin):
        yield value
    elif isinstance(value, BaseModel):
        yield from local_origins(list(dict(value).values()))
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from local_origins(part)


def _check_truncations(train: Any, student: Any) -> None:
    """Refuse truncations of the student's vectors that are none, where their size is known unfetched."""
    shape = known_shape(student.model)
    if shape is not None:
        check_dims(train.matryoshka_dims, shape.hidden)


def _check_lengths(train: Any, evaluate: Any, prompts: Any) -> None:
    """Refuse texts that leave no room for a prompt in the longest input; how long prompts are, a tokenizer tells."""
    for name, tokens, prompt in (
        ("train.query_tokens", train.query_tokens, 1),
        ("train.doc_tokens", train.doc_tokens, 0),  # documents may be bare
        ("evaluate.max_tokens", evaluate.max_tokens, 1),
    ):
        if tokens + prompt > prompts.max_tokens:
            raise InputError(
                f"{name} is {tokens}{', and a prompt comes before it' * prompt}, but prompts.max_tokens, the longest "
                f"input, is {prompts.max_tokens}; lower the one, or raise the other"
            )


def _check_sizes(train: Any, student: Any) -> None:
    """Refuse more recomputed layers than there are, a start for other models, and batches too small to share out."""
    shape = known_shape(student.model)
    layers = student.layers or (shape.layers if shape else None)
    if layers is not None:
        recomputed_layers(train.gradient_checkpointing, layers)
    if student.last_layer == "weighted_mean" and shape is not None and (shape.has_head_norm or shape.has_key_bias):
        raise InputError(
            f"student.last_layer is weighted_mean, which is for models of the Llama and Mistral families, and "
            f"{describe(student.model)} is of none; set it to pretrained"
        )
    if train.batch_queries < 2 * train.processes:
        raise InputError(
            f"train.batch_queries is {train.batch_queries}, but train.processes is {train.processes}, and each needs a "
            "query of every batch, a task's last one included, which may hold half as many; set train.batch_queries to "
            f"{2 * train.processes} or more"
        )
