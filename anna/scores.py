"""From one score per model, mode and task to the few numbers that are compared: plain arithmetic."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tabulate import tabulate

CATEGORIES = ("Classification", "Clustering", "PairClassification", "Reranking", "Retrieval", "STS", "Summarization")
"""The seven categories of MTEB(eng, v2)."""

ZERO_SHOT, WITH_EXAMPLES = "zero_shot", "with_examples"
"""Modes: the instruction alone, or in-context examples before it."""

_BASELINE_CATEGORIES = ("Retrieval",)
"""What the summary holds of every model but the student, beside the mean; the other numbers are in the detail."""


class Score(NamedTuple):
    """The main score of one task."""

    model: str
    mode: str
    task: str
    type: str
    """The task's mteb type."""
    metric: str
    """Name of the main score."""
    value: float
    """On mteb's scale, 0 to 1 (correlations: -1 to 1)."""


def category_means(scores: Iterable[Score]) -> dict[str, float]:
    """Return each category's unweighted mean over its tasks, in the order of `CATEGORIES`, others last.

    A task's category is its mteb type; those without a task are absent.
    """
    values: dict[str, list[float]] = {}
    for score in scores:
        values.setdefault(score.type, []).append(score.value)
    known = [name for name in CATEGORIES if name in values]
    return {name: sum(values[name]) / len(values[name]) for name in [*known, *sorted(set(values) - set(known))]}


def mean_over_categories(scores: Iterable[Score]) -> float:
    """Return the mean of the category means, mteb's "mean over task types": each category counts the same.

    Raises:
        ValueError: If there is no score.
    """
    means = category_means(scores)
    if not means:
        raise ValueError("no score to average")
    return sum(means.values()) / len(means)


def summary(scores: Sequence[Score]) -> dict[str, dict[str, float]]:
    """Return what `dvc metrics show` shows, rounded to 5 decimals.

    The student: mean and every category. Other models: mean and retrieval. With examples: the mean. A model that was
    not scored on every category (BM25) gets no mean, which would not compare.
    """
    complete = set(category_means(scores))
    result: dict[str, dict[str, float]] = {}
    for (model, mode), group in _groups(scores).items():
        means = category_means(group)
        shown = {"mean": mean_over_categories(group)} if set(means) == complete else {}
        if mode == ZERO_SHOT:
            shown |= {name: mean for name, mean in means.items() if model == "student" or name in _BASELINE_CATEGORIES}
        if shown:
            result[column(model, mode)] = {name: round(value, 5) for name, value in shown.items()}
    return result


def by_task(scores: Sequence[Score]) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """Return every score: model, mode, task -> type, metric, score."""
    result: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    for s in scores:
        tasks = result.setdefault(s.model, {}).setdefault(s.mode, {})
        tasks[s.task] = {"type": s.type, "metric": s.metric, "score": round(s.value, 5)}
    return result


def from_detail(detail: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]]) -> list[Score]:
    """Return the scores that `by_task` gave, rounded as it rounds them."""
    return [
        Score(model, mode, task, of["type"], of["metric"], of["score"])
        for model, modes in detail.items()
        for mode, tasks in modes.items()
        for task, of in tasks.items()
    ]


def by_category(scores: Iterable[Score]) -> dict[str, dict[str, float]]:
    """Return the category means of every model in its mode, by `column`."""
    return {column(*key): category_means(group) for key, group in _groups(scores).items()}


def rows(scores: Sequence[Score]) -> list[tuple[str, str, float]]:
    """Return (model and mode, category, mean) for every model and category, for a bar plot."""
    return [
        (model, name, round(mean, 5)) for model, means in by_category(scores).items() for name, mean in means.items()
    ]


def table(scores: Sequence[Score]) -> str:
    """Return a text table, categories down and models across; a dash where a model was not scored."""
    groups = {column(*key): group for key, group in _groups(scores).items()}
    means = {name: category_means(group) for name, group in groups.items()}
    lines = list(dict.fromkeys(name for per_model in means.values() for name in per_model))
    for name, group in groups.items():
        if len(means[name]) == len(lines):
            means[name]["mean"] = mean_over_categories(group)
    rows = [[line, *(_cell(of_model.get(line)) for of_model in means.values())] for line in [*lines, "mean"]]
    head = ["", *means]
    return align([head, *rows])


def align(rows: Sequence[Sequence[str]]) -> str:
    """Return lines in columns: names to the left, numbers to the right."""
    return tabulate(rows, tablefmt="plain", disable_numparse=True, colglobalalign="right", colalign=("left",))


def column(model: str, mode: str) -> str:
    """Return the name of a model in a mode: `student`, `student_with_examples`."""
    return model if mode == ZERO_SHOT else f"{model}_{mode}"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _groups(scores: Iterable[Score]) -> dict[tuple[str, str], list[Score]]:
    groups: dict[tuple[str, str], list[Score]] = {}
    for score in scores:
        groups.setdefault((score.model, score.mode), []).append(score)
    return groups
