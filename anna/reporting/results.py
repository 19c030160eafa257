"""What scores and training curve say: the headline, the tables of results, and the text table that ends a run."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from anna.reporting import sizes, style
from anna.reporting.curves import Curve
from anna.reporting.gather import Facts
from anna.scores import align


class Card(NamedTuple):
    """One number of the headline."""

    name: str
    role: str
    """Colour of the palette."""
    value: str
    note: str


class Cell(NamedTuple):
    """A number of a table."""

    text: str
    is_best: bool


class Row(NamedTuple):
    """A task, or a category."""

    name: str
    kind: str
    metric: str
    counts: Sequence[str]
    """Rows and documents, under `sizes.head`."""
    cells: Sequence[Cell]


class TaskCurve(NamedTuple):
    """How training went on one task."""

    task: str
    steps: int
    first: float
    """Mean InfoNCE over the first fifth of the task's steps."""
    last: float
    """Mean InfoNCE over the last fifth."""


def columns(facts: Facts) -> list[str]:
    """Return every model and mode that was scored, those of `style.COLUMNS` first."""
    scored = [*facts.tasks, *facts.means]
    return [name for name in style.COLUMNS if name in scored] + sorted(set(scored) - set(style.COLUMNS))


def cards(facts: Facts) -> list[Card]:
    """Return the headline's numbers: the mean of every model, retrieval beside it."""
    return [_card(name, role, facts.summary.get(column, {})) for column, (name, role) in style.COLUMNS.items()]


def headline(facts: Facts) -> str:
    """Return in words where the student stands against what it came from and what taught it."""
    means = {name: scores["mean"] for name, scores in facts.summary.items() if "mean" in scores}
    if "student" not in means:
        return "The student has not been scored."
    sentences = [_against_untrained(means)]
    if "teacher" in means:
        sentences.append(_against_teacher(means))
    sentences.append(_on_retrieval(facts.summary))
    return " ".join(sentence for sentence in sentences if sentence)


def category_rows(facts: Facts) -> list[Row]:
    """Return a row per category and the mean, a cell per model of `columns`."""
    names = list(dict.fromkeys(name for means in facts.means.values() for name in means))
    kinds = {task: str(scored["type"]) for task, scored in _tasks(facts).items()}
    rows = [
        _row(
            name,
            [facts.means.get(column, {}).get(name) for column in columns(facts)],
            counts=sizes.cells(facts.sizes, [task for task, kind in kinds.items() if kind == name]),
        )
        for name in names
    ]
    means = [facts.summary.get(column, {}).get("mean") for column in columns(facts)]
    return [*rows, _row("Mean", means, counts=[""] * len(sizes.head(facts.sizes)))] if rows else []


def task_rows(facts: Facts) -> list[Row]:
    """Return a row per task in the order of evaluation, a cell per model of `columns`."""
    return [
        _row(
            task,
            [facts.tasks.get(column, {}).get(task, {}).get("score") for column in columns(facts)],
            kind=str(scored["type"]),
            metric=style.words(str(scored["metric"])),
            counts=sizes.cells(facts.sizes, [task]),
        )
        for task, scored in _tasks(facts).items()
    ]


def warning(facts: Facts) -> str:
    """Return a sentence that names the tasks of few scored rows; empty if there are none."""
    return sizes.warning(facts.sizes, _tasks(facts))


def text_table(facts: Facts) -> str:
    """Return categories down and models across as text, a dash where a model was not scored; below, few rows."""
    rows = [[row.name, *row.counts, *(cell.text for cell in row.cells)] for row in category_rows(facts)]
    if not rows:
        return "no scores"
    head = ["", *sizes.head(facts.sizes), *(style.column_name(column) for column in columns(facts))]
    table = align([head, *rows])
    below = textwrap.fill(warning(facts), width=max(map(len, table.splitlines())))
    return f"{table}\n{below}" if below else table


def _tasks(facts: Facts) -> dict[str, Mapping[str, Any]]:
    """Return every task that a model was scored on, in the order of evaluation."""
    return {task: scored for model in facts.tasks.values() for task, scored in model.items()}


def _card(name: str, role: str, scores: Mapping[str, float]) -> Card:
    if not scores:
        return Card(name, role, style.MISSING, "not run")
    notes = ["mean" if "mean" in scores else "no mean"]
    if "Retrieval" in scores:
        notes.append(f"retrieval {style.score(scores['Retrieval'])}")
    return Card(name, role, style.score(scores.get("mean")), ", ".join(notes))


def by_task(curve: Curve) -> list[TaskCurve]:
    """Return how InfoNCE fell on each task, tasks in alphabetical order."""
    info_nce, names = curve.values["info_nce"], np.array(curve.tasks, dtype=object)
    result = []
    for task in sorted(set(curve.tasks)):
        values = info_nce[names == task]
        part = max(1, len(values) // 5)
        result.append(TaskCurve(task, len(values), float(values[:part].mean()), float(values[-part:].mean())))
    return result


def _row(
    name: str, values: Sequence[float | None], *, kind: str = "", metric: str = "", counts: Sequence[str] = ()
) -> Row:
    """Return a row whose highest numbers are marked, as they are shown: to three decimals."""
    texts = [style.score(value) for value in values]
    known = [value for value in values if value is not None]
    best = style.score(max(known)) if len(known) > 1 else None
    return Row(name, kind, metric, counts, [Cell(text, text == best) for text in texts])


def _against_untrained(means: Mapping[str, float]) -> str:
    student, untrained = means["student"], means.get("untrained")
    if untrained is None:
        return f"The student reaches a mean of {style.score(student)} over the categories."
    verb = "lifts" if student > untrained else "does not lift"
    return (
        f"Training {verb} the mean over the categories from {style.score(untrained)} to {style.score(student)} "
        f"({style.change(student, untrained)})."
    )


def _against_teacher(means: Mapping[str, float]) -> str:
    student, teacher, untrained = means["student"], means["teacher"], means.get("untrained")
    if student >= teacher:
        return f"That is level with or above its dense teacher ({style.score(teacher)})."
    if untrained is None or untrained >= teacher or student <= untrained:
        return f"Its dense teacher has {style.score(teacher)}."
    share = f"{100 * (student - untrained) / (teacher - untrained):.0f} %"
    return f"That is {share} of the way from the untrained model to its dense teacher ({style.score(teacher)})."


def _on_retrieval(summary: Mapping[str, Mapping[str, float]]) -> str:
    found = {name: scores["Retrieval"] for name, scores in summary.items() if "Retrieval" in scores}
    student = found.get("student")
    if student is None:
        return ""
    against = [
        f"{_standing(student, found[name])} {label} ({style.score(found[name])})"
        for name, label in (("untrained", "the untrained model"), ("bm25", "BM25"), ("teacher", "the dense teacher"))
        if name in found
    ]
    return f"On retrieval it has {style.score(student)}{': ' if against else ''}{', '.join(against)}."


def _standing(score: float, other: float) -> str:
    """Return where a score stands, as both are shown: to three decimals."""
    if style.score(score) == style.score(other):
        return "level with"
    return "above" if score > other else "below"
