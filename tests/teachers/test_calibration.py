"""What each margin would keep, against what the filter keeps at that margin."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from anna import io, schemas
from anna.errors import InputError
from anna.teachers import calibration
from anna.teachers.filtering import FilterParams
from tests.teachers.conftest import Toy, table
from tests.teachers.test_filtering import LABELS, SETTINGS, blocks, positives, select

RERANKED = [("A:q:1", 1, "A:d:4", -1.0), ("A:q:1", 2, "A:d:1", -2.0), ("A:q:1", 3, "A:d:5", -4.0)]


@pytest.fixture
def labels() -> pa.Table:
    return table(schemas.LABELS, LABELS)


@pytest.mark.parametrize("rule", ["adaptive", "percent", "absolute"])
@pytest.mark.parametrize("changed", [{}, {"negatives_per_query": 3, "min_negatives": 2}, {"relabel_margin": 0.5}])
@pytest.mark.parametrize("size", [1, 99])
def test_equal_to_the_filter_at_every_margin(
    toy: Toy, labels: pa.Table, rule: str, changed: dict[str, Any], size: int
) -> None:
    settings = SETTINGS | {"rule": rule, "margin": 0.17} | changed
    found = calibration.calibrate(
        toy.corpus, toy.queries, blocks(toy, labels, size, RERANKED), FilterParams(**settings)
    )
    assert (found.rule, found.margin, found.tasks) == (rule, 0.17, ["A", "B", "all"])
    whole = found.of("all")
    assert 0.17 in [row.margin for row in whole]
    for place, row in enumerate(whole):
        if not row.groups:  # the filter refuses
            continue
        expected = select(toy, labels, reranked=RERANKED, **settings | {"margin": row.margin}).metrics
        for name in ("A", "B", "all"):
            counted = expected if name == "all" else expected["tasks"][name]
            ours = found.of(name)[place]
            told = ("queries", "groups", "candidates", "negatives", "drops", "query_drops")
            assert [getattr(ours, key) for key in told] == [counted[key] for key in told]


def test_the_gap_by_hand(toy: Toy, labels: pa.Table) -> None:
    # A:q:1: p = 2, the hardest negative has 1. A:q:2 gives no group. B:q:1: p = 1, the negative has 0.
    found = calibration.calibrate(toy.corpus, toy.queries, blocks(toy, labels), FilterParams(**SETTINGS))
    at_half = {name: next(row for row in found.of(name) if row.margin == 0.5) for name in found.tasks}
    assert {name: row.gap for name, row in at_half.items()} == {"A": 1.0, "B": 1.0, "all": 1.0}
    at_one_and_a_half = next(row for row in found.of("all") if row.margin == 1.5)
    # B's negative is of another class, which no margin applies to.
    assert (at_one_and_a_half.groups, at_one_and_a_half.gap) == (2, 2.0)
    at_three = next(row for row in found.of("A") if row.margin == 3.5)
    assert (at_three.groups, at_three.gap) == (0, None)


def test_another_rule_than_the_one_that_is_set_has_no_margin(toy: Toy, labels: pa.Table) -> None:
    params = FilterParams(**SETTINGS)
    found = calibration.calibrate(toy.corpus, toy.queries, blocks(toy, labels), params, "percent")
    assert (found.rule, found.margin, len(found.of("A"))) == ("percent", None, 21)
    assert calibration.calibrate(toy.corpus, toy.queries, blocks(toy, labels), params, "absolute").margin == 0.5


@pytest.mark.parametrize(
    "missing",
    [
        pytest.param(lambda row: row[0] == "B:q:1", id="all labels of a task"),
        pytest.param(lambda row: row[0] == "A:q:2", id="all labels of a query"),
        pytest.param(lambda row: row[0] == "B:q:1" and row[2] != "B:d:3", id="its positives"),
        pytest.param(lambda row: True, id="everything"),
    ],
)
@pytest.mark.parametrize("size", [1, 99])
def test_labels_of_other_queries_are_refused(toy: Toy, missing: Callable[[Any], bool], size: int) -> None:
    labels = table(schemas.LABELS, [row for row in LABELS if not missing(row)])
    message = r"has no positive of \d queries, the first '.:q:.'; it was made from other data, run: dvc repro filter$"
    with pytest.raises(InputError, match=message):
        calibration.calibrate(toy.corpus, toy.queries, blocks(toy, labels, size), FilterParams(**SETTINGS))
    with pytest.raises(InputError, match=message):
        select(toy, labels, size, **SETTINGS)


def test_rule_none_gives_no_rows(toy: Toy, labels: pa.Table) -> None:
    params = FilterParams(**SETTINGS | {"rule": "none"})
    assert not calibration.calibrate(toy.corpus, toy.queries, blocks(toy, labels), params).kept


@pytest.mark.parametrize("relabel_margin", [None, 0.5])
def test_of_the_tables_of_a_run(toy: Toy, labels: pa.Table, tmp_path: Path, relabel_margin: float | None) -> None:
    params = FilterParams(**SETTINGS | {"relabel_margin": relabel_margin})
    for name, part, schema in (
        ("corpus", toy.corpus, schemas.CORPUS),
        ("queries", toy.queries, schemas.QUERIES),
        ("qrels", positives(toy), schemas.QRELS),
        ("labels", labels, schemas.LABELS),
    ):
        io.write(tmp_path / f"{name}.parquet", part, schema)
    if relabel_margin is not None:  # read only then
        io.write(tmp_path / "reranker_run.parquet", table(schemas.RUN, RERANKED), schemas.RUN)
    expected = calibration.calibrate(toy.corpus, toy.queries, blocks(toy, labels, 99, RERANKED), params)
    assert calibration.of_run(tmp_path, params) == expected
    io.write(tmp_path / "queries.parquet", schemas.QUERIES.empty_table(), schemas.QUERIES)
    with pytest.raises(InputError, match=r"queries.parquet is empty, so no margin keeps anything; run: dvc repro in"):
        calibration.of_run(tmp_path, params)
