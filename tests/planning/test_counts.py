"""How texts are counted, from params, tables, and mteb's statistics."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from tokenizers import Tokenizer

from anna import io, schemas
from anna.corpus.sources import Reading
from anna.errors import InputError
from anna.origins import FilesOrigin
from anna.planning import counts, held_out, report, sources
from anna.planning.counts import count, is_ingested, mean
from anna.planning.hardware import parse
from anna.planning.known_rows import Known
from anna.planning.plan import make_case
from anna.planning.settings import Settings
from anna.planning.training import batch_sizes
from anna.training.batches import Group, plan_epoch
from tests.planning.conftest import REPO, read_settings

PAPER = REPO / "presets/mistral-7b.yaml"
TOKENIZER = REPO / "models/sentence-transformer/tokenizer.json"


@pytest.fixture
def paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    return read_settings(PAPER)


def test_mean_cuts_and_pads() -> None:
    lengths = np.array([0.5, 10.0, 17.0, 90.0])
    assert mean(lengths, 48) == (1 + 10 + 17 + 48) / 4
    assert mean(lengths, 64, padded_to=16) == (16 + 16 + 32 + 64) / 4
    assert mean(np.array([]), 48) == 0


@pytest.mark.skipif(not TOKENIZER.is_file(), reason="needs the exported model")
def test_bytes_say_how_many_tokens_an_english_text_has() -> None:
    text = (REPO / "docs/PIPELINE.md").read_text(encoding="utf-8").split("### Candidates")[1].split("```")[0]
    real = len(Tokenizer.from_file(str(TOKENIZER)).encode(text, add_special_tokens=False).ids)
    assert counts.tokens(text) == pytest.approx(real, rel=0.25)


@pytest.mark.parametrize("number", [1, 31, 32, 47, 48, 100, 331])
def test_batches_are_as_many_as_training_makes(number: int) -> None:
    groups = [Group(f"q{n}", "T", (f"d{n}",), (1.0,)) for n in range(number)]
    made = plan_epoch(groups, batch_queries=32, max_examples=0, chained=False, seed=0, epoch=0)
    assert batch_sizes(number, 32) == (len(made), max(len(batch.groups) for batch in made))


def test_known_rows_of_the_hub_and_those_that_are_assumed(paper: Settings) -> None:
    found = count(paper, PAPER, {})
    by_name = {task.name: task for task in found.tasks}
    assert by_name["MSMARCO"].queries == round(485_823 * 0.97)
    assert by_name["MSMARCO"].docs == 8_841_823  # 26.1 documents of each row, at most the whole collection
    assert by_name["AmazonReviewsClassification"].queries == round(50_000 * 0.94)  # params say so
    assert "MSMARCO" not in found.assumed
    assert "ELI5" in found.assumed
    assert by_name["STSBenchmark"].is_symmetric
    assert not by_name["STSBenchmark"].has_negatives


def test_the_user_knows_better(paper: Settings) -> None:
    found = count(paper, PAPER, {"ELI5": 1000})
    assert "ELI5" not in found.assumed
    assert {task.name: task.queries for task in found.tasks}["ELI5"] == 970
    with pytest.raises(InputError, match="--rows NoSuchTask: no task of ingest"):
        count(paper, PAPER, {"NoSuchTask": 3})


def test_rows_of_a_task_are_shared_among_its_sources(paper: Settings) -> None:
    eli5 = next(source for source in paper.ingest.train if source.task == "ELI5")
    ingest = paper.ingest.model_copy(update={"train": (*paper.ingest.train, eli5, eli5)})
    for given in (1000, 1, 0):
        found = count(paper._replace(ingest=ingest), PAPER, {"ELI5": given})
        assert {task.name: task.queries for task in found.tasks}["ELI5"] == round(given * 0.97)
        assert "ELI5" not in found.assumed


def test_params_ask_for_no_more_rows_than_there_are(paper: Settings) -> None:
    source = paper.ingest.train[0]
    asks = [source.model_copy(update={"rows": rows}) for rows in (None, 3, 500_000)]
    known, unknown = Known(4_065), None
    assert [sources.rows_of(ask, known, 50_000) for ask in asks] == [4_065, 3, 4_065]
    assert [sources.rows_of(ask, unknown, 50_000) for ask in asks] == [50_000, 3, 500_000]


def test_tables_count_while_their_sources_are_the_same(tmp_path: Path) -> None:
    settings, lock = read_settings(REPO / "params.yaml"), tmp_path / "dvc.lock"
    assert not is_ingested(settings, tmp_path)
    for damaged in ("", "stages:\n<<<<<<< HEAD\n", "stages: []"):
        lock.write_text(damaged)
        assert not is_ingested(settings, tmp_path)
    ingest = yaml.safe_load((REPO / "params.yaml").read_text(encoding="utf-8"))["ingest"]
    own = ingest["train"][0]["rows"]
    for rows, is_same in ((own, True), (own - 1, False)):
        ingest["train"][0]["rows"] = rows
        lock.write_text(yaml.safe_dump({"stages": {"ingest": {"params": {"params.yaml": {"ingest": ingest}}}}}))
        assert is_ingested(settings, tmp_path) == is_same


@pytest.mark.parametrize(("filtered", "groups"), [(100, 57), (99, 98), (None, 98)])
def test_groups_count_while_their_queries_are_the_same(
    paper: Settings, monkeypatch: pytest.MonkeyPatch, filtered: int | None, groups: int
) -> None:
    ingest = paper.ingest.model_copy(update={"train": paper.ingest.train[:1], "validation_share": 0.0})
    task = ingest.train[0].task
    io.write_json(counts.INGESTED, {"train": {task: {"queries": 100, "docs": 7}}})
    if filtered is not None:
        io.write_json(counts.FILTERED, {"tasks": {task: {"queries": filtered, "groups": 57}}})
    monkeypatch.setattr(counts, "is_ingested", lambda _: True)
    (found,) = count(paper._replace(ingest=ingest), PAPER, {}).tasks
    assert (found.queries, found.docs, found.groups) == (100, 7, groups)


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_rows_of_local_files_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    path, frame = tmp_path / "docs", pl.DataFrame({"text": [f"{n:06d}" for n in range(5000)]})
    {"jsonl": frame.write_ndjson, "csv": frame.write_csv, "parquet": frame.write_parquet}[form](path)
    monkeypatch.setattr(sources, "LOOKED_AT", 10_000)
    origin = FilesOrigin(kind="files", path=path)
    found = sources.known_rows(Reading(origin=origin, format=form, columns={"doc": "text"}))
    assert found is not None
    assert found.rows == pytest.approx(5000, rel=0.01)
    if form == "parquet":
        path.write_text("text", encoding="utf-8")
        with pytest.raises(
            InputError, match=rf"^{path} is not a readable Parquet file .*; correct the path or the file$"
        ):
            sources.known_rows(Reading(origin=origin, format=form, columns={"doc": "text"}))
    gone = FilesOrigin(kind="files", path=tmp_path / "gone")
    assert sources.known_rows(Reading(origin=gone, format=form, columns={"doc": "text"})) is None


def test_rows_of_a_folder_in_beirs_form_are_counted(tmp_path: Path) -> None:
    docs = "".join(f'{{"_id": "{number}", "text": "t"}}\n' for number in range(30))
    (tmp_path / "corpus.jsonl").write_text(docs, encoding="utf-8")
    (tmp_path / "qrels").mkdir()
    judged = "".join(f"q{number // 3}\t{number}\t1\n" for number in range(12))
    (tmp_path / "qrels" / "dev.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}", encoding="utf-8")
    objects = "".join(f'{{"query-id": "q{number // 2}", "corpus-id": "d", "score": 1}}\n' for number in range(8))
    (tmp_path / "qrels" / "test.jsonl").write_text(objects, encoding="utf-8")

    def known(split: str | None) -> Known | None:
        origin = FilesOrigin(kind="files", path=tmp_path)
        column = "docs" if split else "doc"
        return sources.known_rows(Reading(origin=origin, format="beir", split=split, columns={column: column}))

    assert known(None) == Known(30, 1.0)
    assert known("dev") == Known(4, 3.0)
    assert known("test") == Known(4, 2.0)
    assert known("train") is None


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_documents_in_lists_of_local_files_are_counted(tmp_path: Path, form: str) -> None:
    path = tmp_path / "rows"
    frame = pl.DataFrame({"q": ["a", "b"], "d": ["e", "f"], "p": [["c", "d"], ["e"]], "n": [["f", "g", "h"], None]})
    {"jsonl": frame.write_ndjson, "parquet": frame.write_parquet}[form](path)
    origin = FilesOrigin(kind="files", path=path)
    for columns, docs in (
        ({"query": "q", "docs": "p", "negatives": "n"}, 3.0),  # six texts in the lists of two rows
        ({"query": "q", "doc": "d", "negatives": "{n}"}, 2.5),
        ({"query": "q", "doc": "d", "unjudged": "n"}, 2.5),
        ({"query": "q", "docs": "p"}, 1.5),
        ({"query": "q", "doc": "d"}, 1.0),
        ({"query": "q", "docs": "d"}, 1.0),  # no lists: `ingest` refuses it
    ):
        assert sources.known_rows(Reading(origin=origin, format=form, columns=columns)) == Known(2, docs)


def test_filters_and_unknown_sizes_are_said(paper: Settings) -> None:
    settings = read_settings(REPO / "params.yaml")
    source, scored = settings.ingest.train[0], settings.ingest.held_out[0]
    here = FilesOrigin(kind="files", path=Path("rows.parquet"))
    unsized = {"origin": here, "format": "parquet", "rows": None, "require": (), "minus": ()}
    corpus = Reading(origin=here, format="parquet", columns={"doc": "text"}, where={"split": ("a",)})
    train = source.model_copy(update={"where": {"label": (1,)}, "minus": (), "require": ("x",), "rows": 9})
    ingest = settings.ingest.model_copy(
        update={
            "train": (train.model_copy(update={"distractors": (corpus,)}),),
            "held_out": (scored.model_copy(update={**unsized, "unless": {"label": (1,)}, "distractors": ()}),),
        }
    )
    case = make_case(settings._replace(ingest=ingest), PAPER, parse("h200"), {})
    said = " ".join(report.notes(case))
    assert (
        f"Not applied: `require` of {train.task}, `where` of {train.task}, `where` of {train.task}'s distractors, "
        f"`unless` of {scored.task}. There are at most so many rows."
    ) in said
    assert f"Held-out rows are assumed (1,000 each) of {scored.task}. Set rows there." in said
    assert count(case.settings, PAPER, {train.task: 9}).filtered == (f"`where` of {train.task}'s distractors",)


@pytest.mark.parametrize(("rows", "docs", "is_assumed"), [(5000, 5000, False), (None, 50_000, True)])
def test_distractors_are_counted(paper: Settings, rows: int | None, docs: int, is_assumed: bool) -> None:
    source = paper.ingest.train[0].model_copy(update={"rows": 1000})
    origin = FilesOrigin(kind="files", path=Path("corpus.jsonl"))
    corpus = Reading(origin=origin, format="jsonl", columns={"doc": "text"}, rows=rows)
    counted = []
    for distractors in ((), (corpus,)):
        train = (source.model_copy(update={"distractors": distractors}),)
        ingest = paper.ingest.model_copy(update={"train": train})
        counted.append(count(paper._replace(ingest=ingest), PAPER, {}))
    without, found = counted
    assert found.tasks[0].docs - without.tasks[0].docs == round(docs * 0.92)
    named = (f"{source.task}'s distractors (set rows there)",) if is_assumed else ()
    assert (found.assumed, without.assumed) == (named, ())


def test_damaged_tables_are_told_in_one_line(paper: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "is_ingested", lambda _: True)
    io.write_json(counts.INGESTED, {})
    with pytest.raises(InputError, match=r"metrics/ingest.json has no task '.*'; delete it and run: dvc repro ingest"):
        count(paper, PAPER, {})
    counts.CORPUS.parent.mkdir(exist_ok=True)
    for path in (counts.CORPUS, counts.QUERIES):
        path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(InputError, match=r"data/corpus.parquet is not a readable Parquet file"):
        count(paper, PAPER, {})
    (tmp_path / "corpus.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(InputError, match=r"is not a readable Parquet file .*: dvc checkout --force"):
        held_out.from_tables(paper, tmp_path)


def test_held_out_tables_are_counted_without_repetitions(tmp_path: Path) -> None:
    settings = read_settings(REPO / "params.yaml")
    rows = {
        "corpus": (schemas.EVAL_CORPUS, [{"task": "BoolQ", "doc_id": f"BoolQ:d:{n}", "text": "x" * 43} for n in "ab"]),
        "queries": (schemas.EVAL_QUERIES, []),
        "pairs": (
            schemas.EVAL_PAIRS,
            [{"task": "STSBenchmark", "pair_id": "p", "text1": "a", "text2": "b", "score": 1.0}],
        ),
        "labelled": (schemas.EVAL_LABELLED, []),
        "summaries": (
            schemas.EVAL_SUMMARIES,
            [
                {
                    "task": "FactualSummaries",
                    "text_id": "t",
                    "source": "s",
                    "summaries": ["u", "v"],
                    "relevance": [1.0, 0.0],
                }
            ],
        ),
    }
    for name, (schema, values) in rows.items():
        io.write(tmp_path / f"{name}.parquet", schema.empty_table().from_pylist(values, schema=schema), schema)
    found = held_out.from_tables(settings, tmp_path)
    assert [(part.task, part.number, part.prompt_tokens > 0) for part in found] == [
        ("BoolQ", 1, False),
        ("STSBenchmark", 1, True),
        ("STSBenchmark", 1, True),
        ("FactualSummaries", 1, True),
        ("FactualSummaries", 2, True),
    ]
    assert found[0].lengths[0] == pytest.approx(43 / 4.4 + 1)


def test_mteb_says_how_large_its_tasks_are(paper: Settings) -> None:
    evaluate = paper.evaluate.model_copy(update={"tasks": ["BIOSSES", "ArguAna", "MassiveIntentClassification"]})
    found = held_out.from_mteb(paper._replace(evaluate=evaluate))
    assert [part.number for part in found if part.task == "BIOSSES"] == [92, 97]
    assert [(part.number, part.prompt_tokens > 0) for part in found if part.task == "ArguAna"] == [
        (8626, False),
        (1298, True),
    ]
    (intents,) = [part.number for part in found if part.task == "MassiveIntentClassification"]
    assert intents == 2970  # English alone, of 149,000 texts
