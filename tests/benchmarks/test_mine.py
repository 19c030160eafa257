"""The mining benchmark at a tiny size."""

import json
from pathlib import Path

import pytest

from benchmarks import mine, side_by_side
from benchmarks.texts import Texts
from tests.teachers.models import WORDS, save_bi_encoder, save_cross_encoder

QUERIES = ["who wrote this", "the river seine", "capital of germany"]
DOCS = ["berlin is the capital of germany", "the seine flows through paris", "this is high"]
DOCS += [f"{first} {second}" for first, second in zip(WORDS, WORDS[3:], strict=False)]
TEXTS = Texts(QUERIES, [DOCS[2], DOCS[1], DOCS[0]], DOCS)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mine, "DOC_TOKENS", 16)
    monkeypatch.setattr(mine, "QUERY_TOKENS", 16)


def test_the_peer_gets_texts_cut_to_what_our_cross_encoder_reads(tmp_path: Path) -> None:
    cross = save_cross_encoder(tmp_path / "cross")
    assert mine.cut_texts(TEXTS, cross)[0] == TEXTS
    start = " ".join(WORDS[:16])
    long = Texts([f"{start} one", "who"], [f"{start} two", "paris"], [f"{start} two", "paris", f"{start} three"])
    cut, whole = mine.cut_texts(long, cross)
    assert cut == Texts([start, "who"], [start, "paris"], [start, "paris"])
    assert whole == {start: f"{start} two", "paris": "paris"}


def test_wrong_negatives_are_positives_and_their_duplicates() -> None:
    negatives = [
        (QUERIES[0], "This  is high!"),  # its positive but for case, spacing and punctuation
        (QUERIES[1], DOCS[1]),  # its positive
        (QUERIES[2], DOCS[1]),  # another query's
    ]
    assert mine.count_wrong(negatives, TEXTS) == 2


@pytest.mark.slow
def test_both_sides_mine_and_are_compared(tmp_path: Path) -> None:
    dense, cross = save_bi_encoder(tmp_path / "dense"), save_cross_encoder(tmp_path / "cross")
    rows = mine.compare(tmp_path / "project", TEXTS, dense, cross, "float32")
    result = json.loads(side_by_side.report(rows))
    assert result["negatives that are a positive or its duplicate"]["ours"] == 0
    assert result["queries with a negative"]["ours"] > 0
    assert all(values["ours"] >= 0 and values["peer"] >= 0 for values in result.values())
    groups = mine.our_negatives(tmp_path / "project")
    assert {doc for _, doc in groups} <= set(DOCS)
