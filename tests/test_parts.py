"""Tables in parts are the tables that `anna.io` writes and reads whole."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anna import io, parts, schemas
from anna.errors import InputError
from tests.test_io import ALL, rows


@pytest.fixture(autouse=True)
def _small_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io, "ROW_GROUP_SIZE", 3)


def run(names: str, ranks: Sequence[int] = (1, 2)) -> pa.Table:
    content = [{"query_id": name, "rank": rank, "doc_id": "d", "score": 0.5} for name in names for rank in ranks]
    return pa.Table.from_pylist(content, schema=schemas.RUN)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("step", [1, 2, 3, 7])
def test_the_bytes_are_those_of_a_whole_table(name: str, step: int, tmp_path: Path) -> None:
    table = pa.Table.from_pylist(rows(ALL[name]), schema=ALL[name])
    whole, pieces = tmp_path / "a.parquet", tmp_path / "b.parquet"
    io.write(whole, table, ALL[name], unit="cosine")
    parts.write(pieces, (table.slice(start, step) for start in range(0, 7, step)), ALL[name], unit="cosine")
    assert pieces.read_bytes() == whole.read_bytes()
    assert io.sidecar(pieces).read_text() == io.sidecar(whole).read_text()
    assert pq.ParquetFile(pieces).num_row_groups == 3


def test_no_parts_and_empty_ones_are_an_empty_table(tmp_path: Path) -> None:
    io.write(tmp_path / "a.parquet", run(""), schemas.RUN)
    for name, pieces in (("b", []), ("c", [run(""), run("")])):
        parts.write(tmp_path / f"{name}.parquet", pieces, schemas.RUN)
        assert (tmp_path / f"{name}.parquet").read_bytes() == (tmp_path / "a.parquet").read_bytes()


@pytest.mark.parametrize("names", [("b", "a"), ("a", "a"), ("b", "", "b")])
def test_parts_that_overlap_are_refused_and_leave_nothing(names: Sequence[str], tmp_path: Path) -> None:
    with pytest.raises(io.SchemaError, match="repeats or is out of order"):
        parts.write(tmp_path / "a.parquet", map(run, names), schemas.RUN)
    assert list(tmp_path.iterdir()) == []


def test_an_error_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    def pieces() -> object:
        yield run("a")
        raise InputError("one-hot")

    with pytest.raises(InputError, match="one-hot"):
        parts.write(tmp_path / "a.parquet", pieces(), schemas.RUN)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bounds", [[None], ["a", "c", None], ["b", "bb", "e", None], ["", "z", None]])
def test_blocks_are_what_lies_between_their_bounds(bounds: list[str | None], tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parts.write(path, [run("abde", (1, 2, 3, 4))], schemas.RUN)  # row groups cut through queries
    blocks = [table["query_id"].to_pylist() for table in parts.read(path, schemas.RUN, bounds)]
    left = [name for name in "abde" for _ in range(4)]
    for bound, block in zip(bounds, blocks, strict=True):
        assert block == [name for name in left if bound is None or name <= bound]
        left = left[len(block) :]
    assert not left


def test_blocks_of_a_missing_table_and_one_out_of_order_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x.parquet does not exist; make it with: dvc repro"):
        list(parts.read(tmp_path / "x.parquet", schemas.RUN, [None]))
    pq.write_table(run("ba"), tmp_path / "a.parquet", row_group_size=2)
    with pytest.raises(io.SchemaError, match=r"\{'query_id': 'a', 'rank': 1\} repeats or is out of order"):
        list(parts.read(tmp_path / "a.parquet", schemas.RUN, [None]))


def test_the_next_item_is_made_while_the_last_one_is_used() -> None:
    made = [threading.Event() for _ in range(4)]

    def make() -> Iterator[int]:
        for number, event in enumerate(made):
            event.set()
            yield number

    seen = []
    for number in parts.ahead(make()):
        seen.append(number)
        assert number == 3 or made[number + 1].wait(timeout=10)
        assert number > 1 or not made[number + 2].is_set()  # one ahead, no more: each may be large
    assert seen == [0, 1, 2, 3]
    assert list(parts.ahead([])) == []


def test_an_error_of_what_is_made_ahead_comes_after_what_was_made_before() -> None:
    def make() -> Iterator[int]:
        yield 1
        raise InputError("broken")

    items = parts.ahead(make())
    assert next(items) == 1
    with pytest.raises(InputError, match="broken"):
        next(items)
