import bz2
import gzip
import json
import lzma
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anna.corpus import formats
from anna.corpus.sources import Reading
from anna.errors import InputError
from tests.corpus.conftest import Counted

REVISION = "0" * 40


def read(path: Path, kind: str, **options: Any) -> list[formats.Raw]:
    columns = options.pop("columns", {"text": "text"})
    reading = Reading(origin={"kind": "files", "path": str(path)}, format=kind, columns=columns, **options)
    return list(formats.read(reading, Counted()))


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str | bytes], Path]:
    def _write(content: str | bytes) -> Path:
        path = tmp_path / "source"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return _write


def test_jsonl_skips_blank_lines_and_marks_malformed_ones(write: Callable[..., Path]) -> None:
    path = write(
        f'\ufeff{{"text": "a"}}\n\n{{"text": \n[1]\n{{"text": {"1" * 5000}}}\n{"[" * 100_000}\n{{"text": "b"}}\n'
    )
    assert read(path, "jsonl") == [{"text": "a"}, None, None, None, None, {"text": "b"}]


def test_undecodable_bytes_reach_the_cleaning_as_surrogates(write: Callable[..., Path]) -> None:
    assert read(write(b'{"text": "caf\xe9"}\n{"text": "b"}\n'), "jsonl") == [{"text": "caf\udce9"}, {"text": "b"}]
    assert read(write(b"text\ncaf\xe9\n"), "csv") == [{"text": "caf\udce9"}]


@pytest.mark.parametrize("content", ['[{"text": "a"}, 3]', '{"x": {"text": "a"}, "y": 3}'])
def test_json_takes_a_list_or_a_mapping(write: Callable[..., Path], content: str) -> None:
    assert read(write(content), "json") == [{"text": "a"}, None]


@pytest.mark.parametrize(("kind", "content"), [("json", "{"), ("stix", "{"), ("json", "1" * 5000)])
def test_broken_json_is_refused(write: Callable[..., Path], kind: str, content: str) -> None:
    with pytest.raises(InputError, match="not valid JSON"):
        read(write(content), kind)


def test_json_of_another_type_is_refused(write: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="holds str, expected a list or a mapping"):
        read(write('"text"'), "json")


def test_csv_knows_quotes_and_long_fields(write: Callable[..., Path]) -> None:
    long = "x" * 200_000
    path = write(f'text,label\n"a, ""b""\nc",1\nshort\n1,2,3\n{long},2\n')
    assert read(path, "csv") == [
        {"text": 'a, "b"\nc', "label": "1"},
        {"text": "short"},
        None,
        {"text": long, "label": "2"},
    ]


def test_each_line_that_an_unclosed_quote_swallows_is_a_fault(write: Callable[..., Path]) -> None:
    lines = ["text,label", "a,1", '"never closed,1', *["b,2"] * 5]
    assert read(write("\n".join(lines)), "csv") == [{"text": "a", "label": "1"}, *[None] * 6]
    # The next quote ends it in the middle of a line, and the rows after that line are read again.
    lines[5] = 'c,"in quotes"'
    good = [{"text": "b", "label": "2"}] * 2
    assert read(write("\n".join(lines)), "csv") == [{"text": "a", "label": "1"}, *[None] * 4, *good]


def test_a_header_that_repeats_a_name_is_refused(write: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"its first line names columns \['text'\] more than once; rename"):
        read(write("id\ttext\ttext\n1\ta\tb\n"), "tsv")
    assert read(write("text,,\na,b,c\n"), "csv", columns={"text": "text"})[0]["text"] == "a"


@pytest.mark.parametrize(("kind", "header"), [("csv", "a;b"), ("csv", "a\tb"), ("csv", "a|b"), ("tsv", "a;b")])
def test_columns_that_something_else_divides_are_refused(write: Callable[..., Path], kind: str, header: str) -> None:
    with pytest.raises(InputError, match=r"its first line is one column, .* would divide; csv is read with commas"):
        read(write(f"{header}\n1;2\n"), kind)
    with pytest.raises(InputError, match="its first line is one column"):
        read(write(f"{header}\n1;2\n"), kind, header=["text", "label"])


def test_a_header_that_the_file_has_itself_is_refused(write: Callable[..., Path]) -> None:
    assert len(read(write("a,b\ntext,label\n"), "csv", header=["text", "label"])) == 2
    with pytest.raises(InputError, match=r"its first line is the `header` that params\.yaml gives it; leave"):
        read(write("text,label\na,b\n"), "csv", header=["text", "label"])


def test_a_comma_divides_no_text_and_no_name_that_is_asked_for(write: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"its first line is one column, 'text,label', that ',' would divide; csv is"):
        read(write("text,label\na,b\n"), "tsv")
    assert read(write("one, two\n"), "tsv", header=["text"]) == [{"text": "one, two"}]
    assert read(write("one; two | 3\n"), "tsv", header=["text"]) == [{"text": "one; two | 3"}]
    assert read(write("a, b\nc\n"), "tsv", columns={"text": "a, b"}) == [{"a, b": "c"}]


@pytest.mark.parametrize("header", [None, ["text", "label"]])
def test_blank_lines_before_the_first_are_skipped(write: Callable[..., Path], header: list[str] | None) -> None:
    first = "" if header else "text,label\n"
    assert read(write(f"\n\r\n{first}a,b\n"), "csv", header=header) == [{"text": "a", "label": "b"}]
    with pytest.raises(InputError, match="its first line is one column"):
        read(write("\ntext;label\na;b\n"), "csv", header=header)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b"text\na\n"), "holds what gzip has packed; let its name end in .gz"),
        (bz2.compress(b"text\na\n"), "is packed by bzip2; unpack it, or pack it by gzip"),
        (lzma.compress(b"text\na\n"), "is packed by xz; unpack it, or pack it by gzip"),
        (pa.compress(b"text\na\n", "zstd", asbytes=True), "is packed by zstd; unpack it, or pack it by gzip"),
        (b"PK\x03\x04\x14", "is a zip archive, or a spreadsheet; unpack it, or write it as csv"),
    ],
    ids=["gzip", "bzip2", "xz", "zstd", "zip"],
)
def test_what_is_packed_is_refused_by_how_it_begins(write: Callable[..., Path], content: bytes, message: str) -> None:
    for kind in ("csv", "jsonl", "json", "lines"):
        with pytest.raises(InputError, match=f"/source {message}"):
            read(write(content), kind, pattern="(?P<text>.*)" if kind == "lines" else None)


def test_parquet_as_text_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "rows.csv")
    with pytest.raises(InputError, match=r"rows\.csv is Parquet; set its format to parquet"):
        read(tmp_path / "rows.csv", "csv")
    (tmp_path / "rows.csv").write_text("PAR1,text\n1,a\n")
    assert read(tmp_path / "rows.csv", "csv") == [{"PAR1": "1", "text": "a"}]


def test_utf_16_is_refused(write: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"is UTF-16; make it UTF-8, e.g. by: iconv -f utf-16 -t utf-8"):
        read(write('{"text": "a"}\n'.encode("utf-16")), "jsonl")


def test_tsv_knows_no_quotes(write: Callable[..., Path]) -> None:
    assert read(write('1\t"open\n2\tb\n'), "tsv", header=["id", "text"]) == [
        {"id": "1", "text": '"open'},
        {"id": "2", "text": "b"},
    ]


@pytest.mark.parametrize("field", ['"He said ""hi"""', '"a, b"'])
def test_quoted_fields_of_a_tsv_are_told(
    write: Callable[..., Path], caplog: pytest.LogCaptureFixture, field: str
) -> None:
    plain = ['"Quiet," he said.', 'a 3" pipe', '"']
    read(write("text\n" + "\n".join(plain * 20)), "tsv")
    assert not caplog.messages
    path = write("text\n" + "\n".join([*plain, field]))
    assert read(path, "tsv")[-1] == {"text": field}
    assert caplog.messages == [
        f"{path}: in 1 of 4 rows a field stands in quotation marks, which tsv takes for text; write the file without "
        "them, or with commas as csv"
    ]


@pytest.mark.parametrize(("kind", "content"), [("jsonl", '{"text": "é"}'), ("json", '[{"text": "é"}]')])
def test_what_gzip_has_compressed_is_read(tmp_path: Path, kind: str, content: str) -> None:
    path = tmp_path / f"source.{kind}.gz"
    path.write_bytes(gzip.compress(content.encode()))
    assert read(path, kind) == [{"text": "é"}]
    for broken in (content.encode(), gzip.compress(content.encode())[:-9], path.read_bytes()[:-8] + bytes(8)):
        path.write_bytes(broken)
        with pytest.raises(InputError, match=rf"^{path} is not a whole gzip file \(.*\); correct the file or its name"):
            read(path, kind)


def test_lines_by_pattern(write: Callable[..., Path]) -> None:
    path = write("A:x first text\n\nno class\nB:y second\n")
    assert read(path, "lines", pattern=r"(?P<label>\w+):\w+ (?P<text>.+)") == [
        {"label": "A", "text": "first text"},
        None,
        {"label": "B", "text": "second"},
    ]


def test_folders_are_labels(tmp_path: Path) -> None:
    for name in ("b/2.txt", "a/1.txt", "b/.hidden"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    assert read(tmp_path, "folders") == [{"text": "a/1.txt", "label": "a"}, {"text": "b/2.txt", "label": "b"}]
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / ".ipynb_checkpoints" / "1.txt").write_text("no class")
    (tmp_path / "a" / "1.txt").unlink()
    (tmp_path / "a" / "1.txt.gz").write_bytes(gzip.compress(b"packed"))
    assert read(tmp_path, "folders") == [{"text": "packed", "label": "a"}, {"text": "b/2.txt", "label": "b"}]


def test_files_below_the_folder_of_a_label_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a/1.txt", "a/.hidden/2.txt", "a/x/.DS_Store", "b/2.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(name)
    rows = read(tmp_path, "folders")
    assert not caplog.messages
    for name in ("a/y/z/3.txt", "a/x/4.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(name)
    assert read(tmp_path, "folders") == rows
    assert caplog.messages == [
        f"{tmp_path}: 2 files lie deeper than in the folder of a label and are not read, among them "
        f"{tmp_path}/a/x/4.txt; move them up, or out of it"
    ]


def test_folder_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder with files in it, expected one per label"):
        read(tmp_path, "folders")


def test_parquet(tmp_path: Path) -> None:
    rows = [{"text": "a", "docs": ["x", "y"]}, {"text": None, "docs": []}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert read(tmp_path / "rows.parquet", "parquet", require=["docs"]) == rows


def test_of_parquet_no_column_is_read_that_is_not_named(tmp_path: Path) -> None:
    beyond = pa.array([2**62], pa.timestamp("us"))  # in the year 148107, which Python's dates do not reach
    pq.write_table(pa.table({"text": ["a"], "kind": ["b"], "when": beyond}), tmp_path / "rows.parquet")
    assert read(tmp_path / "rows.parquet", "parquet") == [{"text": "a"}]
    assert read(tmp_path / "rows.parquet", "parquet", where={"kind": "b"}) == [{"text": "a", "kind": "b"}]
    pq.write_table(pa.table({"text": ["a"], "kind": ["b"]}), tmp_path / "rows.parquet")
    assert read(tmp_path / "rows.parquet", "parquet", unless={"sort": "b"}) == [{"text": "a", "kind": "b"}]


def undecodable(values: Iterable[bytes | None]) -> pa.Array:
    """Return a column of strings, as a writer leaves them that does not check what it is given."""
    column = pa.array(values, pa.binary())
    return pa.StringArray.from_buffers(len(column), *column.buffers()[1:], column.buffers()[0])


def test_parquet_that_is_not_utf_8(tmp_path: Path) -> None:
    text = undecodable([b"a", b"caf\xe9", None])
    table = pa.table(
        {
            "text": text,
            "docs": pa.ListArray.from_arrays(pa.array([0, 2, 2, 3]), text),
            "part": pa.StructArray.from_arrays([text, pa.array([1, 2, 3])], ["text", "number"]),
            "kind": text.dictionary_encode(),
            "bytes": pa.array([b"\xe9"] * 3),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    got = read(tmp_path / "rows.parquet", "parquet", require=table.column_names)
    assert [row["text"] for row in got] == ["a", "caf\udce9", None]
    assert [row["docs"] for row in got] == [["a", "caf\udce9"], [], [None]]
    assert [row["part"] for row in got] == [
        {"text": value, "number": number} for value, number in zip(["a", "caf\udce9", None], [1, 2, 3], strict=True)
    ]
    assert [row["kind"] for row in got] == ["a", "caf\udce9", None]
    assert [row["bytes"] for row in got] == [b"\xe9"] * 3


def test_parquet_in_shards(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is a folder without \*\.parquet; correct the path or the format"):
        read(tmp_path, "parquet")
    for name in ("b", "a", ".c"):
        pq.write_table(pa.table({"text": [name]}), tmp_path / f"{name}.parquet")
    (tmp_path / "README.md").write_text("no rows")
    assert read(tmp_path, "parquet") == [{"text": "a"}, {"text": "b"}]
    (tmp_path / "b.parquet").write_text("broken")
    with pytest.raises(InputError, match=r"b\.parquet is not a readable Parquet file"):
        read(tmp_path, "parquet")


def test_broken_parquet_is_refused(write: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="not a readable Parquet file"):
        read(write("text"), "parquet")


def test_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder, expected a file"):
        read(tmp_path, "jsonl")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist; correct the path"):
        read(tmp_path / "nowhere", "jsonl")


def test_stix_without_objects_is_refused(write: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="has no list `objects`, expected a STIX bundle"):
        read(write(json.dumps([])), "stix")


class TestHub:
    @pytest.fixture(autouse=True)
    def _mirror(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        rows = datasets.Dataset.from_list([{"query": "q", "pos": ["a", "b"]}, {"query": "r", "pos": ["c"]}])
        both = datasets.DatasetDict({"train": rows, "dev": rows.select([1])})
        both.save_to_disk(str(tmp_path / "datasets/owner/splits"))
        rows.save_to_disk(str(tmp_path / "datasets/owner/named/en"))
        monkeypatch.setenv("ANNA_HUB_DIR", str(tmp_path))
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def read(self, **origin: str) -> list[formats.Raw]:
        columns = {"query": "query", "docs": "pos"}
        reading = Reading(origin={"kind": "hub", "revision": REVISION, **origin}, columns=columns)
        return list(formats.read(reading, Counted()))

    def test_split(self) -> None:
        assert self.read(repo="owner/splits") == [{"query": "q", "pos": ["a", "b"]}, {"query": "r", "pos": ["c"]}]
        assert self.read(repo="owner/splits", split="dev") == [{"query": "r", "pos": ["c"]}]

    def test_no_column_is_read_that_is_not_named(self, tmp_path: Path) -> None:
        rows = datasets.Dataset.from_list([{"query": "q", "pos": ["a"], "sound": {"bytes": b"none", "path": None}}])
        rows.cast_column("sound", datasets.Image()).save_to_disk(str(tmp_path / "datasets/owner/sounds"))
        assert self.read(repo="owner/sounds") == [{"query": "q", "pos": ["a"]}]

    def test_configuration(self) -> None:
        assert len(self.read(repo="owner/named", name="en")) == 2

    def test_a_copy_of_a_repository_is_read_as_it_lies(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
        folder = tmp_path / "datasets/owner/copied"
        for split in ("train", "dev"):
            path = folder / "en" / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"query": split, "pos": ["a"]}) + "\n")
        files = "".join(f"  - {{split: {split}, path: en/{split}.jsonl}}\n" for split in ("train", "dev"))
        (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: en\n  data_files:\n{files}---\n")
        assert self.read(repo="owner/copied", name="en", split="dev") == [{"query": "dev", "pos": ["a"]}]
        with pytest.raises(InputError, match=r"did not load \(ValueError: .*test"):
            self.read(repo="owner/copied", name="en", split="test")

    def test_what_is_not_utf_8_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("anna.corpus.formats.ROWS_AT_ONCE", 2)
        (tmp_path / "datasets/owner/bytes").mkdir()
        values = [b"a", b"b", b"caf\xe9", b"c", b"d"]
        pq.write_table(pa.table({"query": undecodable(values)}), tmp_path / "datasets/owner/bytes/train.parquet")
        assert [row["query"] for row in self.read(repo="owner/bytes")] == ["a", "b", "caf\udce9", "c", "d"]

    def test_unknown_split_names_those_there_are(self) -> None:
        with pytest.raises(InputError, match=r"no split 'test', only \['dev', 'train'\]"):
            self.read(repo="owner/splits", split="test")

    def test_unknown_configuration_is_one_line(self) -> None:
        with pytest.raises(InputError, match=r"did not load .* put a copy of it at"):
            self.read(repo="owner/named", name="fr")
