from collections.abc import Callable
from typing import Any

import pytest

from anna.corpus.values import Row
from anna.errors import InputError
from tests.corpus.conftest import Counted, lines

Load = Callable[..., list[Row]]


def test_maps_names_templates_and_lists(load: Load) -> None:
    rows = load(
        lines({"q": " a  query ", "t": "Title", "p": ["one", "two"], "b": "body"}),
        columns={"query": "q", "doc": "{t} -- {b}", "negatives": "p"},
    )
    assert rows[0].values == {"query": "a query", "doc": "Title -- body", "negatives": ("one", "two")}
    assert (rows[0].texts("doc"), rows[0].texts("docs")) == (("Title -- body",), ())


def test_templates_take_any_name_of_a_column(load: Load) -> None:
    rows = load(lines({"a.b": "one", "c[0]": "two {0}", "0": "three"}), columns={"text": "{a.b}, {c[0]}, {0}"})
    assert rows[0].text("text") == "one, two {0}, three"
    flatten = "; nested fields cannot be named: flatten the source once, e.g. by polars' unnest"
    for columns, row, hint in (
        ({"text": "{a.x}"}, {"a": {"x": "nested"}}, flatten),
        ({"text": "a.x.y"}, {"a": {"x": {"y": "nested"}}}, flatten),
        ({"text": "a.x"}, {"a": "flat"}, ""),
    ):
        message = rf"no row has a column 'a\.x.*', only \['a'\]; correct it in params.yaml{hint}$"
        with pytest.raises(InputError, match=message):
            load(lines(row), columns=columns)


def test_numbers_are_text_beside_other_text_alone(load: Load) -> None:
    content = lines({"t": "Film", "y": 1999, "r": 7.5}, {"t": "Film", "y": 1999.0, "r": -1})
    rows = load(content, columns={"query": "{t} ({y})", "doc": "year {y}", "text": "{y}{r}"})
    assert [row.text("query") for row in rows] == ["Film (1999)"] * 2, "pandas makes floats of integers with gaps"
    assert [(row.text("doc"), row.text("text")) for row in rows] == [("year 1999", "19997.5"), ("year 1999", "1999-1")]
    for column in ("y", "{y}"):
        with pytest.raises(InputError, match="got int '1999', expected a string for query; correct the row"):
            load(content, columns={"query": column})
    for value in (True, [1], {"a": 1}):
        with pytest.raises(InputError, match=f"got {type(value).__name__} .*, expected a string for query"):
            load(lines({"t": "Film", "y": value}), columns={"query": "{t} ({y})"})


def test_numbers_and_classes(load: Load) -> None:
    rows = load(lines({"s": "4.5", "c": 3, "r": True}), columns={"score": "s", "label": "c", "relevance": "r"})
    (in_braces,) = load(lines({"c": 3.0}), columns={"label": "{c}", "relevance": "{c}"})
    assert (in_braces.text("label"), in_braces.text("relevance")) == ("3", "3")
    assert rows[0].numbers("score") == (4.5,)
    assert (rows[0].text("label"), rows[0].text("relevance")) == ("3", "True")


def test_every_fault_has_its_reason_and_the_others_stay(load: Load, drops: Counted) -> None:
    content = b"\n".join(
        [
            b'{"t": "good", "s": 1}',
            b'{"t": "caf\xe9", "s": 1}',
            b'{"t": "  ", "s": 1}',
            b'{"s": 1}',
            b'{"t": null, "s": 1}',
            b'{"t": "x", "s": "high"}',
            b'{"t": "x", "s": Infinity}',
            b'{"t": "x", "s": 1' + b"0" * 400 + b"}",
            b'{"t": "x", "s": NaN}',
            b'{"t": NaN, "s": 1}',
            b"{broken",
        ]
    )
    rows = load(content, columns={"text": "t", "score": "s"})
    assert [row.values for row in rows] == [{"text": "good", "score": 1.0}]
    assert drops == {"undecodable": 1, "empty_text": 1, "missing_column": 4, "not_a_number": 3, "malformed": 1}


@pytest.mark.parametrize(
    ("docs", "reason"),
    [(["x", None, "y"], "missing_column"), (["x", float("nan")], "missing_column"), (["x", ""], "empty_text")],
)
def test_one_fault_in_a_list_takes_the_row(load: Load, drops: Counted, docs: list[Any], reason: str) -> None:
    rows = load(lines({"q": "a", "p": ["x", "y"]}, {"q": "b", "p": docs}), columns={"query": "q", "docs": "p"})
    assert [row.values for row in rows] == [{"query": "a", "docs": ("x", "y")}]
    assert drops == {reason: 1}
    scored = lines({"r": [1, 0.5]}, {"r": [1, None]})
    assert [row.numbers("relevances") for row in load(scored, columns={"relevances": "r"})] == [(1.0, 0.5)]


@pytest.mark.parametrize("name", ["negatives", "unjudged"])
def test_no_negatives_are_none_and_other_lists_are_not(name: str, load: Load, drops: Counted) -> None:
    content = lines(*({"q": "a", "p": ["b"], "n": negatives} for negatives in (["c"], None, [], float("nan"), [None])))
    content += "\n" + lines({"q": "a", "p": ["b"]}, {"q": "a", "p": None, "n": []})
    rows = load(content, columns={"query": "q", "docs": "p", name: "n"})
    assert [row.texts(name) for row in rows] == [("c",), (), (), (), ()]
    assert drops == {"missing_column": 2}


@pytest.mark.parametrize("name", ["negatives", "unjudged"])
def test_one_negative_as_text_is_a_list_of_one(name: str, load: Load, drops: Counted) -> None:
    columns = {"query": "q", "doc": "p", name: "n"}
    rows = load("q,p,n\na,b,c\na,b,\na,b,[1] is cited\na,b,[Chorus] La [twice]\na,b\n", format="csv", columns=columns)
    assert [row.texts(name) for row in rows] == [("c",), (), ("[1] is cited",), ("[Chorus] La [twice]",), ()]
    rows = load(lines(*({"q": "a", "p": "b", "n": value} for value in ("c", "", ["c", "d"], None))), columns=columns)
    assert [row.texts(name) for row in rows] == [("c",), (), ("c", "d"), ()]
    assert not drops


def test_classes_that_pandas_wrote_are_those_that_it_read(load: Load, drops: Counted) -> None:
    content = lines(*({"t": f"text {value}", "c": value} for value in (1, 1.0, float("nan"), -0.0, 0.5, "1.0", "1.05")))
    rows = load(content, columns={"text": "t", "label": "c", "relevance": "c"})
    assert [row.text("label") for row in rows] == ["1", "1", "0", "0.5", "1", "1.05"]
    assert [row.text("relevance") for row in rows] == [row.text("label") for row in rows]
    assert drops == {"missing_column": 1}
    written = "t,c\na,1\nb,1.0\nc,\nd,v1.0\ne,-2.00\n"
    for theirs in ("c", "{c}"):
        rows = load(written, format="csv", columns={"text": "t", "label": theirs, "query": "c"})
        assert [row.text("label") for row in rows] == ["1", "1", "v1.0", "-2"]
        assert [row.text("query") for row in rows] == ["1", "1.0", "v1.0", "-2.00"], "a text stays as it is"


@pytest.mark.parametrize(
    ("row", "columns", "message"),
    [
        (
            {"q": "q", "p": "doc"},
            {"query": "q", "docs": "p"},
            r"row 1, column 'p': got str 'doc', expected a list for docs; write it .* in every row, or map",
        ),
        (
            {"q": "q", "p": "['a', 'b']"},
            {"query": "q", "docs": "p"},
            r"got str .*, expected a list for docs; this is a list written as text; write the source as jsonl or parq",
        ),
        (
            {"q": "q", "p": ["d"]},
            {"query": "q", "doc": "p"},
            r"row 1, column 'p': got list .*expected a string for doc; map",
        ),
        (
            {"q": ["q"], "p": "d"},
            {"query": "q", "doc": "p"},
            r"column 'q': got list .*expected a string for query; correct",
        ),
        (
            {"q": "q", "p": ["d", 3]},
            {"query": "q", "docs": "p"},
            r"column 'p': got int '3', expected a string for docs",
        ),
        ({"q": "q", "n": 3}, {"query": "q", "negatives": "n"}, r"expected a list for negatives; write it as a list"),
        (
            {"q": "q", "n": ' ["a", "b"] '},
            {"query": "q", "negatives": "n"},
            r"expected a list for negatives; this is a list written as text; write the source as jsonl",
        ),
        (
            {"q": "q", "n": "[a, b]"},
            {"query": "q", "negatives": "n"},
            r"expected a list for negatives; this is a list written as text; write the source as jsonl",
        ),
        ({"q": {"a": 1}}, {"query": "q"}, r"column 'q': got dict"),
        (
            {"q": "q", "r": "d" * 999 + "e"},
            {"query": "q", "relevances": "r"},
            r"got str 'd{60}', expected a list for relevances; write it as a list, such as \[\"d{60}\"\]$",
        ),
        ({"t": "x", "r": 1.0}, {"source": "t", "relevances": "r"}, r"got float '1\.0', expected a list for relevances"),
    ],
)
def test_a_string_for_a_list_or_the_reverse_is_refused(
    load: Load, row: dict[str, Any], columns: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load(lines(row), columns=columns)
