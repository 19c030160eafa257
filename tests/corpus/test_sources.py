from typing import Any

import pytest
from pydantic import ValidationError

from anna import margins
from anna.corpus.sources import ALL, HeldOutSource, Reading, TrainSource, source_columns
from stages.ingest import IngestParams

FILES = {"kind": "files", "path": "x"}
HUB = {"kind": "hub", "repo": "a/b", "revision": "0" * 40}
TEXT = {"text": "text", "label": "label"}
DOCS = {"origin": FILES, "format": "jsonl", "columns": {"doc": "d"}}
PAIR = {"text1": "a", "text2": "b", "score": "s"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"columns": TEXT}, "format: must be given for wheel and files"),
        ({"columns": TEXT, "format": "csv", "origin": HUB}, "left out for the hub"),
        ({"columns": TEXT, "format": "jsonl", "header": ["a"]}, "header: only for format csv or tsv"),
        ({"columns": TEXT, "format": "csv", "header": ["a", "b", "a"]}, r"names columns \['a'\] more than once"),
        ({"columns": TEXT, "format": "lines"}, "pattern: missing for format lines"),
        ({"columns": TEXT, "format": "lines", "pattern": "(?P<text"}, "not a regular expression"),
        ({"columns": TEXT, "format": "lines", "pattern": ".*"}, "has no named group"),
        ({"columns": TEXT, "format": "obo"}, "records: missing for format obo"),
        ({"columns": TEXT, "format": "jsonl", "split": "train"}, "split: only for format beir"),
        ({"columns": DOCS["columns"], "format": "beir", "split": "a/b"}, "should match pattern"),
        ({"columns": {"text": "{}"}, "format": "csv"}, "has an empty column name"),
        ({"columns": {"text": "{a"}, "format": "csv"}, "text: '{a' has a brace that is not part of a {column}"),
        ({"columns": {"text": "{{a}}"}, "format": "csv"}, "has a brace that is not part of a {column}"),
        ({"columns": {**PAIR, "score": "{s}"}, "format": "csv"}, "score: '{s}' is a template, .* name of a column"),
        ({"columns": {}, "format": "csv"}, "at least 1 item"),
        *(
            (
                {"columns": TEXT, "format": "csv", rule: {"a": wanted}},
                f"{rule}.a\n.*expected a value or a list of values: ",
            )
            for rule in ("where", "unless")
            for wanted in (None, [], {"b": 1}, [1, None], [[1]])
        ),
        (
            {
                "columns": TEXT,
                "format": "csv",
                "minus": [{"origin": FILES, "format": "csv", "columns": {"query": "q"}}],
            },
            r"minus: has columns \['query'\], expected some of \['label', 'text'\]",
        ),
        (
            {
                "columns": TEXT,
                "format": "csv",
                "minus": [{"origin": FILES, "format": "csv", "columns": TEXT, "rows": 9}],
            },
            "minus: has rows: 9, but leaves out whatever equals any of its rows; delete `rows`",
        ),
    ],
)
def test_reading_refuses(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Reading.model_validate({"origin": FILES, **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "sts", "columns": PAIR}, "positive_at: must be given for kind sts"),
        ({"kind": "classification", "columns": TEXT, "positive_at": 1.0}, "and for no other"),
        ({"kind": "classification", "columns": TEXT, "distractors": [DOCS]}, "distractors: only for kind retrieval"),
        (
            {"kind": "retrieval", "columns": {"query": "q", "doc": "d"}, "distractors": [{**DOCS, "columns": TEXT}]},
            r"expected \['doc'\] or \['docs'\] for distractors",
        ),
        ({"kind": "retrieval", "columns": TEXT}, r"got \['label', 'text'\], expected \['doc', 'query'\] or"),
        ({"kind": "retrieval", "columns": {"query": "q", "doc": "d", "docs": "e"}}, "columns: got"),
        ({"kind": "sts", "columns": PAIR, "positive_at": 1.0, "task": "a:b"}, "string_pattern_mismatch|match pattern"),
    ],
)
def test_training_source_refuses(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainSource.model_validate({"task": "T", "origin": FILES, "format": "jsonl", **fields})


def test_an_example_source_has_no_distractors() -> None:
    train = {
        "task": "T",
        "kind": "retrieval",
        "origin": FILES,
        "format": "jsonl",
        "columns": {"query": "q", "doc": "d"},
    }
    train["distractors"] = [DOCS]
    shares = {"max_faulty_share": 0, "near_duplicate": None, "validation_share": 0}
    params = {**shares, "examples_per_task": 1, "train": [train]}
    assert IngestParams.model_validate(params).train[0].distractors
    with pytest.raises(
        ValidationError, match="T: has distractors, which no example is taken from; delete `distractors`"
    ):
        IngestParams.model_validate({**params, "examples": [train]})


def test_no_task_is_called_what_all_of_them_are() -> None:
    assert ALL == margins.ALL
    of = {"task": ALL, "origin": FILES, "format": "jsonl", "columns": TEXT}
    for source, fields in ((TrainSource, {"kind": "classification"}), (HeldOutSource, {"type": "Clustering"})):
        with pytest.raises(ValidationError, match="what all tasks together are called; choose another name"):
            source.model_validate({**of, **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"type": "Clustering", "columns": TEXT, "train_rows": 3}, "train_rows: only for type Classification"),
        ({"type": "Classification", "columns": TEXT}, "train_rows: missing for type Classification"),
        ({"type": "Reranking", "columns": {"query": "q", "doc": "d", "relevance": "r"}}, "relevant: missing"),
        ({"type": "Summarization", "columns": TEXT}, "for Summarization"),
        (
            {"type": "Clustering", "columns": TEXT, "examples": HUB},
            "examples: are of kind hub and origin of kind files, .* both from the hub, or neither",
        ),
        (
            {"type": "Clustering", "columns": TEXT, "examples": FILES, "origin": HUB, "format": None},
            "examples: are of kind files and origin of kind hub",
        ),
        ({"type": "Clustering", "columns": TEXT, "examples": {"origin": FILES}}, "Unable to extract tag"),
    ],
)
def test_held_out_source_refuses(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        HeldOutSource.model_validate({"task": "T", "origin": FILES, "format": "jsonl", **fields})


@pytest.mark.parametrize(("examples", "form"), [(FILES, "jsonl"), (HUB, None)])
def test_examples_are_read_as_the_rows_are(examples: dict[str, str], form: str | None) -> None:
    fields = {"task": "T", "type": "STS", "columns": PAIR, "format": form, "origin": examples, "examples": examples}
    source = HeldOutSource.model_validate(fields)
    assert source.examples == source.origin


def test_source_columns() -> None:
    assert source_columns("text") == ("text",)
    assert source_columns("{title} -- {passage}") == ("title", "passage")
    assert source_columns("{a.b} {c[0]}{0}{d:e!r}") == ("a.b", "c[0]", "0", "d:e!r")
