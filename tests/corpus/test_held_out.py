import json
from pathlib import Path
from typing import Any

import pytest

from anna.corpus.drops import DropLog
from anna.corpus.held_out import HeldOutTask, held_out_texts, load_task
from anna.corpus.held_out_tables import held_out_tables
from anna.corpus.sources import Cleaning, HeldOutSource
from anna.errors import InputError
from anna.folding import normalise
from tests.corpus.conftest import Counted

LONG = " ".join(f"w{number}" for number in range(40))


def write(path: Path, rows: list[dict[str, Any]]) -> dict[str, str]:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return {"kind": "files", "path": str(path)}


def load(
    kind: str, origin: dict[str, str], columns: str, drops: Counted, *, count: int = 0, **others: Any
) -> HeldOutTask:
    source = HeldOutSource.model_validate(
        {
            "task": "T",
            "type": kind,
            "origin": origin,
            "format": "jsonl",
            "columns": {name: name for name in columns.split()},
            **others,
        }
    )
    log = DropLog()
    task = load_task(source, log, Cleaning(0.0, 0.8, seed=1), num_examples=count)
    drops.update(log.by_reason("T", "held_out"))
    return task


def texts_of(task: HeldOutTask) -> set[str]:
    return {normalise(text) for unit in (*task.units, *task.fitted) for text in (unit.text, *unit.others)}


@pytest.fixture
def labelled(tmp_path: Path) -> dict[str, str]:
    rows = [{"text": f"text {number} of {label}", "label": label} for label in "abc" for number in range(20)]
    return write(tmp_path / "labelled", rows)


def test_classification_splits_share_no_text(labelled: dict[str, str], drops: Counted) -> None:
    task = load("Classification", labelled, "text label", drops, count=2, rows=20, train_rows=9)
    assert (len(task.fitted), len(task.units), len(task.examples)) == (9, 20, 2)
    assert sorted(unit.label for unit in task.fitted) == sorted("abc" * 3), "classes in turn"
    assert not {unit.text for unit in task.fitted} & {unit.text for unit in task.units}
    assert drops == {"example": 4, "beyond_rows": 60 - 4 - 9 - 20}
    table = held_out_tables([task])["labelled"]
    assert table.filter(table["split"].to_numpy() == "train").num_rows == 9


def test_texts_that_a_classifier_is_fitted_on_are_held_out_too(labelled: dict[str, str], drops: Counted) -> None:
    task = load("Classification", labelled, "text label", drops, count=2, rows=20, train_rows=9)
    fitted = {unit.text for unit in task.fitted}
    assert len(fitted) == 9
    assert fitted <= held_out_texts([task])


def test_examples_that_take_much_of_a_task_are_warned_of(
    tmp_path: Path, drops: Counted, caplog: pytest.LogCaptureFixture
) -> None:
    def scored(articles: int) -> int:
        rows = [{"query": f"query {number}", "doc": f"article {number % articles}"} for number in range(48)]
        return len(load("Retrieval", write(tmp_path / "rows", rows), "query doc", drops, count=2).units)

    assert scored(12) == 40
    assert not caplog.records
    assert scored(4) == 24
    assert "task T: 24 of 48 are not scored, as they share a text with an in-context example; lower" in caplog.text


def test_examples_are_never_scored(tmp_path: Path, drops: Counted) -> None:
    rows = [{"query": f"query {number}", "doc": f"document {number // 2}"} for number in range(30)]
    distractors = write(tmp_path / "more", [{"doc": f"document {number}"} for number in range(20)])
    task = load(
        "Retrieval",
        write(tmp_path / "rows", rows),
        "query doc",
        drops,
        count=3,
        rows=10,
        distractors=[{"origin": distractors, "format": "jsonl", "columns": {"doc": "doc"}}],
    )
    shown = {normalise(text) for example in task.examples for text in example}
    assert len(shown) == 6
    assert not shown & texts_of(task)
    assert not shown & {normalise(doc) for doc in task.distractors}
    assert drops["example"] == 9, "the query shown, the other query of its document and the distractor, each time"
    assert {text for example in task.examples for text in example} <= held_out_texts([task])


def test_a_distractor_without_a_document_is_counted(tmp_path: Path, drops: Counted) -> None:
    origin = write(tmp_path / "rows", [{"query": "q", "docs": ["a"]}, {"query": "r", "docs": []}])
    distractors = write(tmp_path / "more", [{"docs": ["b", "c"]}, {"docs": []}])
    more = [{"origin": distractors, "format": "jsonl", "columns": {"docs": "docs"}}]
    task = load("Retrieval", origin, "query docs", drops, distractors=more)
    assert (texts_of(task), sorted(task.distractors)) == ({"q", "a"}, ["b", "c"])
    assert drops == {"no_document": 2}


def test_whole_sources_take_examples_from_elsewhere(tmp_path: Path, drops: Counted) -> None:
    rows = [{"text1": f"a{number}", "text2": f"b{number}", "score": number % 6} for number in range(12)]
    others = [{"text1": "a5", "text2": "x", "score": 5}, {"text1": "y", "text2": "z", "score": 5}]
    origin = write(tmp_path / "rows", rows)
    examples = write(tmp_path / "others", others)
    task = load("STS", origin, "text1 text2 score", drops, count=1, examples=examples)
    assert len(task.units) == 12
    assert task.examples == [("y", "z")]
    assert not drops
    with pytest.raises(InputError, match=r"rows for 1 in-context examples, expected 2; dropped: \{\}\. Lower"):
        load("STS", origin, "text1 text2 score", drops, count=2, examples=examples)


def test_the_source_of_examples_need_not_hold_what_the_task_leaves_out(tmp_path: Path, drops: Counted) -> None:
    rows = [
        {"text1": f"a{number}", "text2": f"b{number}", "score": number, "kind": "xy"[number % 2]} for number in range(4)
    ]
    origin = write(tmp_path / "rows", rows)
    examples = write(tmp_path / "others", [{"text1": "c", "text2": "d", "score": 5, "kind": "y"}])
    options = {"count": 1, "examples": examples}
    assert load("STS", origin, "text1 text2 score", drops, unless={"kind": "x"}, **options).examples == [("c", "d")]
    with pytest.raises(InputError, match=r"others: no row has 'x' in column 'kind', .* \['y'\]; correct where"):
        load("STS", origin, "text1 text2 score", drops, where={"kind": "x"}, **options)


def test_near_duplicates_of_a_relevant_document_become_it(tmp_path: Path, drops: Counted) -> None:
    origin = write(tmp_path / "rows", [{"query": "q", "doc": LONG}, {"query": "r", "doc": "other"}])
    distractors = write(tmp_path / "more", [{"doc": LONG + " more"}, {"doc": LONG.upper()}, {"doc": "third"}])
    more = [{"origin": distractors, "format": "jsonl", "columns": {"doc": "doc"}}]
    task = load("Retrieval", origin, "query doc", drops, distractors=more)
    tables = held_out_tables([task])
    assert (tables["corpus"].num_rows, tables["queries"].num_rows, tables["qrels"].num_rows) == (3, 2, 2)
    assert set(tables["qrels"]["doc_id"].to_pylist()) <= set(tables["corpus"]["doc_id"].to_pylist())
    assert drops == {"duplicate_document": 1, "near_duplicate_document": 1}


def test_unfilled_tables_are_empty_and_typed() -> None:
    tables = held_out_tables([])
    assert set(tables) == {"corpus", "queries", "qrels", "pairs", "labelled", "summaries", "examples"}
    assert all(table.num_rows == 0 for table in tables.values())


@pytest.mark.parametrize(
    ("kind", "columns", "rows", "others", "message"),
    [
        ("Retrieval", "query doc", [{"query": "q", "doc": "d"}], {}, "has 1 document, expected 2"),
        ("Clustering", "text label", [{"text": "a", "label": "x"}], {}, "all of class 'x', expected two"),
        (
            "Classification",
            "text label",
            [{"text": text, "label": text[0]} for text in ("a1", "a2", "b1", "b2")],
            {"train_rows": 1},
            r"no text of classes \['[ab]'\] to fit on; raise its train_rows",
        ),
        (
            "Classification",
            "text label",
            [{"text": text, "label": text[0]} for text in ("a1", "a2", "b1", "b2")],
            {"train_rows": 4},
            r"nothing is left to score, its train_rows 4 take all 4 texts; lower train_rows; dropped: \{\}$",
        ),
        (
            "Classification",
            "text label",
            [{"text": text, "label": text[0]} for text in ("a1", "a2", "a3", "b1")],
            {"train_rows": 2},
            r"all of class 'a', .*; lower its train_rows, add rows to its source or correct its columns$",
        ),
        (
            "STS",
            "text1 text2 score",
            [{"text1": f"a{number}", "text2": "b", "score": number % 2} for number in range(4)],
            {},
            r"has scores \[0\.0, 1\.0\] alone, which is PairClassification and not STS; correct its type, raise",
        ),
        (
            "PairClassification",
            "text1 text2 score",
            [{"text1": f"a{number}", "text2": "b", "score": 1 + number % 2} for number in range(4)],
            {},
            r"has scores such as \[1\.0, 2\.0\], expected 0 and 1 alone for PairClassification; set its type to STS or",
        ),
        *(
            (
                kind,
                "text1 text2 score",
                [{"text1": f"a{number}", "text2": "b", "score": 1} for number in range(4)],
                {},
                r"pairs all have score 1\.0, expected two or more scores; dropped: \{\}; add rows to its source",
            )
            for kind in ("STS", "PairClassification")
        ),
        (
            "Reranking",
            "query doc relevance",
            [{"query": "q", "doc": "d", "relevance": "1"}],
            {"relevant": ["1"]},
            r"nothing is left to score; dropped: \{'one_sided': 1\}\. Correct its columns, and `relevant`",
        ),
        (
            "Reranking",
            "query doc relevance",
            [{"query": "q", "doc": doc, "relevance": doc == "d"} for doc in "de"],
            {"relevant": ["true"], "count": 1},
            r"nothing is left to score; dropped: \{'one_sided': 1\}\. .* a JSON true as 'True'",
        ),
        (
            "Summarization",
            "source good bad",
            [{"source": "s", "good": "g", "bad": "b"}, {"source": "t", "good": "same", "bad": "same"}],
            {"count": 2},
            r"rows for 1 in-context examples, expected 2; dropped: \{'duplicate_pair': 1, 'one_sided': 1\}\. Lower",
        ),
        (
            "Retrieval",
            "query doc",
            [{"query": "q", "doc": "d"}],
            {"count": 1},
            r"nothing is left to score; dropped: \{'example': 1\}; lower ingest.examples_per_task or name another",
        ),
        (
            "Clustering",
            "text label",
            [{"text": text, "label": f"id {text}"} for text in "abc"],
            {"count": 1},
            "each of its 3 texts has a class of its own, such as 'id a', so .*; correct its label column$",
        ),
    ],
)
def test_a_task_that_gives_no_score_is_refused(
    tmp_path: Path,
    drops: Counted,
    kind: str,
    columns: str,
    rows: list[dict[str, Any]],
    others: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(InputError, match=f"held-out task 'T'.*{message}"):
        load(kind, write(tmp_path / "rows", rows), columns, drops, **others)
