"""What each margin would keep, as a figure and as a table, so that a margin is picked by looking."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from anna.errors import InputError
from anna.margins import ALL, Calibration, Kept
from anna.reporting import style
from anna.reporting.marks import WIDTH
from anna.reporting.plots import Plot, drawing, plot
from anna.reporting.style import light
from anna.scores import align

UNITS = {
    "adaptive": "share of the way from the positive down to the query's background",
    "percent": "share of the way from the positive down to the query's lowest score",
    "absolute": "distance below the positive in fused score",
}
"""Of the margin, by rule."""

_FATES: Sequence[tuple[str, str, Callable[[Kept], int]]] = (
    ("hard negative", "negative", lambda row: row.negatives),
    ("passes, beyond the quota", "candidate", lambda row: row.drops["beyond_quota"]),
    (
        "passes, its query gives no group",
        "muted",
        lambda row: row.drops["weak_positive"] + row.drops["too_few_negatives"],
    ),
    ("inside the margin", "student-examples", lambda row: row.drops["inside_margin"]),
    ("above the positive", "positive", lambda row: row.drops["above_positive"]),
)
"""What becomes of a candidate that is no positive: name, role in the palette, how many."""

_ACROSS = 4
_COLUMNS: Sequence[tuple[str, Callable[[Kept], str]]] = (
    ("groups", lambda row: style.count(row.groups)),
    ("of queries", lambda row: style.percent(row.groups / row.queries)),
    ("weak positive", lambda row: style.count(row.query_drops["weak_positive"])),
    ("too few", lambda row: style.count(row.query_drops["too_few_negatives"])),
    ("pass/query", lambda row: f"{row.passing / row.queries:.2f}"),
    ("negatives", lambda row: style.count(row.negatives)),
    ("gap", lambda row: style.score(row.gap)),
    ("beyond quota", lambda row: style.count(row.drops["beyond_quota"])),
    ("inside margin", lambda row: style.count(row.drops["inside_margin"])),
    ("above positive", lambda row: style.count(row.drops["above_positive"])),
)


def render(calibration: Calibration) -> Plot:
    """Return the figure in the report's style."""
    with drawing():
        figure = draw(calibration)
    return plot("margins", "What each margin would keep", figure)


def draw(calibration: Calibration) -> Figure | None:
    """Draw against the margin, for all tasks and each: what becomes of the candidates, and queries that give a group.

    Nothing to draw without rows.
    """
    tasks = calibration.tasks[:-1]
    if not calibration.kept:
        return None
    num_rows = -(-len(tasks) // _ACROSS)
    figure = Figure(figsize=(WIDTH, 4.2 + 1.75 * num_rows), layout="constrained")
    grid = figure.add_gridspec(1 + num_rows, _ACROSS, height_ratios=[2.0, *([1.0] * num_rows)])
    whole, gaps = figure.add_subplot(grid[0, :3]), figure.add_subplot(grid[0, 3])
    _fates(whole, calibration, ALL)
    whole.set_title("All tasks")
    whole.set_ylabel("share")
    whole.set_xlabel(f"margin ({calibration.rule}): {UNITS[calibration.rule]}")
    _gaps(gaps, calibration)
    for place, task in enumerate(tasks):
        panel = figure.add_subplot(grid[1 + place // _ACROSS, place % _ACROSS])
        _fates(panel, calibration, task)
        panel.set_title(task, fontsize=9)
        panel.tick_params(labelsize=8)
    handles, labels = whole.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=4, columnspacing=1.4, handlelength=1.1)
    return figure


def table(calibration: Calibration, task: str = ALL) -> str:
    """Return as text: each margin's counts for `task`, then for every task how many queries give a group.

    The margin that is set has a star.

    Raises:
        InputError: If there is no such task.
    """
    if task not in calibration.tasks:
        raise InputError(f"there is no task {task!r} in data/queries.parquet, only {', '.join(calibration.tasks)}")
    head = ["margin", *(name for name, _ in _COLUMNS)]
    rows = [[_name(row.margin, calibration), *(text(row) for _, text in _COLUMNS)] for row in calibration.of(task)]
    star = "; * as set" if any(row[0].startswith("*") for row in rows) else ""
    told = [
        f"rule {calibration.rule}, margin in its unit: {UNITS[calibration.rule]}{star}",
        "",
        f"{task}: {style.count(calibration.of(task)[0].queries)} queries",
        align([head, *rows]),
        "pass/query: candidates that pass, before the quota; gap: hardest negative below the positive, in fused score",
        "",
        "Queries that give a group",
        align(_by_task(calibration, lambda row: f"{100 * row.groups / row.queries:.0f} %")),
        "",
        "Candidates that pass, per query",
        align(_by_task(calibration, lambda row: f"{row.passing / row.queries:.1f}")),
    ]
    return "\n".join(told)


def _fates(axes: Axes, calibration: Calibration, task: str) -> None:
    """Stack what becomes of the candidates, and draw the share of queries that give a group over it."""
    rows = calibration.of(task)
    margins = [row.margin for row in rows]
    counts = np.array([[number(row) for row in rows] for _, _, number in _FATES], dtype=np.float64)
    shares = counts / np.maximum(counts.sum(axis=0), 1)
    names, roles, _ = zip(*_FATES, strict=True)
    colours = [light(role) for role in roles]
    axes.stackplot(margins, shares, colors=colours, labels=names)
    given = [row.groups / max(row.queries, 1) for row in rows]
    axes.plot(margins, given, color=light("ink"), linewidth=1.8, label="queries that give a group")
    _mark(axes, calibration)
    axes.set_xlim(margins[0], margins[-1])
    axes.set_ylim(0, 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1] if task == ALL else [0, 0.5, 1])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))


def _mark(axes: Axes, calibration: Calibration) -> None:
    if calibration.margin is not None:
        axes.axvline(
            calibration.margin, color=light("ink"), linewidth=1.2, linestyle=(0, (3, 2)), label="margin as set"
        )


def _gaps(axes: Axes, calibration: Calibration) -> None:
    """Draw how far the hardest negative lies below the positive: tasks faint, all of them bold."""
    for task in calibration.tasks:
        rows = [row for row in calibration.of(task) if row.gap is not None]
        bold = task == ALL
        colour, width = light("ink" if bold else "candidate"), 1.8 if bold else 0.9
        axes.plot([row.margin for row in rows], [row.gap or 0.0 for row in rows], color=colour, linewidth=width)
    _mark(axes, calibration)
    axes.set_title("Gap (tasks faint)", fontsize=9)
    axes.set_ylabel("positive to hardest negative, fused score", fontsize=8)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))


def _by_task(calibration: Calibration, text: Callable[[Kept], str]) -> list[list[str]]:
    """Return a row per task and a column for every second margin and the one that is set."""
    tried = [row.margin for row in calibration.of(ALL)]
    shown = [margin for margin in tried if margin != calibration.margin][::2]
    shown = [margin for margin in tried if margin in (*shown, calibration.margin)]
    rows = [[task, *(text(row) for row in calibration.of(task) if row.margin in shown)] for task in calibration.tasks]
    return [["task", *(_name(margin, calibration) for margin in shown)], *rows]


def _name(margin: float, calibration: Calibration) -> str:
    return f"{'*' if margin == calibration.margin else ''}{margin:g}"
