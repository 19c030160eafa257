"""Tables round-trip to the same bytes, and nothing half-written or out of schema gets by."""

import errno
import json
import os
import random
import re
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anna import io, schemas
from anna.errors import InputError
from anna.negatives import Verdict

ALL = {name: value for name, value in vars(schemas).items() if isinstance(value, pa.Schema)}


def value(field: pa.Field, row: int) -> Any:
    """A value of the field's type; None in every third row where null is allowed."""
    if field.nullable and row % 3 == 0:
        return None
    if pa.types.is_string(field.type):
        return f"{field.name} é {row:03d}"
    if pa.types.is_list(field.type):
        return [value(field.type.value_field, row + extra) for extra in range(row % 3)]
    return row / 4 if pa.types.is_floating(field.type) else row


def rows(schema: pa.Schema, count: int = 7) -> list[dict[str, Any]]:
    return [{field.name: value(field, row) for field in schema} for row in range(count)]


@pytest.mark.parametrize("name", ALL)
def test_every_table_round_trips_to_the_same_bytes(name: str, tmp_path: Path) -> None:
    schema = ALL[name]
    content = rows(schema)
    first, again, shuffled = tmp_path / "a.parquet", tmp_path / "b.parquet", tmp_path / "c.parquet"
    io.write(first, pa.Table.from_pylist(content, schema=schema), schema)
    table = io.read(first, schema)
    assert table.to_pylist() == content
    io.write(again, table, schema)
    random.Random(0).shuffle(content)
    chunks = [pa.Table.from_pylist([row], schema=schema) for row in content]
    io.write(shuffled, pa.concat_tables(chunks).select(schema.names[::-1]), schema)
    assert first.read_bytes() == again.read_bytes() == shuffled.read_bytes()
    described = json.loads(io.sidecar(first).read_text())
    assert described["rows"] == 7
    assert [field["name"] for field in described["fields"]] == schema.names


def test_a_column_of_nulls_is_not_called_infinite(tmp_path: Path) -> None:
    row = {"query_id": "q", "doc_id": "", "reason": "weak_positive", "margin": None, "score": None}
    io.write(tmp_path / "a.parquet", pa.Table.from_pylist([row], schema=schemas.DROPS), schemas.DROPS)
    assert io.read(tmp_path / "a.parquet", schemas.DROPS).to_pylist() == [row]


def test_the_schema_of_drops_names_every_reason() -> None:
    meaning = schemas.DROPS.field("reason").metadata[b"meaning"].decode()
    assert set(re.findall(r"\w+_\w+|relabelled", meaning)) == {verdict.reason for verdict in Verdict if verdict}


@pytest.mark.parametrize("name", ALL)
def test_an_empty_table_is_a_table(name: str, tmp_path: Path) -> None:
    io.write(tmp_path / "a.parquet", ALL[name].empty_table(), ALL[name])
    assert io.read(tmp_path / "a.parquet", ALL[name]).num_rows == 0


def test_a_column_may_hold_more_than_2_gib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io, "ROW_GROUP_SIZE", 1_024)  # 64 MiB of text each, as there are 33 times over
    text = pa.chunked_array([pa.array(["x" * 2**16] * 1_024)] * 33)
    names = [f"d{(7 * row) % len(text):05d}" for row in range(len(text))]
    columns = {"doc_id": pa.array(names), "task": pa.nulls(len(text), pa.string()).fill_null("t"), "text": text}
    table = pa.table({**columns, "label": pa.nulls(len(text), pa.string())}, schema=schemas.CORPUS)
    assert table["text"].nbytes > 2**31
    io.write(tmp_path / "a.parquet", table, schemas.CORPUS)
    with io.opened(tmp_path / "a.parquet", schemas.CORPUS) as file:
        assert file.metadata.num_rows == len(text)
        assert file.read(["doc_id"])["doc_id"].to_pylist() == sorted(names)


def test_few_rows_are_cast_at_once_and_the_bytes_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"d{(7 * row) % 25:02d}" for row in range(25)]
    columns = {"doc_id": names, "task": ["t"] * 25, "text": names, "label": pa.nulls(25, pa.string())}
    table, cast, conform = pa.table(columns, schema=schemas.CORPUS), [], io.conform

    def counted(path: Path, part: pa.Table, schema: pa.Schema) -> pa.Table:
        cast.append(part.num_rows)
        return conform(path, part, schema)

    io.write(tmp_path / "whole.parquet", table, schemas.CORPUS)
    monkeypatch.setattr(io, "ROWS_AT_ONCE", 4)
    monkeypatch.setattr(io, "conform", counted)
    io.write(tmp_path / "parts.parquet", table, schemas.CORPUS)
    assert sorted(cast, reverse=True) == [4] * 6 + [1, 0]
    assert (tmp_path / "parts.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def run_rows(**changes: Any) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = [{"query_id": "q", "rank": n, "doc_id": f"d{n}", "score": 0.5} for n in (1, 2)]
    content[1].update(changes)
    return content


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 1}, r"row 1 \{'query_id': 'q', 'rank': 1\} repeats or is out of order in key \['query_id', 'rank'\]"),
        ({"doc_id": None}, r"field 'doc_id' with null values"),
        ({"score": float("nan")}, r"column 'score' has NaN or infinite"),
        ({"score": float("inf")}, r"column 'score' has NaN or infinite"),
    ],
)
def test_a_table_that_breaks_its_schema_is_not_written(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    loose = pa.schema([pa.field(field.name, field.type) for field in schemas.RUN])
    with pytest.raises(io.SchemaError, match=message):
        io.write(tmp_path / "a.parquet", pa.Table.from_pylist(run_rows(**changes), schema=loose), schemas.RUN)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.5, float("nan")], r"column 'soft_labels' has NaN or infinite"),
        ([0.5, None], r"column 'soft_labels' has 1 nulls, expected none"),
    ],
)
def test_what_lists_hold_is_checked(labels: list[float | None], message: str, tmp_path: Path) -> None:
    groups = schemas.GROUPS
    loose = pa.schema([pa.field("soft_labels", pa.list_(pa.float32()))])
    row = {"query_id": "q", "positive_ids": ["p"], "negative_ids": ["n"], "soft_labels": [0.5, 0.5]}
    io.write(tmp_path / "a.parquet", pa.Table.from_pylist([row], schema=groups), groups)
    table = io.read(tmp_path / "a.parquet", groups)
    labelled = table.set_column(3, "soft_labels", pa.Table.from_pylist([{"soft_labels": labels}], schema=loose)[0])
    with pytest.raises(io.SchemaError, match=message):
        io.write(tmp_path / "b.parquet", labelled, groups)
    # Of a slice, what its own lists hold alone counts.
    io.check(tmp_path, pa.concat_tables([table, labelled.cast(table.schema)]).slice(0, 1), groups)


def test_wrong_columns_and_types_are_named(tmp_path: Path) -> None:
    with pytest.raises(io.SchemaError, match=r"got columns \['x'\], expected"):
        io.write(tmp_path / "a.parquet", pa.table({"x": [1]}), schemas.RUN)
    wrong = pa.table({"query_id": ["q"], "rank": ["first"], "doc_id": ["d"], "score": [1.0]})
    with pytest.raises(io.SchemaError, match="cannot become table run"):
        io.write(tmp_path / "a.parquet", wrong, schemas.RUN)


def test_rows_of_some_values_are_those_of_the_whole_table_and_checked(tmp_path: Path) -> None:
    path, schema = tmp_path / "run.parquet", schemas.RUN
    rows = [{"query_id": f"q{n // 3}", "rank": n % 3, "doc_id": f"d{n}", "score": float(n)} for n in range(12)]
    io.write(path, pa.Table.from_pylist(rows, schema=schema), schema)
    found = io.read_rows(path, schema, "query_id", ["q1", "q3", "q9"])
    assert found.schema.equals(schema)
    assert found.to_pylist() == [row for row in rows if row["query_id"] in ("q1", "q3")]
    assert io.read_rows(path, schema, "query_id", []).num_rows == 0
    with pytest.raises(io.SchemaError, match="expected"):
        io.read_rows(path, schemas.QRELS, "query_id", ["q1"])
    bad = pa.Table.from_pylist([rows[0], rows[4], rows[3]], schema=schema)
    pq.write_table(bad, path)
    assert io.read_rows(path, schema, "query_id", ["q0"]).num_rows == 1
    with pytest.raises(io.SchemaError, match="repeats or is out of order"):
        io.read_rows(path, schema, "query_id", ["q1"])


def test_columns_that_are_left_out_are_not_read_and_the_others_checked(tmp_path: Path) -> None:
    path = tmp_path / "corpus.parquet"
    row = {"doc_id": "T:d:1", "task": "T", "text": "somebody", "label": None}
    io.write(path, pa.Table.from_pylist([row], schema=schemas.CORPUS), schemas.CORPUS)
    assert io.read(path, schemas.CORPUS, without=["text"]).column_names == ["doc_id", "task", "label"]
    broken = pa.Table.from_pylist([row, row], schema=schemas.CORPUS)
    pq.write_table(broken, path)
    with pytest.raises(io.SchemaError, match="repeats or is out of order in key"):
        io.read(path, schemas.CORPUS, without=["text"])


def test_reading_refuses_other_schemas_missing_files_and_rubbish(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with pytest.raises(InputError, match="does not exist; make it with: dvc repro"):
        io.read(path, schemas.RUN)
    path.write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        io.read(path, schemas.RUN)
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(io.SchemaError, match="written by other code, run: dvc repro"):
        io.read(path, schemas.RUN)
    wide = [pa.field("rank", pa.int64(), nullable=False) if f.name == "rank" else f for f in schemas.RUN]
    pq.write_table(pa.Table.from_pylist(run_rows(), schema=pa.schema(wide)), path)
    with pytest.raises(io.SchemaError, match=r"'rank': 'int64'.*expected .*written by other code"):
        io.read(path, schemas.RUN)
    unsorted = pa.Table.from_pylist(run_rows()[::-1], schema=schemas.RUN)
    pq.write_table(unsorted, path)
    with pytest.raises(io.SchemaError, match="out of order"):
        io.read(path, schemas.RUN)


def test_json_refuses_nan_and_round_trips(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="NaN or infinite"):
        io.write_json(tmp_path / "m.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())
    io.write_json(tmp_path / "m.json", {"b": 1, "a": "é"})
    assert io.read_json(tmp_path / "m.json") == {"b": 1, "a": "é"}


def test_atomic_leaves_the_old_and_no_rubbish_when_the_work_fails(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with io.atomic(folder) as temporary:
        temporary.mkdir()
        (temporary / "weights").write_text("old")

    def half_way() -> None:
        with io.atomic(folder) as temporary:
            temporary.mkdir()
            (temporary / "weights").write_text("half")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        half_way()
    assert (folder / "weights").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    with io.atomic(folder) as temporary:
        temporary.mkdir()
        (temporary / "weights").write_text("new")
    assert (folder / "weights").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["model"], "nor is the old one left beside it"


@pytest.mark.parametrize("is_folder", [False, True])
def test_what_is_written_is_on_disk_before_it_has_its_name(
    is_folder: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace
    name = "/proc/self/fd/{}"
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append(Path(name.format(fd)).readlink().name), fsync(fd)))
    monkeypatch.setattr(Path, "replace", lambda self, to: (done.append("replace"), replace(self, to))[1])
    with io.atomic(tmp_path / "made") as temporary:
        if is_folder:
            temporary.mkdir()
            (temporary / "inner").write_text("text")
        else:
            temporary.write_text("text")
    assert done == [*(["inner"] if is_folder else []), temporary.name, "replace", tmp_path.name]


def test_what_killed_processes_left_is_removed_when_it_is_a_day_old(tmp_path: Path) -> None:
    old, young, other = (tmp_path / name for name in (".model.aaaaaaaa.tmp", ".model.bbbbbbbb.tmp", ".other.cc.tmp"))
    for left in (old, young, other):
        left.mkdir()
        (left / "weights").write_text("half")
    for left in (old, other):
        os.utime(left, (time.time() - 2 * io.DAY,) * 2)
    with io.atomic(tmp_path / "model") as temporary:
        temporary.mkdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == [young.name, other.name, "model"]


def test_a_table_that_the_system_keeps_from_us_is_not_called_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    path = tmp_path / "run.parquet"
    path.write_bytes(b"not Parquet")
    with pytest.raises(InputError, match=r"is not a readable Parquet file .* delete it and run: dvc repro"):
        io.read(path, schemas.RUN)
    monkeypatch.setattr(io.pq, "ParquetFile", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        io.read(path, schemas.RUN)


def test_csv_is_plain(tmp_path: Path) -> None:
    io.write_csv(tmp_path / "scores.csv", ("model", "score"), [("a", 0.5), ("b, c", 1.0)])
    assert (tmp_path / "scores.csv").read_text() == 'model,score\na,0.5\n"b, c",1.0\n'
