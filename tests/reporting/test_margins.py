"""The table and the figure of what each margin would keep."""

import pytest

from anna.errors import InputError
from anna.margins import ALL, Calibration, Kept
from anna.reporting import margins, plots
from tests.reporting.conftest import HOSTILE

REASONS = ("labelled_positive", "duplicate_of_positive", "above_positive", "inside_margin", "beyond_quota")


def kept(task: str, margin: float, scale: int) -> Kept:
    """Return a row of 10 queries with 100 candidates, times `scale`; more lie inside a larger margin."""
    inside = round(40 * margin)
    drops = dict(zip(REASONS, (10, 2, 8, inside, 66 - inside), strict=True))
    drops |= {"weak_positive": 3, "too_few_negatives": 2, "relabelled": 0}
    return Kept(
        task=task,
        margin=margin,
        queries=10 * scale,
        groups=9 * scale,
        candidates=100 * scale,
        negatives=9 * scale,
        gap=None if margin == 1 else round(1 + margin, 3),
        drops={reason: number * scale for reason, number in drops.items()},
        query_drops={"weak_positive": 1 * scale, "too_few_negatives": 0},
    )


def calibration(margin: float | None = 0.25, *tasks: str) -> Calibration:
    """Return a made-up calibration."""
    tried = (0.0, 0.25, 0.5, 0.75, 1.0)
    named = tasks or ("BoolQ", HOSTILE)
    rows = [kept(task, each, 1) for task in named for each in tried]
    return Calibration("adaptive", margin, [*rows, *(kept(ALL, each, len(named)) for each in tried)])


def test_the_table_is_aligned_and_marks_the_margin() -> None:
    lines = margins.table(calibration()).splitlines()
    assert lines[:6] == [
        "rule adaptive, margin in its unit: share of the way from the positive down to the query's background; * as set",  # noqa: E501
        "",
        "all: 20 queries",
        "margin  groups  of queries  weak positive  too few  pass/query  negatives    gap  beyond quota  inside margin"
        "  above positive",
        "0           18      90.0 %              2        0        8.00         18  1.000           132              0"
        "              16",
        "*0.25       18      90.0 %              2        0        7.00         18  1.250           112             20"
        "              16",
    ]
    assert lines[-5:-4] == ["Candidates that pass, per query"]
    assert lines[-4:] == [
        f"{'task':<10}    0  *0.25  0.75",
        f"{'BoolQ':<10}  8.0    7.0   5.0",
        f"{HOSTILE:<10}  8.0    7.0   5.0",
        f"{'all':<10}  8.0    7.0   5.0",
    ]


def test_the_table_of_one_task() -> None:
    assert "BoolQ: 10 queries" in margins.table(calibration(), "BoolQ")
    with pytest.raises(InputError, match=r"there is no task 'nope' .* only BoolQ, .*, all"):
        margins.table(calibration(), "nope")


def test_no_margin_is_marked_where_none_is_set() -> None:
    assert "*" not in margins.table(calibration(None)).replace("; * as set", "")
    assert b"margin as set" not in (margins.render(calibration(None)).svg or b"")


def test_the_figure_has_a_panel_for_each_task_and_marks_the_margin() -> None:
    plot = margins.render(calibration(0.25, "BoolQ", HOSTILE, "C", "D", "E"))
    assert plot == margins.render(calibration(0.25, "BoolQ", HOSTILE, "C", "D", "E"))
    shown = plots.inline(plot)
    for text in ("All tasks", "BoolQ", "&lt;b&gt;x &amp; $y$", "E", "margin as set", "queries that give a group"):
        assert f">{text}<" in shown
    assert "<b>x" not in shown


def test_nothing_to_draw_without_rows() -> None:
    assert margins.render(Calibration("none", 0.05, [])).svg is None
