"""Rows of a score: those of its tasks together, and a warning of few."""

from anna.reporting import sizes
from anna.reporting.style import MISSING

SIZES = {"A": {"scored": 1, "docs": 5050}, "B": {"scored": 49}, "C": {"scored": 1300, "docs": 99}, "D": {"scored": 50}}


def test_tasks_are_counted_together_and_documents_of_searched_ones_alone() -> None:
    assert sizes.cells(SIZES, ["A"]) == ["1", "5,050"]
    assert sizes.cells(SIZES, ["A", "B", "C"]) == ["1,350", "5,149"]
    assert sizes.cells(SIZES, ["B"]) == ["49", MISSING]
    assert sizes.cells(SIZES, ["of mteb's own"]) == [MISSING, MISSING]
    assert len(sizes.head(SIZES)) == 2


def test_nothing_is_told_where_nothing_is_known() -> None:
    assert sizes.head({}) == sizes.cells({}, ["A"]) == []
    assert sizes.warning({}, ["A"]) == ""


def test_a_warning_names_the_scored_tasks_with_fewer_than_fifty_rows() -> None:
    assert sizes.warning(SIZES, ["C", "D"]) == ""
    assert sizes.warning(SIZES, ["C", "A"]).startswith("Fewer than 50 rows are scored of A (1): ")
    assert "scored of B (49) and A (1): " in sizes.warning(SIZES, ["B", "A", "D"])
    three = {task: {"scored": 2} for task in "ABC"}
    assert "scored of A (2), B (2) and C (2): " in sizes.warning(three, three)
