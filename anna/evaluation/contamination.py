"""Which tasks a model was trained for before it is tested on them: mteb's zero-shot share, and what it cannot see."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mteb.models import ModelMeta

OVERLAPS: Mapping[str, tuple[str, ...]] = {
    "STS12": ("STSBenchmark",),
    "STS13": ("STSBenchmark",),
    "STS14": ("STSBenchmark",),
    "STS15": ("STSBenchmark",),
    "STS16": ("STSBenchmark",),
    "MTOPDomainClassification": ("MTOPIntentClassification",),
    "MTOPIntentClassification": ("MTOPDomainClassification",),
}
"""Task of mteb -> others whose training rows hold texts of it or of its kind, which mteb does not record.

STS Benchmark is a selection from the tests of 2012 to 2017 (Cer et al. 2017, arXiv:1708.00055, section 8); its train
rows, in the wheel that the default reads, are of 2012 to 2016. MTOP's two label the same utterances (Li et al. 2021,
arXiv:2008.09335)."""


def training_tasks(ingest: Mapping[str, Any]) -> set[str]:
    """Return the names of the tasks that the section `ingest` of params trains on."""
    return {source["task"] for source in ingest["train"]}


def trained_on(trained: Collection[str], tested: Collection[str]) -> list[str]:
    """Return the tasks of `tested` that count as trained on, in alphabetical order.

    By mteb's rule: those named like a training set, and those that mteb records as made from one, or as another version
    of one, over any number of steps. Names that mteb does not know, such as those of our own held-out tasks, count by
    name alone.
    """
    meta = ModelMeta.create_empty({"name": "anna/student", "training_datasets": set(trained)})
    return sorted((meta.get_training_datasets() or set()) & set(tested))


def zero_shot_percentage(count: int, tested: int) -> int | None:
    """Return the share of `tested` tasks that a model was not trained for, as mteb rounds it down; None of no task.

    Args:
        count: Tasks among them that it was trained for.
        tested: Number of tasks.
    """
    return int(100 - 100 * (count / tested)) if tested else None


def same_source(train: Sequence[Mapping[str, Any]], held_out: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return held-out task -> training tasks made from the same file or data set, those of the same name left out.

    Args:
        train: `ingest.train` of params.
        held_out: `ingest.held_out` of params.
    """
    files: dict[tuple[str, ...], list[str]] = {}
    for source in train:
        files.setdefault(_file(source["origin"]), []).append(source["task"])
    found = {
        source["task"]: sorted(set(files.get(_file(source["origin"]), [])) - {source["task"]}) for source in held_out
    }
    return {task: others for task, others in sorted(found.items()) if others}


def overlapping(trained: Collection[str], tested: Collection[str]) -> dict[str, list[str]]:
    """Return task of `tested` -> tasks of `trained` that share texts with it by `OVERLAPS`, but under its own name."""
    return {task: found for task in sorted(tested) if (found := sorted(set(OVERLAPS.get(task, ())) & set(trained)))}


def summary(ingest: Mapping[str, Any], tested: Sequence[str]) -> dict[str, Any]:
    """Return what `metrics/contamination.json` holds.

    Args:
        ingest: The section of params: what was trained on, and what was held out.
        tested: Names of the tasks that were scored.
    """
    trained = training_tasks(ingest)
    flagged = trained_on(trained, tested)
    found = overlapping(trained, tested), same_source(ingest["train"], ingest.get("held_out", ()))
    shared = {task: sorted({other for each in found for other in each.get(task, ())}) for task in sorted(set(tested))}
    return {
        "zero_shot_percentage": zero_shot_percentage(len(flagged), len(set(tested))),
        "tasks": len(set(tested)),
        "tasks_trained_on": len(flagged),
        "trained_on": flagged,
        "same_source": {task: others for task, others in shared.items() if others and task not in flagged},
    }


def _file(origin: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what tells one file of a wheel, data set of the hub or local file from another, whatever its split."""
    return tuple(str(origin.get(key)) for key in ("kind", "package", "repo", "path"))
