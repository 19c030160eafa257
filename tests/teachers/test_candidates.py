"""Which candidates the reranker's scores make positives, by hand and by a loop."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anna import schemas
from anna.folding import fold, normalise
from anna.teachers.candidates import mark_duplicates, mark_judged_negatives, mark_relabelled, plain_texts
from anna.teachers.tables import Known

PLAIN = pl.Series("plain", [2**63, 8, 2**63, 8], dtype=pl.UInt64)
"""Of the documents d0, d1, d3 and d4: d3 has the text of d0, d4 that of d1."""


NASTY = [
    text
    for line in (
        "C++/c++ /C/C#/price $5/price €5/Price: $5!/a - b/a\u2014b/AB/A B/a\u00a0\u3000b\x1c/_a_/a_b/a b/`a`/^a/a|b",
        "कि/की/क/caf\u00e9/cafe\u0301/CAFÉ/cafe/I\u0307/\u0130/i/STRASSE/straße/ΟΔΟΣ/\u03bfδ\u03bf\u03c3/ὀδυσσεύς/ὈΔΥΣΣΕΎΣ",
        "\ufb01n/fin/\u13a0\uab70/😀/😁/👍🏽/👍/東京。/東京/東/\uff45\uff31/eq/\u2460/1/x²/x2/١٢/12/\u05d0\u05b7/\u05d0",
        "?!/.../.// / ?  ! /a\u200db/≤/≥",
    )
    for text in line.split("/")
]


class Row(NamedTuple):
    query: str
    doc: int
    score: float | None
    """The reranker's; None: it has not scored this one."""
    relevance: int | None = None
    """None: not judged."""
    is_duplicate: bool = False
    has_class: bool = False


def relabelled(rows: Sequence[Row], margin: float) -> list[bool]:
    """Mark candidates that are given in any order."""
    frame = pl.DataFrame(
        {
            "query_id": [row.query for row in rows],
            "doc_id": pl.Series([row.doc for row in rows], dtype=pl.UInt32),
            "is_positive": [(row.relevance or 0) > 0 for row in rows],
            "is_duplicate": [row.is_duplicate for row in rows],
            "has_class": [row.has_class for row in rows],
        }
    )
    pairs = frame.select("query_id", "doc_id").with_columns(
        pl.Series("score", [row.score for row in rows], dtype=pl.Float32),
        pl.Series("relevance", [row.relevance for row in rows], dtype=pl.Int8),
    )
    reranked, judged = (pairs.filter(pl.col(name).is_not_null()) for name in ("score", "relevance"))
    marked = mark_relabelled(frame, reranked, judged, margin)
    assert marked.drop("is_relabelled").equals(frame)
    return marked["is_relabelled"].to_list()


def literal(rows: Sequence[Row], margin: float) -> list[bool]:
    """Mark candidates by a loop."""
    result = []
    for row in rows:
        own = [other for other in rows if other.query == row.query and other.score is not None]
        positives = [other.score for other in own if (other.relevance or 0) > 0 and other.score is not None]
        if not positives or row.score is None or row.relevance is not None or row.is_duplicate or row.has_class:
            result.append(False)
            continue
        deviation = float(np.std([other.score for other in own if other.score is not None]))
        result.append(row.score > max(positives) + margin * deviation)
    return result


def test_by_hand() -> None:
    # Scores 3, 1, 2, -2 of q: deviation sqrt(3.5) = 1.87. The best positive has 1, so a margin of 1 ends at 2.87.
    rows = [Row("q", 0, 3.0), Row("q", 1, 1.0, 1), Row("q", 2, 2.0), Row("q", 3, -2.0, 1), Row("r", 0, 9.0)]
    assert relabelled(rows, 1.0) == [True, False, False, False, False]
    assert relabelled(rows, 0.5) == [True, False, True, False, False]
    assert relabelled(rows, 1.1) == [False] * 5


@pytest.mark.parametrize(
    "changed",
    [
        {"relevance": 0},  # somebody has judged it
        {"is_duplicate": True},
        {"has_class": True},
        {"score": None},
        {"score": 1.0},  # not above
    ],
)
def test_what_is_never_relabelled(changed: dict[str, Any]) -> None:
    rows = [Row("q", 0, 3.0)._replace(**changed), Row("q", 1, 1.0, 1), Row("q", 2, 0.0)]
    assert not relabelled(rows, 0.0)[0]
    assert relabelled([Row("q", 0, 3.0), *rows[1:]], 0.0)[0]


ROW = st.builds(
    Row,
    st.sampled_from("qr"),
    st.integers(0, 8),
    st.one_of(st.none(), st.integers(-8, 8).map(lambda number: number / 4)),
    st.sampled_from([None, None, 0, 1]),
    st.booleans(),
    st.booleans(),
)


@given(st.lists(ROW, min_size=1, max_size=14, unique_by=lambda row: (row.query, row.doc)), st.sampled_from([0.0, 0.7]))
def test_equal_to_a_loop(rows: list[Row], margin: float) -> None:
    assert relabelled(rows, margin) == literal(rows, margin)


def test_a_text_of_the_relabelled_is_a_duplicate_too() -> None:
    rows = pl.DataFrame(
        {
            "query_id": pl.Series([0] * 4, dtype=pl.UInt32),
            "doc_id": pl.Series([0, 1, 3, 4], dtype=pl.UInt32),
            "is_positive": [True, False, False, False],
            "is_relabelled": [False] * 4,
        }
    )
    assert mark_duplicates(rows, PLAIN)["is_duplicate"].to_list() == [False, False, True, False]
    told = rows.with_columns(pl.Series("is_relabelled", [False, True, False, False]))
    marked = mark_duplicates(told, PLAIN)
    assert marked["is_duplicate"].to_list() == [False, False, True, True]
    assert marked.drop("is_duplicate").equals(told)


def folded(texts: Sequence[str]) -> list[str]:
    return pl.DataFrame({"text": texts}).select(fold(pl.col("text")))["text"].to_list()


def test_texts_are_compared_as_ingest_compares_them() -> None:
    assert folded(NASTY) == [normalise(text) for text in NASTY]
    plain = plain_texts(pl.Series(NASTY)).to_list()
    for (one, number), (other, same) in itertools.combinations(zip(NASTY, plain, strict=True), 2):
        assert (number == same) == (normalise(one) == normalise(other)), (one, other)


def test_every_character_is_folded_as_ingest_folds_it() -> None:
    characters = [chr(code) for code in range(0x20000) if not 0xD800 <= code < 0xE000]
    assert folded(characters) == [normalise(text) for text in characters]
    higher = "".join(map(chr, range(0x20000, 0x110000)))
    assert folded([higher]) == [normalise(higher)] == [higher]


@given(st.lists(st.text(st.sampled_from("aAßΣ\u03c3ς .,!$+#\u0301éÉ की\t")), min_size=1))
def test_any_text_is_folded_as_ingest_folds_it(texts: list[str]) -> None:
    assert folded(texts) == [normalise(text) for text in texts]


def test_another_class_and_what_was_judged_not_relevant_are_known_negatives() -> None:
    docs = [("d0", "x"), ("d1", "y"), ("d2", None), ("d3", "x")]
    asked = [("q0", "x"), ("q1", None)]
    corpus = pa.Table.from_pylist(
        [{"doc_id": name, "task": "A", "text": name, "label": label} for name, label in docs], schema=schemas.CORPUS
    )
    queries = pa.Table.from_pylist(
        [
            {"query_id": name, "task": "A", "kind": "retrieval", "split": "train", "text": name, "label": label}
            for name, label in asked
        ],
        schema=schemas.QUERIES,
    )
    known = Known(corpus, queries)
    pairs = [(query, doc) for query, _ in asked for doc, _ in docs]
    rows = pl.DataFrame(
        {
            "query_id": pl.Series([int(query[1]) for query, _ in pairs], dtype=pl.UInt32),
            "doc_id": pl.Series([int(doc[1]) for _, doc in pairs], dtype=pl.UInt32),
            "is_positive": [pair in (("q0", "d0"), ("q0", "d3"), ("q1", "d1")) for pair in pairs],
        }
    )
    judged = pl.DataFrame(
        {
            "query_id": pl.Series([1, 1], dtype=pl.UInt32),
            "doc_id": pl.Series([1, 3], dtype=pl.UInt32),
            "relevance": pl.Series([1, 0], dtype=pl.Int8),
        }
    )
    marked = mark_judged_negatives(rows, known, judged)
    assert [pair for pair, told in zip(pairs, marked["is_judged_negative"], strict=True) if told] == [
        ("q0", "d1"),
        ("q1", "d3"),
    ]
