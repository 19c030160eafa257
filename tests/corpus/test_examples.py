"""In-context examples of mteb's tasks: drawn by seed, of data to train on, never a scored text."""

import json
from pathlib import Path
from typing import Any

import pytest

from anna.corpus.examples import load_examples
from anna.corpus.held_out_tables import held_out_tables
from anna.corpus.sources import Cleaning, TrainSource
from anna.prompts import Example


def source(folder: Path, rows: list[dict[str, Any]], kind: str = "retrieval", **others: Any) -> TrainSource:
    path = folder / f"{kind}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {
        "retrieval": {"query": "query", "docs": "pos", "negatives": "neg"},
        "sts": {"text1": "a", "text2": "b", "score": "score"},
        "classification": {"text": "text", "label": "label"},
    }[kind]
    return TrainSource.model_validate(
        {
            "task": "T",
            "kind": kind,
            "origin": {"kind": "files", "path": str(path)},
            "format": "jsonl",
            "columns": columns,
            **others,
        }
    )


def load(
    *sources: TrainSource, scored: set[str] | None = None, count: int = 2, seed: int = 1
) -> dict[str, list[Example]]:
    return load_examples(sources, lambda task: scored or set(), Cleaning(0.0, None, seed), count=count)


def asked(number: int) -> dict[str, Any]:
    return {"query": f"question {number}", "pos": [f"answer {number}"], "neg": [f"wrong {number}"]}


def test_a_query_is_shown_with_a_positive_and_never_with_a_negative(tmp_path: Path) -> None:
    [got] = load(source(tmp_path, [asked(n) for n in range(9)]), count=9).values()
    assert sorted(got) == [(f"question {n}", f"answer {n}") for n in range(9)]


def test_the_choice_depends_on_the_seed_and_not_on_the_order_of_the_rows(tmp_path: Path) -> None:
    rows = [asked(n) for n in range(30)]
    first = load(source(tmp_path, rows))
    assert load(source(tmp_path, rows[::-1])) == first
    assert load(source(tmp_path, rows), seed=2) != first


@pytest.mark.parametrize(
    "leak", ["Question 3!", "ANSWER  3", "wrong 3", "café 3", "cafe\u0301 3", "question<br /><br />3", "wrong\x00 3"]
)
def test_what_holds_a_scored_text_is_never_shown(tmp_path: Path, leak: str) -> None:
    rows = [{**asked(n), "neg": [f"wrong {n}", f"café {n}"]} for n in range(9)]
    [got] = load(source(tmp_path, rows), scored=frozenset({leak, "another", "\x00", "\udce9"}), count=9).values()
    assert len(got) == 8
    assert "question 3" not in {example.query for example in got}


def test_nothing_but_scored_texts_gives_no_example_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scored = frozenset(f"question {n}" for n in range(3))
    with caplog.at_level("WARNING"):
        assert load(source(tmp_path, [asked(n) for n in range(3)]), scored=scored) == {"T": []}
    assert "T: 0 of 2 in-context examples" in caplog.text


def test_a_text_is_shown_with_another_of_its_class_and_classes_take_turns(tmp_path: Path) -> None:
    rows = [{"text": f"{label} {n}", "label": label} for label in ("cat", "dog") for n in range(6)]
    [got] = load(source(tmp_path, rows, "classification"), count=4).values()
    assert [query.split()[0] for query, _ in got] in (["cat", "dog"] * 2, ["dog", "cat"] * 2)
    assert all(query.split()[0] == response.split()[0] and query != response for query, response in got)


def test_a_pair_is_shown_where_it_is_a_positive(tmp_path: Path) -> None:
    rows = [{"a": f"left {n}", "b": f"right {n}", "score": n} for n in range(6)]
    [got] = load(source(tmp_path, rows, "sts", positive_at=4.0), count=6).values()
    assert sorted(got) == [("left 4", "right 4"), ("left 5", "right 5")]


def test_the_table_holds_them_by_task_and_position(tmp_path: Path) -> None:
    shown = {"B": [Example("q", "r"), Example("s", "t")], "A": [Example("u", "v")]}
    rows = held_out_tables([], shown)["examples"].to_pylist()
    assert [(row["task"], row["position"], row["query"]) for row in rows] == [
        ("B", 0, "q"),
        ("B", 1, "s"),
        ("A", 0, "u"),
    ]
