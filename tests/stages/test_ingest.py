import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from anna import io, schemas
from anna.corpus.held_out_tables import SCHEMAS
from anna.errors import InputError
from anna.folding import normalise
from stages import ingest
from tests.toy import write_jsonl, write_toy_project

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """An empty project in the working folder; returns the toy's params, to be changed and run."""
    monkeypatch.chdir(tmp_path)
    return write_toy_project(tmp_path / "sources")


def run(params: dict[str, Any], seed: int = 1) -> dict[str, bytes]:
    """Run the stage and return the bytes of all it wrote, but for the examples of drops, which name row numbers."""
    parts = [*params["train"], *params["held_out"], *params.get("examples", ())]
    prompts = {"tasks": {part["task"]: {"instruction": "do", "symmetric": False} for part in parts if "task" in part}}
    sections = {"random": {"seed": seed}, "ingest": params, "prompts": prompts}
    Path("params.yaml").write_text(yaml.safe_dump(sections))
    ingest.main()
    written = {str(path): path.read_bytes() for path in ingest.OUTPUTS if path != ingest.DROPS}
    drops = io.read(ingest.DROPS, schemas.INGEST_DROPS).drop_columns(["example"])
    return {**written, str(ingest.DROPS): json.dumps(drops.to_pylist()).encode()}


def texts(path: Path, *columns: str) -> set[str]:
    table = pq.read_table(path)
    return {normalise(text) for column in columns for text in table[column].to_pylist()}


def test_tasks_without_a_prompt_are_refused_before_anything_is_read(project: dict[str, Any]) -> None:
    known = {source["task"]: {} for source in project["train"][1:]} | {project["held_out"][0]["task"]: {}}
    sections = {"random": {"seed": 1}, "ingest": project, "prompts": {"tasks": known}}
    Path("params.yaml").write_text(yaml.safe_dump(sections))
    missing = sorted({source["task"] for source in (*project["train"], *project["held_out"])} - set(known))
    assert len(missing) > 1
    with pytest.raises(InputError, match=re.escape(f"prompts.tasks has no instruction for {missing}")):
        ingest.main()
    assert not ingest.CORPUS.exists()


def test_writes_every_table_and_counts(project: dict[str, Any]) -> None:
    run(project)
    metrics = io.read_json(ingest.METRICS)
    assert metrics["train"]["Animals"] == {"docs": 40, "queries": 30, "qrels": 90, "drops": {}}
    assert metrics["train"]["Pairs"]["queries"] == 15
    assert metrics["train"]["Pairs"]["drops"] == {"query_without_positive": 5}
    assert metrics["train"]["News"]["docs"] == 24
    assert {task["type"] for task in metrics["held_out"].values()} == {
        "Retrieval", "Reranking", "STS", "Classification", "Clustering", "PairClassification", "Summarization"
    }  # fmt: skip
    for name, path in ingest.EVAL_TABLES.items():
        assert io.read(path, SCHEMAS[name]).num_rows > 0
    searched = Counter(pq.read_table(ingest.EVAL_TABLES["corpus"])["task"].to_pylist())
    assert {name: task["docs"] for name, task in metrics["held_out"].items() if "docs" in task} == searched
    assert set(searched) == {"Zoo", "ZooRanked"}
    examples = pq.read_table(ingest.EVAL_TABLES["examples"])
    assert examples.num_rows == 2 * len(metrics["held_out"])
    for path, schema in (
        (ingest.CORPUS, schemas.CORPUS),
        (ingest.QUERIES, schemas.QUERIES),
        (ingest.QRELS, schemas.QRELS),
    ):
        assert io.read(path, schema).num_rows > 0


def test_examples_of_mtebs_tasks_join_those_of_held_out_ones(
    project: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    animals = project["train"][0]
    project["examples"] = [{**animals, "task": "ArguAna"}]
    scored = {f"where does the {word} live" for word in ("otter", "badger")}
    monkeypatch.setattr(ingest, "scored_texts", lambda task: scored if task == "ArguAna" else pytest.fail(task))
    run(project)
    rows = [row for row in pq.read_table(ingest.EVAL_TABLES["examples"]).to_pylist() if row["task"] == "ArguAna"]
    assert [row["position"] for row in rows] == [0, 1]
    assert not scored & {row["query"] for row in rows}
    assert all(row["query"].split()[3] in row["response"] for row in rows)
    project["examples"] = [{**animals, "task": "Zoo"}]
    monkeypatch.setattr(ingest, "scored_texts", lambda task: set())
    with pytest.raises(InputError, match=r"ingest.examples names 'Zoo', a held-out task"):
        run(project)


def test_judgements_point_to_rows_of_the_same_task(project: dict[str, Any]) -> None:
    run(project)
    docs = dict(zip(*(pq.read_table(ingest.CORPUS)[name].to_pylist() for name in ("doc_id", "task")), strict=True))
    queries = dict(
        zip(*(pq.read_table(ingest.QUERIES)[name].to_pylist() for name in ("query_id", "task")), strict=True)
    )
    qrels = pq.read_table(ingest.QRELS).to_pylist()
    assert all(docs[row["doc_id"]] == queries[row["query_id"]] for row in qrels)
    assert {row["query_id"] for row in qrels if row["relevance"]} == set(queries)


def test_same_params_give_the_same_bytes(project: dict[str, Any]) -> None:
    assert run(project) == run(project)


def test_order_of_source_rows_changes_nothing(project: dict[str, Any]) -> None:
    for source in project["train"]:
        source["rows"] = 15
    before = run(project)
    for number, path in enumerate(sorted(Path("sources").glob("*.jsonl"))):
        lines = path.read_text().splitlines()
        random.Random(number).shuffle(lines)
        path.write_text("\n".join(lines) + "\n")
    after = run(project)
    assert {name for name in before if before[name] != after[name]} == set()


def test_seed_changes_the_choice(project: dict[str, Any]) -> None:
    assert (
        run(project, seed=1)[str(ingest.EVAL_TABLES["labelled"])]
        != run(project, seed=2)[str(ingest.EVAL_TABLES["labelled"])]
    )


def test_held_out_texts_leave_training(project: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    zoo = [json.loads(line) for line in Path("sources/zoo.jsonl").read_text().splitlines()]
    animals = Path("sources/animals.jsonl")
    leaks = [{"query": f"{row['query'].upper()}?", "pos": ["never read"], "neg": []} for row in zoo]
    leaks += [{"query": f"leak {number}", "pos": [row["doc"]], "neg": []} for number, row in enumerate(zoo)]
    animals.write_text(animals.read_text() + "\n".join(json.dumps(row) for row in leaks))
    run(project)
    dropped = io.read_json(ingest.METRICS)["train"]["Animals"]["drops"]
    kept = texts(ingest.CORPUS, "text") | texts(ingest.QUERIES, "text")
    held_out = texts(ingest.EVAL_TABLES["corpus"], "text") | texts(ingest.EVAL_TABLES["queries"], "text")
    held_out |= texts(ingest.EVAL_TABLES["examples"], "query", "response")
    held_out |= texts(ingest.EVAL_TABLES["labelled"], "text") | texts(ingest.EVAL_TABLES["pairs"], "text1", "text2")
    assert not kept & held_out
    # Eight queries are scored and two shown; the two beyond `rows` are in no table of data/eval.
    assert dropped["contaminated"] == 20
    assert "hold a text that a held-out task is scored on" not in caplog.text
    animals.write_text("\n".join([*animals.read_text().splitlines()[:5], *map(json.dumps, leaks)]))
    run(project)
    assert "Animals: 20 of 39 pairs and distractors hold a text that a held-out task is scored on" in caplog.text


def test_near_duplicates_of_held_out_texts_are_told_with_what_keeps_them(
    project: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    project["train"] = [{**write_catalogue("Few", 3, others=5), "kind": "retrieval"}]
    write_jsonl(Path("sources/far.jsonl"), [{"doc": f"far {number}"} for number in range(3)])
    far = {"kind": "files", "path": "sources/far.jsonl"}
    project["train"][0]["distractors"] = [{"origin": far, "format": "jsonl", "columns": {"doc": "doc"}}]
    shelf = {**write_catalogue("Shelf", 1, others=4), "type": "Retrieval"}
    path = Path("sources/Shelf.jsonl")
    path.write_text(path.read_text().replace("Shelf", "Few").replace('"query of ', '"asks for '))
    project["held_out"] = [shelf]
    run({**project, "examples_per_task": 0})
    assert "Few: 7 of 11 pairs and distractors hold a text that" in caplog.text
    assert "or a near duplicate of one, and are left out; " in caplog.text
    assert "score on fewer rows, set a held-out task's hold_out_distractors to false" in caplog.text
    assert "raise ingest.near_duplicate (null keeps all documents that differ)" in caplog.text
    project["train"] = [{**write_catalogue("Few", 3), "kind": "retrieval"}]
    with pytest.raises(InputError, match=r"left with 0 documents .*near_contaminated.* raise ingest.near_duplicate"):
        run({**project, "examples_per_task": 0})


def test_a_task_of_one_class_is_refused(project: dict[str, Any]) -> None:
    write_jsonl(Path("sources/news.jsonl"), [{"text": f"text {number}", "label": "spam"} for number in range(9)])
    with pytest.raises(InputError, match="'News': its texts are all of class 'spam', so none has a negative; correct"):
        run({**project, "held_out": project["held_out"][:1]})


def test_empty_source_names_it(project: dict[str, Any]) -> None:
    Path("sources/news.jsonl").write_text("")
    with pytest.raises(InputError, match=r"sources/news\.jsonl has no rows; correct the path"):
        run(project)


def test_failure_writes_nothing(project: dict[str, Any]) -> None:
    project["train"][0]["columns"]["docs"] = "query"
    with pytest.raises(InputError, match=r"column 'query': got str .* expected a list for docs"):
        run(project)
    assert not Path("data").exists()


def write_catalogue(name: str, docs: int, others: int = 0) -> dict[str, Any]:
    """Write one form filled in `docs` times and `others` that are none, and return a source of them with queries."""
    form = " ".join(f"{name}{number}" for number in range(40))
    texts = [f"{number} {form}" for number in range(docs)] + [f"{name} other{number}" for number in range(others)]
    path = Path(f"sources/{name}.jsonl")
    write_jsonl(path, [{"query": f"query of {text}", "doc": text} for text in texts])
    columns = {"query": "query", "doc": "doc"}
    return {"origin": {"kind": "files", "path": str(path)}, "format": "jsonl", "columns": columns, "task": name}


def test_one_template_for_many_documents_is_warned_of(
    project: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    few, many = write_catalogue("Few", 3, others=18), write_catalogue("Many", 9, others=2)
    project["train"] = [{**source, "kind": "retrieval"} for source in (few, many)]
    project["held_out"] = [{**write_catalogue("Shelf", 9, others=4), "type": "Retrieval"}]
    run({**project, "examples_per_task": 0})
    warned = [record.getMessage() for record in caplog.records if "near duplicates" in record.getMessage()]
    assert [line.split(" documents")[0] for line in warned] == ["held-out task Shelf: 8 of 13", "Many: 8 of 11"]
    assert all("raise ingest.near_duplicate in params.yaml (null keeps all" in line for line in warned)
    drops = {name: of["drops"] for name, of in io.read_json(ingest.METRICS)["train"].items()}
    assert drops["Few"] == {"near_duplicate_document": 2}, "of 21"
    caplog.clear()
    run({**project, "examples_per_task": 0, "near_duplicate": None})
    assert "near duplicates" not in caplog.text


@pytest.mark.parametrize("part", ["train", "held_out"])
def test_a_task_that_is_one_template_is_refused_with_the_key(project: dict[str, Any], part: str) -> None:
    kind = {"kind": "retrieval"} if part == "train" else {"type": "Retrieval"}
    message = r"'near_duplicate_document': 8}; raise ingest.near_duplicate \(null .*\), add rows to its source or corr"
    with pytest.raises(InputError, match=message):
        run({**project, "held_out": [], part: [{**write_catalogue("Forms", 9), **kind}], "examples_per_task": 0})


def test_too_small_a_task_is_refused(project: dict[str, Any]) -> None:
    write_jsonl(Path("sources/news.jsonl"), [{"text": "alone", "label": "x"}])
    message = r"'News' is left with 1 documents and 0 queries.*query_without_positive': 1\}; add rows to its source or"
    with pytest.raises(InputError, match=message):
        run(project)
    write_jsonl(Path("sources/news.jsonl"), [{"text": text, "label": text} for text in "abc"])
    (place,) = (number for number, source in enumerate(project["train"]) if source["task"] == "News")
    project["train"][place]["rows"] = 1
    with pytest.raises(InputError, match=r"'beyond_rows': 2, .*\}; raise its rows or correct its columns$"):
        run(project)


def test_a_task_that_is_held_out_whole_is_refused_with_what_keeps_the_two_apart(project: dict[str, Any]) -> None:
    shelf = write_catalogue("Shelf", 0, others=9)
    project["train"] = [{**shelf, "kind": "retrieval"}]
    project["held_out"] = [{**shelf, "type": "Retrieval"}]
    message = r"with 0 documents and 0 queries .*'contaminated': 9\}; keep it apart from what is held out by `where`"
    with pytest.raises(InputError, match=message):
        run({**project, "examples_per_task": 0})


def test_a_similarity_that_no_pair_reaches_is_what_the_remedy_names(project: dict[str, Any]) -> None:
    (place,) = (n for n, source in enumerate(project["train"]) if source["kind"] == "sts")
    project["train"][place]["positive_at"] = 99.0
    with pytest.raises(
        InputError, match=r" and 0 queries .* lower its positive_at, add rows to its source or correct its col"
    ):
        run(project)


def test_tasks_of_one_name_are_refused(project: dict[str, Any]) -> None:
    twice = {**project, "held_out": [*project["held_out"], project["held_out"][0]]}
    with pytest.raises(InputError, match="two tasks named 'Zoo'; rename one"):
        run(twice)
    mixed = {**project, "train": [*project["train"], {**project["train"][2], "task": "Animals"}]}
    with pytest.raises(InputError, match="'Animals' is both retrieval and classification; rename one"):
        run(mixed)


def test_sources_of_one_task_make_one_collection(project: dict[str, Any]) -> None:
    write_jsonl(
        Path("sources/more.jsonl"), [{"query": "one more", "pos": ["another document"], "neg": ["and another"]}]
    )
    more = {**project["train"][0], "origin": {"kind": "files", "path": "sources/more.jsonl"}}
    run({**project, "train": [*project["train"], more]})
    assert io.read_json(ingest.METRICS)["train"]["Animals"]["docs"] == 42


def test_one_training_task_is_read_at_a_time(project: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    animals, *others = project["train"]
    with caplog.at_level("INFO"):
        run({**project, "train": [animals, *others, animals]})
    lines = [record.getMessage() for record in caplog.records]
    read = Path(animals["origin"]["path"])
    made = [place for place, line in enumerate(lines) if line.startswith(f"{animals['task']}: {{")]
    assert [place for place, line in enumerate(lines) if line.startswith(f"{read}:")] == [made[0] - 2, made[0] - 1]
    tasks = [line.split(":")[0] for line in lines if ": {'docs'" in line]
    assert tasks == [source["task"] for source in project["train"]]


def test_documents_of_queries_left_out_are_searched_as_distractors(
    project: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    zoo = {**project["held_out"][0], "rows": 3, "distractors": []}
    with caplog.at_level("INFO"):
        run({**project, "held_out": [zoo]})
    assert "sources/zoo.jsonl: {'scored': 3, 'docs': 3}, dropped {" in caplog.text
    whole = {"origin": zoo["origin"], "format": "jsonl", "columns": {"doc": "doc"}}
    run({**project, "held_out": [{**zoo, "distractors": [whole]}]})
    of = io.read_json(ingest.METRICS)["held_out"]["Zoo"]
    assert (of["scored"], of["docs"]) == (3, 10), "all but the two that are shown"


def test_documents_that_no_query_asks_for_join_the_collection(project: dict[str, Any]) -> None:
    zoo = [json.loads(line)["doc"] for line in Path("sources/zoo.jsonl").read_text().splitlines()]
    more = [{"title": "Notes", "text": f"This is note {number} of the keeper."} for number in range(9)]
    write_jsonl(Path("sources/more.jsonl"), [*more, {"title": "", "text": zoo[0]}])
    animals = project["train"][0]
    animals["distractors"] = [
        {
            "origin": {"kind": "files", "path": "sources/more.jsonl"},
            "format": "jsonl",
            "columns": {"doc": "{title} {text}"},
        }
    ]
    run(project)
    metrics = io.read_json(ingest.METRICS)["train"]["Animals"]
    assert metrics == {"docs": 49, "queries": 30, "qrels": 90, "drops": {"contaminated": 1}}
    assert normalise("Notes This is note 3 of the keeper.") in texts(ingest.CORPUS, "text")
    animals["distractors"][0]["rows"] = 4
    run(project)
    drops = io.read_json(ingest.METRICS)["train"]["Animals"]["drops"]
    assert drops["beyond_rows"] == 6


@pytest.mark.parametrize("name", ["params.yaml", "presets/mistral-7b.yaml"])
def test_shipped_params_load(name: str) -> None:
    assert ingest.IngestParams.load(ROOT / name).train
