import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import yaml

from anna.engine import Local
from anna.teachers.dense import DenseParams, DenseTeacher
from stages import evaluate
from tests.conftest import tiny_student
from tests.evaluation.conftest import write_tables
from tests.teachers.models import DENSE, save_bi_encoder

SECTIONS = {
    "ingest": {
        "train": [{"task": "Farm", "origin": {"kind": "files", "path": "farm.csv"}}],
        "held_out": [{"task": "Same", "origin": {"kind": "files", "path": "farm.csv"}}],
    },
    "scoring": {"engine": "local", "address": None, "workers": None, "gpus": 0},
    "retrieve_bm25": {"k1": 1.5, "b": 0.75, "depth": 3},
    "retrieve_dense": DENSE | {"model": {"kind": "files", "path": "absent"}},
    "evaluate": {
        "benchmark": "held_out",
        "tasks": ["Farm", "Same"],
        "baselines": ["untrained", "bm25"],
        "with_examples": True,
        "max_tokens": 24,
        "tokens_per_batch": 256,
        "dtype": "float32",
    },
}


@pytest.fixture
def project(tmp_path, monkeypatch, exported, tables, tiny_checkpoint):
    """A project folder up to the stage; `exported` lies where the stage reads the model."""
    monkeypatch.chdir(tmp_path)
    write_tables(Path("data/eval"), tables)
    student = tiny_student(tiny_checkpoint, layers=1).model_dump(mode="json")
    Path("params.yaml").write_text(yaml.safe_dump({**SECTIONS, "student": student}))
    return tmp_path


def test_the_stage_writes_metrics_plot_and_results(project):
    evaluate.main()
    summary = json.loads(evaluate.METRICS.read_text())
    assert list(summary) == ["student", "student_with_examples", "untrained", "bm25"]
    assert set(summary["student"]) == {"mean", "PairClassification", "Retrieval"}
    assert set(summary["bm25"]) == {"Retrieval"}
    assert summary["bm25"]["Retrieval"] == 1.0
    detail = json.loads(evaluate.DETAIL.read_text())
    assert detail["student"]["with_examples"]["Farm"]["metric"] == "ndcg_at_10"
    plot = list(csv.DictReader(evaluate.PLOT.open()))
    assert {row["model"] for row in plot} == {"student", "student_with_examples", "untrained", "bm25"}
    assert Path("reports/mteb/anna__bm25/zero_shot/Farm.json").is_file()


def test_mteb_is_told_what_the_student_and_only_it_was_trained_on(project):
    sections = yaml.safe_load(Path("params.yaml").read_text())
    tasks = ["Farm", "Barn", "Yard", "Mill"]
    sections["ingest"]["train"] = [{"task": task, "origin": {"kind": "files", "path": "farm.csv"}} for task in tasks]
    Path("params.yaml").write_text(yaml.safe_dump(sections))
    evaluate.main()
    known = {
        path.parent.relative_to(evaluate.RESULTS).as_posix(): json.loads(path.read_text())["training_datasets"]
        for path in evaluate.RESULTS.rglob("model_meta.json")
    }
    assert known == {
        "anna__student/zero_shot": sorted(tasks),
        "anna__student/with_examples": sorted(tasks),
        "anna__untrained/zero_shot": None,
        "anna__bm25/zero_shot": None,
    }


def test_what_was_trained_on_is_flagged_and_held_out_rows_are_not_ranked(project):
    evaluate.main()
    assert json.loads(evaluate.CONTAMINATION.read_text()) == {
        "zero_shot_percentage": 50,
        "tasks": 2,
        "tasks_trained_on": 1,
        "trained_on": ["Farm"],
        "same_source": {"Same": ["Farm"]},
    }
    said = json.loads(evaluate.LEADERBOARD.read_text())
    assert said["notes"][0].startswith("not ranked: held_out")
    assert said["standings"] == {}


def test_another_model_card_computes_nothing_again(project):
    evaluate.main()
    kept = sorted(Path("runs/mteb").rglob("*.json"))
    (evaluate.MODEL / "README.md").write_text("another card")
    evaluate.main()
    assert sorted(Path("runs/mteb").rglob("*.json")) == kept


def test_a_second_run_gives_the_same_bytes_and_drops_what_is_no_longer_scored(project):
    evaluate.main()
    files = (evaluate.METRICS, evaluate.DETAIL, evaluate.PLOT)
    before = [path.read_bytes() for path in files]
    Path("reports/mteb/gone").mkdir()
    evaluate.main()
    assert [path.read_bytes() for path in files] == before
    assert not Path("reports/mteb/gone").exists()


def test_the_teachers_vectors_are_those_that_retrieval_keeps(project):
    sections = yaml.safe_load(Path("params.yaml").read_text())
    sections["retrieve_dense"]["model"]["path"] = str(save_bi_encoder(project / "dense"))
    sections["evaluate"].update(tasks=["Farm"], baselines=["teacher"], with_examples=False)
    Path("params.yaml").write_text(yaml.safe_dump(sections))
    counts = evaluate.main()
    assert dict(counts) == {"reused": 0, "computed": 12}  # 8 documents, 4 queries; of the student nothing is kept
    scores = evaluate.METRICS.read_bytes()
    shutil.rmtree("runs/mteb")
    assert dict(evaluate.main()) == {"reused": 12, "computed": 0}
    assert evaluate.METRICS.read_bytes() == scores
    kept = Counter()
    texts = [f"where is the {word}" for word in ("cat", "dog", "yak")]
    DenseTeacher(DenseParams.load(), kept, Local()).embed(texts, "")
    assert dict(kept) == {"reused": 2, "computed": 1}


def test_the_contract_names_what_is_read_and_written():
    assert len(evaluate.EVAL_TABLES) == 6
    assert Path("models/sentence-transformer") in evaluate.INPUTS
    sections = {params.section for params in evaluate.PARAMS}
    assert sections == {"evaluate", "ingest", "student", "retrieve_dense", "retrieve_bm25"}
