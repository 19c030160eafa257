import random
import re
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from anna.corpus.rows import load_rows, sample
from anna.corpus.sources import Reading
from anna.corpus.values import Row
from anna.errors import InputError
from tests.corpus.conftest import Counted, lines

Load = Callable[..., list[Row]]


def test_rows_lost_for_their_encoding_are_told_however_few(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    good = '{"text": "plain"}\n'
    load(good.encode() * 30 + b'{"text": "caf\xe9"}\n', columns={"text": "text"}, max_faulty_share=0.1)
    assert "1 rows are not UTF-8 and are left out, the first of them row 31; convert the file" in caplog.text
    caplog.clear()
    load(good, columns={"text": "text"}, max_faulty_share=0.1)
    assert "UTF-8" not in caplog.text


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        (b'[\n {"text": "a"}\n]\n', "Most rows are not of format 'jsonl': correct the format in params.yaml"),
        (b'{"text": "caf\xe9"}\n{"text": "a"}\n', "It is not UTF-8: convert the file, e.g. by: iconv"),
        (
            b'{"text": ""}\n{"text": "a"}\n',
            "Leave such rows out by `require`, correct the source or raise ingest.max_f",
        ),
        (
            b'{"text": null}\n{"text": "a"}\n',
            "Leave such rows out by `require`, correct the source or raise ingest.max",
        ),
        (b'{"text": ["a"], "score": "high"}\n', r"is not_a_number 'score' \(str 'high'\) at .* row 1. Map a col"),
    ],
)
def test_too_many_faults_are_refused_with_what_helps(load: Load, content: bytes, remedy: str) -> None:
    columns = {"score": "score"} if b"score" in content else {"text": "text"}
    with pytest.raises(InputError, match=remedy):
        load(content, columns=columns, max_faulty_share=0.1)


def test_too_many_faults_are_refused(load: Load) -> None:
    content = lines({"t": "a"}, {"t": ""}, {"t": "b"}, {"t": ""})
    with pytest.raises(
        InputError, match=r"2 of 4 rows are faulty.*0\.4; the first is empty_text 't' at .* row 2\. Leave"
    ):
        load(content, columns={"text": "t"}, max_faulty_share=0.4)
    assert len(load(content, columns={"text": "t"}, max_faulty_share=0.5)) == 2


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ({"title": None, "text": "a"}, "missing_column 'title'"),
        ({"text": "a"}, "missing_column 'title'"),
        ({"title": " ", "text": ""}, "empty_text '{title} {text}'"),
        ({"title": "a", "text": "a", "pos": ["b", None]}, "missing_column 'pos'"),
        ({"title": "a", "text": "a", "pos": [""]}, "empty_text 'pos'"),
        ({"title": "a", "text": "\ud800"}, "undecodable '{title} {text}'"),
        (None, "malformed"),
    ],
)
def test_a_fault_names_its_column(tmp_path: Path, row: Any, shown: str) -> None:
    path = tmp_path / "source"
    path.write_text(lines({"title": "good", "text": "one", "pos": ["b"]}, {"pos": ["b"], **row} if row else 0))
    columns = {"query": "{title} {text}", "docs": "pos"}
    origin = {"kind": "files", "path": str(path)}
    reading = Reading.model_validate({"origin": origin, "format": "jsonl", "columns": columns})
    dropped = []
    with pytest.raises(InputError, match=re.escape(f"the first is {shown} at {path} row 2.")):
        list(load_rows(reading, lambda *drop: dropped.append(drop), task="T", max_faulty_share=0.1))
    ((reason, example),) = dropped
    assert reason == shown.split(maxsplit=1)[0]
    assert example.startswith(f"{path} row 2: {shown}: {{" if reason == "missing_column" else f"{path} row 2: ")
    assert (reason in example) == (reason == "missing_column")


def test_unknown_column_names_those_there_are(load: Load) -> None:
    with pytest.raises(InputError, match=r"no row has a column 'txt', only \['label', 'text'\]"):
        load(lines({"text": "a", "label": "b"}), columns={"text": "txt"})
    with pytest.raises(InputError, match=r"no row has a column 'kind'"):
        load(lines({"text": "a"}), columns={"text": "text"}, where={"kind": "x"})


def test_of_many_columns_the_first_are_named(load: Load) -> None:
    with pytest.raises(InputError, match=r"only \['c00', .*'c29'\] and 70 more; correct it"):
        load(lines({f"c{n:02}": "a" for n in range(100)}), columns={"text": "text"})


def test_nested_fields_are_told_wherever_they_first_stand(load: Load) -> None:
    with pytest.raises(InputError, match="nested fields cannot be named: flatten the source"):
        load(lines({"t": "a", "m": None}, {"t": "b", "m": {"x": "c"}}), columns={"text": "m.x"})


def test_selection_is_counted_and_is_no_fault(load: Load, drops: Counted) -> None:
    rows = load(
        lines(
            {"t": "kept", "k": "x", "n": 1, "l": "y"},
            {"t": "other kind", "k": "z", "n": 1, "l": "y"},
            {"t": "excluded", "k": "x", "n": 2, "l": "y"},
            {"t": "no label", "k": "x", "n": 1, "l": None},
            {"t": "empty list", "k": "x", "n": 1, "l": []},
            {"t": "blank", "k": "x", "n": 1, "l": " \t"},
            {"t": "", "k": "z", "n": 1, "l": "y"},
        ),
        columns={"text": "t"},
        where={"k": "x"},
        unless={"n": 2},
        require=["l"],
        max_faulty_share=0.0,
    )
    assert [row.text("text") for row in rows] == ["kept"]
    assert drops == {"where": 2, "unless": 1, "require": 3}


CSV = "text,draft,year\na,no,1.5\nb,yes,2\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"unless": {"draft": False}},  # a bare `false` in YAML
            r"no row has False in column 'draft', whose first values are \['no', 'yes'\]; correct unless; YAML reads a "
            "bare true or false as a boolean: quote what is text",
        ),
        ({"where": {"year": [2, 3, 1]}}, r"no row has 3 or 1 in column 'year', .* \['1\.5', '2'\]; correct where$"),
        ({"unless": {"draft": ["no", "n"]}}, r"no row has 'n' in column 'draft', .*; correct unless$"),
        ({"where": {"draft": "NO"}}, r"no row has 'NO' in column 'draft', .* \['no', 'yes'\]; correct where$"),
        ({"unless": {"draft": "no", "year": 1}}, r"no row has 1 in column 'year', .* \['1\.5', '2'\]; correct unless$"),
    ],
)
def test_a_value_that_no_row_has_selects_nothing_and_is_refused(
    load: Load, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load(CSV, format="csv", columns={"text": "text"}, **options)


def test_values_compare_as_text(load: Load) -> None:
    assert len(load(CSV, format="csv", columns={"text": "text"}, where={"year": 2}, unless={"draft": "no"})) == 1
    flags = lines({"t": "a", "f": True}, {"t": "b", "f": False}, *({"t": "c", "f": n} for n in range(9)))
    assert [row.text("text") for row in load(flags, columns={"text": "t"}, where={"f": True})] == ["a"]
    # The value is found in whatever row, also one that another rule leaves out, and beyond the first few values.
    assert len(load(flags, columns={"text": "t"}, where={"t": "c"}, unless={"f": 8})) == 8
    assert len(load(flags, columns={"text": "t"}, where={"t": "c"}, unless={"f": True})) == 9


def test_a_list_of_values_selects_rows_with_any(load: Load, drops: Counted) -> None:
    content = lines(*({"t": f"text {n}", "n": n, "d": n % 2 == 0} for n in (1, 2.0, 3, 4)))
    content += "\n" + lines({"t": "text five", "n": "5", "d": "maybe"}, {"t": "text none", "n": None, "d": True})

    def chosen(**rules: Any) -> list[str]:
        return [row.text("text").split()[1] for row in load(content, columns={"text": "t"}, **rules)]

    assert chosen(where={"n": [2, 3, "5"]}) == ["2.0", "3", "five"]
    assert chosen(unless={"n": [2, 3, "5"]}) == ["1", "4", "none"]
    assert chosen(where={"n": [1, 2, 3, 4]}, unless={"d": [True, "maybe"]}) == ["1", "3"]
    assert chosen(where={"d": [False]}) == chosen(where={"d": False}) == ["1", "3"]
    assert drops == {"where": 3 + 2 + 2 * 4, "unless": 3 + 2}


def test_numbers_and_gaps_compare_as_pandas_writes_them(load: Load, drops: Counted) -> None:
    content = lines(*({"t": f"text {n}", "n": n} for n in (1, 1.0, 2.0, 0.5, float("nan"), None)))
    assert len(load(content, columns={"text": "t"}, where={"n": 1})) == 2
    assert len(load(content, columns={"text": "t"}, where={"n": 1.0})) == 2
    assert len(load(content, columns={"text": "t"}, unless={"n": 2, "t": "text 0.5"})) == 4
    drops.clear()
    assert len(load(content, columns={"text": "t"}, require=["n"])) == 4
    assert drops == {"require": 2}
    written = "t,n\na,1.0\nb,1\nc,1.5\n"
    assert len(load(written, format="csv", columns={"text": "t"}, where={"n": 1})) == 2
    assert len(load(written, format="csv", columns={"text": "t"}, where={"n": "1.0"})) == 1, "text is text"


def test_minus_removes_equal_rows(load: Load, drops: Counted, tmp_path: Any) -> None:
    (tmp_path / "dev").write_text(lines({"question": "Second?"}))
    rows = load(
        lines({"q": "first", "d": "1"}, {"q": "second", "d": "2"}),
        columns={"query": "q", "doc": "d"},
        minus=[
            {
                "origin": {"kind": "files", "path": str(tmp_path / "dev")},
                "format": "jsonl",
                "columns": {"query": "question"},
            }
        ],
    )
    assert [row.text("query") for row in rows] == ["first"]
    assert drops == {"minus": 1}


def test_minus_goes_by_all_columns_that_it_names(load: Load, drops: Counted, tmp_path: Any) -> None:
    given = [{"q": query, "d": doc} for query in ("one", "two") for doc in ("a", "b")]
    (tmp_path / "dev").write_text(lines(given[1]))
    columns = {"query": "q", "doc": "d"}
    other = {"origin": {"kind": "files", "path": str(tmp_path / "dev")}, "format": "jsonl", "columns": columns}
    rows = load(lines(*given), columns=columns, minus=[other])
    assert [(row.text("query"), row.text("doc")) for row in rows] == [("one", "a"), ("two", "a"), ("two", "b")]
    assert drops == {"minus": 1}


def test_errors_say_the_task_once(load: Load, tmp_path: Path) -> None:
    nowhere = {"kind": "files", "path": str(tmp_path / "nowhere")}
    without = {"origin": nowhere, "format": "jsonl", "columns": {"text": "t"}}
    with pytest.raises(InputError, match=f"^task 'T': {tmp_path}/nowhere does not exist"):
        load(lines({"t": "a"}), columns={"text": "t"}, minus=[without])
    with pytest.raises(InputError, match=f"^task 'T': {tmp_path}/source row 1, column 't': got int"):
        load(lines({"t": 1}), columns={"text": "t"})
    with pytest.raises(InputError, match=f"^task 'T': {tmp_path}/source: 1 of 1 rows are faulty"):
        load("x", columns={"text": "t"}, max_faulty_share=0.0)


def test_nothing_left_is_refused(load: Load) -> None:
    with pytest.raises(InputError, match="no row is left"):
        load(lines({"t": "a"}), columns={"text": "t"}, unless={"t": "a"})
    with pytest.raises(InputError, match="has no rows; correct the path, or the file"):
        load("", columns={"text": "t"})


def test_rows_come_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "source"
    path.write_text(lines({"t": "first"}, {"t": ["a list"]}))
    reading = Reading.model_validate(
        {"origin": {"kind": "files", "path": str(path)}, "format": "jsonl", "columns": {"text": "t"}}
    )
    rows = load_rows(reading, Counted(), task="T", max_faulty_share=0.0)
    assert next(rows).text("text") == "first"
    with pytest.raises(InputError, match="row 2, column 't': got list"):
        next(rows)


def make_rows(count: int) -> list[Row]:
    return [Row(f"row {number}", {"text": f"text {number}"}) for number in range(count)]


def test_sample_does_not_depend_on_order_or_company(drops: Counted) -> None:
    rows = make_rows(50)
    chosen = sample(rows, 10, drops, seed=1)
    assert drops == {"beyond_rows": 40}
    shuffled = random.Random(0).sample(rows, len(rows))
    assert sample(shuffled, 10, Counted(), seed=1) == chosen
    # Removing a row that was not chosen changes nothing.
    without = [row for row in rows if row in chosen or row.place != "row 0"]
    assert sample(without, 10, Counted(), seed=1) == chosen
    assert sample(rows, 10, Counted(), seed=2) != chosen


def test_sample_holds_no_more_rows_than_it_returns() -> None:
    held: weakref.WeakValueDictionary[int, Row] = weakref.WeakValueDictionary()
    most = 0

    def stream() -> Iterator[Row]:
        nonlocal most
        for number in range(500):
            row = Row(f"row {number}", {"text": f"text {number % 400}"})
            held[number] = row
            most = max(most, len(held))
            yield row

    drops = Counted()
    assert len(sample(stream(), 10, drops, seed=1)) == 10
    assert most <= 10 + 4
    assert drops == {"duplicate_row": 100, "beyond_rows": 390}


def test_the_first_row_left_over_is_the_example(drops: Counted) -> None:
    shown = []
    rows = make_rows(9)
    sample(rows, 3, lambda reason, example: shown.append((reason, example)), seed=1)
    fourth = sample(rows, 4, drops, seed=1)[3]
    assert shown == [("beyond_rows", f"{fourth.place}: {fourth.content}")] * 6


def test_sample_counts_repeated_rows_once(drops: Counted) -> None:
    rows = make_rows(5)
    assert len(sample(rows * 3, 4, drops, seed=1)) == 4
    assert drops == {"duplicate_row": 10, "beyond_rows": 1}
    assert len(sample(rows * 3, None, Counted(), seed=1)) == 5
