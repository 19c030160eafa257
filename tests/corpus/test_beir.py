import gzip
import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from anna.corpus import formats
from anna.corpus.drops import Drop, DropLog
from anna.corpus.held_out import load_task
from anna.corpus.held_out_tables import held_out_tables
from anna.corpus.ingest import load_training
from anna.corpus.sources import Cleaning, HeldOutSource, Reading, TrainSource
from anna.errors import InputError
from tests.corpus.conftest import Counted

CLEANING = Cleaning(0.0, None, seed=1)


def lines(rows: Sequence[Mapping[str, Any] | str]) -> str:
    return "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    docs = [{"_id": f"d{number}", "title": "", "text": f"text {number}"} for number in range(5)]
    docs[0] |= {"title": "Title"}
    del docs[1]["title"]
    (tmp_path / "corpus.jsonl").write_text(lines(docs))
    (tmp_path / "queries.jsonl").write_text(
        lines([{"_id": f"q{number}", "text": f"asks {number}"} for number in "012"])
    )
    (tmp_path / "qrels").mkdir()
    judged = ["query-id\tcorpus-id\tscore", "q1\td0\t2", "q0\td1\t1", "q1\td2\t0", "q1\td3\t1", "q1\td3\t-1"]
    (tmp_path / "qrels" / "train.tsv").write_text(lines(judged))
    return tmp_path


def read(folder: Path, split: str | None = None, drop: Drop | None = None) -> list[formats.Raw]:
    origin, columns = {"kind": "files", "path": str(folder)}, {"doc": "doc"}
    reading = Reading.model_validate({"origin": origin, "format": "beir", "split": split, "columns": columns})
    return list(formats.read(reading, Counted() if drop is None else drop))


def declared(folder: Path, columns: str, **others: Any) -> dict[str, Any]:
    return {
        "task": "T",
        "origin": {"kind": "files", "path": str(folder)},
        "format": "beir",
        "split": "train",
        "columns": {name: name for name in columns.split()},
        **others,
    }


def test_a_document_is_its_title_and_its_text(folder: Path) -> None:
    assert read(folder) == [{"doc": doc} for doc in ("Title text 0", "text 1", "text 2", "text 3", "text 4")]


def test_a_row_is_a_judged_query_with_what_its_judgements_name(folder: Path) -> None:
    assert read(folder, "train") == [
        {
            "query-id": "q1",
            "query": "asks 1",
            "docs": ["Title text 0", "text 3"],
            "relevances": [2.0, 1.0],
            "negatives": ["text 2"],
        },
        {"query-id": "q0", "query": "asks 0", "docs": ["text 1"], "relevances": [1.0], "negatives": []},
    ]


def as_json(folder: Path) -> Path:
    """Write the judgements as MTEB's repositories have them, and remove the others."""
    path = folder / "qrels" / "train.tsv"
    header, *judged = (line.split("\t") for line in path.read_text().splitlines())
    objects = [dict(zip(header, [*ids, float(score)], strict=True)) for *ids, score in judged]
    path.with_suffix(".jsonl").write_text(lines(objects))
    path.unlink()
    return path.with_suffix(".jsonl")


def test_judgements_may_be_objects_in_lines(folder: Path) -> None:
    expected = read(folder, "train")
    path = as_json(folder)
    assert read(folder, "train") == expected
    path.with_suffix(".jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    assert read(folder, "train") == expected


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"query-id": "q1", "corpus-id": "d0"}', '{"query-id": 1.5, "corpus-id": "d0", "score": 1}']
)
def test_an_object_that_is_no_judgement_is_refused_by_its_line(folder: Path, line: str) -> None:
    with as_json(folder).open("a") as file:
        file.write(f"\n{line}\n")
    with pytest.raises(
        InputError, match=r"train\.jsonl line 7 is .*, expected query-id corpus-id score .* JSON object"
    ):
        read(folder, "train")


def test_ids_may_be_whole_numbers_everywhere(folder: Path) -> None:
    expected = read(folder, "train")
    as_json(folder)
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/train.jsonl"):
        path = folder / name
        path.write_text(re.sub(r'("[a-z-]*_?id": )"[dq](\d)"', r"\1\2", path.read_text()))
    assert '"_id": 0' in (folder / "corpus.jsonl").read_text()
    assert '"corpus-id": 0' in (folder / "qrels" / "train.jsonl").read_text()
    assert read(folder, "train") == [{**row, "query-id": row["query-id"].removeprefix("q")} for row in expected if row]


def test_an_empty_document_does_not_take_its_query_along(
    folder: Path, caplog: pytest.LogCaptureFixture, drops: Counted
) -> None:
    expected = read(folder, "train")
    with (folder / "corpus.jsonl").open("a") as file:
        file.write(lines([{"_id": "blank", "title": "", "text": " <br> "}, {"_id": "none", "text": "\u200b"}]))
    with (folder / "qrels" / "train.tsv").open("a") as file:
        file.write("q1\tblank\t1\nq1\tnone\t0\n")
    with caplog.at_level(logging.WARNING):
        assert read(folder, "train", drops) == expected
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder}/qrels/train.tsv judges 2 that are empty in corpus.jsonl, among them 'blank'"
    ]
    assert drops == {"absent_document": 2}


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl"])
def test_two_texts_of_one_id_are_refused(folder: Path, name: str) -> None:
    expected = read(folder, "train")
    path, own = folder / name, "d1" if name == "corpus.jsonl" else "q1"
    path.write_text(path.read_text() * 2 + lines([{"_id": "nobody asks", "text": text} for text in "ab"]))
    assert read(folder, "train") == expected, "the same text twice is one, and what is not judged is not looked at"
    path.write_text(path.read_text() + lines([{"_id": own, "text": "other"}]))
    with pytest.raises(InputError, match=rf"{name} has id '{own}' twice, with different texts; rename or remove one"):
        read(folder, "train")


def test_queries_of_a_folder_need_a_split(folder: Path) -> None:
    with pytest.raises(ValueError, match="split: missing; without it the rows of a beir folder are its documents"):
        TrainSource.model_validate(declared(folder, "query docs", kind="retrieval") | {"split": None})


def test_packed_files_are_read_too(folder: Path) -> None:
    expected = read(folder, "train")
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/train.tsv"):
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
        (folder / name).unlink()
    assert read(folder, "train") == expected


def test_lines_that_are_no_document_are_malformed(folder: Path) -> None:
    whole = json.dumps({"_id": "d", "text": "whole"})
    (folder / "corpus.jsonl").write_text(lines(["{", '{"_id": 3, "text": "a"}', '{"_id": "d"}', "", "[]", whole]))
    assert read(folder) == [None, {"doc": "a"}, None, None, {"doc": "whole"}]


def test_what_is_judged_but_not_there_is_missing_from_its_rows(
    folder: Path, caplog: pytest.LogCaptureFixture, drops: Counted
) -> None:
    with (folder / "corpus.jsonl").open("a") as file:
        file.write(lines([{"_id": "d7", "text": "\u200b"}]))
    with (folder / "qrels" / "train.tsv").open("a") as file:
        file.write("q2\td9\t2\nq2\td1\t1\nq2\td9\t0\nq8\td1\t1\nq9\td9\t1\nq9\td7\t1\nq9\td1\t0\nq7\td9\t0\n")
    with caplog.at_level(logging.WARNING):
        rows = read(folder, "train", drops)
    assert rows[2:] == [
        {"query-id": "q2", "query": "asks 2", "docs": ["text 1"], "relevances": [1.0], "negatives": []},
        {"query-id": "q8", "query": None, "docs": ["text 1"], "relevances": [1.0], "negatives": []},
        {"query-id": "q9", "query": None, "docs": None, "relevances": [], "negatives": ["text 1"]},
        {"query-id": "q7", "query": None, "docs": [], "relevances": [], "negatives": []},
    ]
    assert drops == {"absent_document": 4}, "one of q2, two of q9, one of q7"
    place = f"{folder}/qrels/train.tsv"
    assert [record.getMessage() for record in caplog.records] == [
        f"{place} judges 3 that queries.jsonl does not have with a text, among them 'q7'",
        f"{place} judges 1 that corpus.jsonl does not have with a text, among them 'd9'",
        f"{place} judges 1 that are empty in corpus.jsonl, among them 'd7'",
    ]


def test_a_query_goes_only_with_the_last_of_its_relevant_documents(folder: Path) -> None:
    with (folder / "qrels" / "train.tsv").open("a") as file:
        file.writelines(f"q{number}\tabsent {number}\t1\n" for number in "012")
    log, entry = DropLog(), declared(folder, "query docs negatives", kind="retrieval")
    with pytest.raises(InputError, match=r"1 of 3 rows are faulty.* the first is missing_column 'docs' .* `require`"):
        load_training([TrainSource.model_validate(entry)], [], DropLog(), CLEANING)
    (collection,) = load_training([TrainSource.model_validate(entry | {"require": ["docs"]})], [], log, CLEANING)
    assert set(collection.queries.values()) == {"asks 0", "asks 1"}
    assert len(collection.qrels) == 4
    assert log.by_reason("T", "train") == {"absent_document": 3, "require": 1}
    assert log.table()["example"][0].as_py() == f"{folder}/qrels/train.tsv: 'absent 1', judged for 'q1'"[:160]


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        (
            "corpus.jsonl",
            ('"_id": "d', '"_id": "D0'),
            r"\['d0', 'd2', 'd3'\], only \['D00', 'D01', 'D02'\]; give",
        ),
        ("corpus.jsonl", ('"_id"', '"id"'), r"\['d0', 'd2', 'd3'\], only \[\]; give each line `_id` and `text`"),
        (
            "corpus.jsonl",
            ('"text"', '"contents"'),
            r"\['d0', 'd2', 'd3'\], only \[\]; give each line `_id`",
        ),
        ("queries.jsonl", ('", "text', ' ", "text'), r"\['q1', 'q0'\], only \['q0 ', 'q1 ', 'q2 '\]; give"),
    ],
)
def test_files_without_an_id_in_common_are_refused(
    folder: Path, name: str, changed: tuple[str, str], message: str
) -> None:
    path = folder / name
    path.write_text(path.read_text().replace(*changed))
    with pytest.raises(InputError, match=rf"{name} has no id that {folder}/qrels/train\.tsv names, such as {message}"):
        read(folder, "train")


@pytest.mark.parametrize(
    "line", ["q1 d0 1", "q1\td0", "q1\td0\thigh", "q1\td0\tnan", "q1\t0\td0\t1", "query\tdoc\tscore"]
)
def test_a_line_of_judgements_that_is_none_is_refused_by_its_number(folder: Path, line: str) -> None:
    with (folder / "qrels" / "train.tsv").open("a") as file:
        file.write(f"\n{line}\n")
    with pytest.raises(InputError, match=r"train\.tsv line 8 is .*, expected query-id corpus-id score"):
        read(folder, "train")


def test_a_split_that_is_not_there_is_refused_with_those_that_are(folder: Path) -> None:
    with pytest.raises(InputError, match=r"has no qrels/dev\.tsv or qrels/dev\.jsonl, .*splits there: \['train'\]"):
        read(folder, "dev")


def test_unjudged_documents_join_the_collection_without_a_judgement(tmp_path: Path) -> None:
    rows = [{"q": "asks", "pos": ["yes"], "neg": ["mined", "yes"]}, {"q": "asks more", "pos": ["more"], "neg": None}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    entry = {
        "task": "T",
        "kind": "retrieval",
        "origin": {"kind": "files", "path": str(tmp_path / "rows.jsonl")},
        "format": "jsonl",
        "columns": {"query": "q", "docs": "pos", "unjudged": "neg"},
    }
    (collection,) = load_training([TrainSource.model_validate(entry)], [], DropLog(), CLEANING)
    assert set(collection.docs.values()) == {"yes", "mined", "more"}
    assert {(collection.docs[doc_id], value) for (_, doc_id), value in collection.qrels.items()} == {
        ("yes", 1),
        ("more", 1),
    }


def test_training_takes_its_positives_negatives_and_distractors(folder: Path) -> None:
    every = {"origin": {"kind": "files", "path": str(folder)}, "format": "beir", "columns": {"doc": "doc"}}
    entry = declared(folder, "query docs negatives", kind="retrieval", distractors=[every])
    (collection,) = load_training([TrainSource.model_validate(entry)], [], DropLog(), CLEANING)
    judged = {
        (collection.queries[query_id], collection.docs[doc_id]): relevance
        for (query_id, doc_id), relevance in collection.qrels.items()
    }
    assert judged == {
        ("asks 1", "Title text 0"): 1,
        ("asks 1", "text 3"): 1,
        ("asks 1", "text 2"): 0,
        ("asks 0", "text 1"): 1,
    }
    assert sorted(collection.docs.values()) == ["Title text 0", "text 1", "text 2", "text 3", "text 4"]


def test_a_held_out_task_keeps_its_grades_and_of_duplicates_the_highest(folder: Path) -> None:
    with (folder / "corpus.jsonl").open("a") as file:
        file.write(lines([{"_id": "d5", "text": "TEXT, 3!"}]))
    with (folder / "qrels" / "train.tsv").open("a") as file:
        file.write("q1\td5\t4\n")
    entry = declared(folder, "query docs relevances", type="Retrieval")
    task = load_task(HeldOutSource.model_validate(entry), DropLog(), CLEANING, num_examples=0)
    tables = held_out_tables([task])
    texts = dict(zip(tables["corpus"]["doc_id"].to_pylist(), tables["corpus"]["text"].to_pylist(), strict=True))
    graded = zip(tables["qrels"]["doc_id"].to_pylist(), tables["qrels"]["relevance"].to_pylist(), strict=True)
    found = {texts[doc_id].lower().strip("!").replace(",", ""): relevance for doc_id, relevance in graded}
    assert found == {"title text 0": 2, "text 1": 1, "text 3": 4}


@pytest.mark.parametrize("hold_out", [True, False])
def test_training_and_a_held_out_task_may_search_one_corpus(folder: Path, hold_out: bool) -> None:
    """Only what its own queries are judged with is kept from training then."""
    (folder / "qrels" / "test.tsv").write_text("q2\td4\t1\n")
    every = {"origin": {"kind": "files", "path": str(folder)}, "format": "beir", "columns": {"doc": "doc"}}
    more = {"type": "Retrieval", "split": "test", "distractors": [every], "hold_out_distractors": hold_out}
    scored = HeldOutSource.model_validate(declared(folder, "query docs", **more))
    entry = declared(folder, "query docs", kind="retrieval", distractors=[every])
    drops, texts = DropLog(), [f"{'Title ' if number == 0 else ''}text {number}" for number in range(5)]
    task = load_task(scored, drops, CLEANING, num_examples=0)
    assert (task.judged, sorted(task.docs)) == ({"text 4"}, texts)
    if hold_out:
        with pytest.raises(InputError, match="'contaminated': "):
            load_training([TrainSource.model_validate(entry)], [task], drops, CLEANING)
    else:
        (collection,) = load_training([TrainSource.model_validate(entry)], [task], drops, CLEANING)
        assert sorted(collection.docs.values()) == texts[:4]
