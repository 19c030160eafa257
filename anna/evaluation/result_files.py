"""Result files in mteb's own format, of ours or of anybody, read as scores on MTEB(eng, v2)."""

from pathlib import Path

import mteb
from mteb.abstasks.abstask import AbsTask
from mteb.results import TaskResult

from anna.errors import InputError, one_line
from anna.evaluation.leaderboard import BENCHMARK


def benchmark_tasks() -> dict[str, AbsTask]:
    """Return the tasks of MTEB(eng, v2) by name, limited to the subsets and splits that the benchmark counts."""
    return {task.metadata.name: task for task in mteb.get_benchmark(BENCHMARK).tasks}


def read_results(folder: Path) -> tuple[dict[str, float], dict[str, str]]:
    """Return the main score (0 to 1) and the type of each task that has a result file in `folder`.

    Files of other tasks, and mteb's own `model_meta.json`, are passed over: a folder of results may hold more than one
    benchmark. A file of the right name but of other rows, such as a held-out sample of ours, is an error.

    Raises:
        InputError: If there is no result of the benchmark, or a file is broken, incomplete or of another data revision.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; name one with <task>.json in mteb's format, or run: dvc repro")
    tasks, scores = benchmark_tasks(), dict[str, float]()
    for path in sorted(folder.glob("*.json")):
        if path.stem in tasks:
            scores[path.stem] = _score(path, tasks[path.stem])
    if not scores:
        raise InputError(
            f"{folder} has no result file of a task of {BENCHMARK}; name a folder of <task>.json in mteb's format, as "
            "stage evaluate leaves in reports/mteb/anna__<model>/<mode>"
        )
    return scores, {name: tasks[name].metadata.type for name in scores}


def _score(path: Path, task: AbsTask) -> float:
    try:
        result = TaskResult.from_disk(path)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is not a result in mteb's format ({one_line(error)}); score the task again, or remove the file"
        ) from None
    wanted = task.metadata.dataset["revision"]
    if result.dataset_revision != wanted:
        raise InputError(
            f"{path} was scored on data of revision {result.dataset_revision}, {BENCHMARK} has {wanted}: perhaps "
            "other rows, so the score does not compare; score the benchmark's own task, or remove the file"
        )
    parts = [
        float(part["main_score"])
        for split in task.eval_splits
        for part in result.scores.get(split, [])
        if part["hf_subset"] in task.hf_subsets
    ]
    expected = len(task.eval_splits) * len(task.hf_subsets)
    if len(parts) != expected:
        raise InputError(
            f"{path} has {len(parts)} of the {expected} parts that {BENCHMARK} counts (splits "
            f"{list(task.eval_splits)}, subsets {list(task.hf_subsets)}); run the task whole"
        )
    if wrong := [part for part in parts if not -1 <= part <= 1]:
        raise InputError(f"{path} has a main_score of {wrong[0]}, expected -1 to 1; score the task again")
    return sum(parts) / expected
