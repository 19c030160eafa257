"""The growth benchmark at a tiny size: every part runs, and the tables it makes are what it says."""

import json
from pathlib import Path

import polars as pl
import pytest

from anna import parts, schemas
from benchmarks import growth
from benchmarks.growth import Cost
from benchmarks.side_by_side import report

REPO = Path(__file__).parents[2]


@pytest.mark.parametrize("part", growth.PARTS)
def test_every_part_runs(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPO)  # whose params it reads
    monkeypatch.setattr(growth, "QUERIES", 20)
    monkeypatch.setattr(growth, "AT_ONCE", 150)
    assert growth.PARTS[part](tmp_path, 400) > 0
    if part == "tables":
        labels = pl.read_parquet(tmp_path / "data/labels.parquet")
        assert labels.group_by("query_id").len()["len"].min() > 80
        assert labels["query_id"].n_unique() == 400
    monkeypatch.chdir(REPO)


def test_runs_are_valid_tables(tmp_path: Path) -> None:
    docs = growth.ids("d", 0, 1000)
    parts.write(tmp_path / "run.parquet", growth.run_parts(docs, 30, 1), schemas.RUN)
    run = pl.read_parquet(tmp_path / "run.parquet")
    assert run.height == 30 * 50
    assert run.group_by("query_id").agg(pl.col("doc_id").n_unique())["doc_id"].unique().to_list() == [50]


def test_growth_is_a_power_of_the_size(tmp_path: Path) -> None:
    sizes, costs = [1_000, 10_000, 1_000_000], {"tables": [Cost(1, 10), Cost(2, 20), Cost(200, 2048)]}
    rows = json.loads(report(growth.summarise(sizes, costs)))
    assert rows["tables: time grows with this power of the size"]["ours"] == 1.0
    assert rows["label and filter of a million queries, seconds"] == {
        "ours": 200,
        "peer": None,
        "ratio": 1.5,
        "target": 300.0,
    }
    assert rows["label and filter of a million queries, GiB"]["ratio"] == 4.0
    growth.draw(sizes, costs, tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").stat().st_size > 1000
