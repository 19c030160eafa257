"""The stages that run a model, on tiny ones: the same bytes twice, and nothing computed twice."""

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from anna import io, log, schemas
from anna.errors import InputError
from stages import rerank, retrieve_bm25, retrieve_dense
from tests.teachers.conftest import make_toy, table
from tests.teachers.models import DENSE, FLOAT32, save_bi_encoder, save_cross_encoder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with the toy collection and a tiny dense model."""
    monkeypatch.chdir(tmp_path)
    toy = make_toy()
    io.write(rerank.CORPUS, toy.corpus, schemas.CORPUS)
    io.write(rerank.QUERIES, toy.queries, schemas.QUERIES)
    io.write(rerank.QRELS, toy.qrels, schemas.QRELS)
    save_bi_encoder(tmp_path / "dense")
    return tmp_path


def write_params(kind: str, model: Path) -> None:
    sections: dict[str, Any] = {
        "retrieve_bm25": {"k1": 1.5, "b": 0.75, "depth": 3},
        "retrieve_dense": DENSE | {"model": {"kind": "files", "path": "dense/model"}},
        "rerank": {
            "kind": kind,
            "model": {"kind": "files", "path": str(model)},
            "depth": 2,
            "queries_per_task": 1,
            "doc_tokens": 20,
            "query_tokens": 12,
            "tokens_per_batch": 64,
            **FLOAT32,
        },
        "scoring": {"engine": "local", "address": None, "workers": 1, "gpus": 0},
    }
    Path("params.yaml").write_text(yaml.safe_dump(sections), encoding="utf-8")


@pytest.mark.parametrize(("kind", "unit"), [("cross_encoder", "logit"), ("query_likelihood", "log probability")])
def test_stages_run_twice_with_the_same_bytes(project: Path, tiny_checkpoint: Path, kind: str, unit: str) -> None:
    model = save_cross_encoder(project / "cross") if kind == "cross_encoder" else tiny_checkpoint
    write_params(kind, model)
    first, counts = run_all()
    assert counts["retrieve_dense"] == {"reused": 0, "computed": 11}
    assert counts["rerank"] == {"reused": 0, "computed": 4}
    again, counts = run_all()
    assert again == first
    assert counts["retrieve_dense"] == {"reused": 11, "computed": 0}
    assert counts["rerank"] == {"reused": 4, "computed": 0}
    shutil.rmtree("runs")
    assert run_all()[0] == first
    described = io.read_json(io.sidecar(rerank.RUN))
    assert described["unit"].startswith(unit)
    assert described["teacher"] == str(model)
    assert io.read_json(rerank.METRICS)["queries"] == 2


def run_all() -> tuple[list[bytes], dict[str, dict[str, int]]]:
    """Run the three stages; return the bytes of what they wrote and what each model stage reused and computed."""
    counts = {"retrieve_bm25": {}}
    retrieve_bm25.main()
    for name, stage in (("retrieve_dense", retrieve_dense), ("rerank", rerank)):
        counts[name] = dict(stage.main())
    outputs = [*retrieve_bm25.OUTPUTS, *retrieve_dense.OUTPUTS, *rerank.OUTPUTS]
    return [path.read_bytes() for path in outputs], counts


def test_a_document_more_costs_its_vector_and_its_pairs_and_gives_the_tables_of_a_fresh_run(
    project: Path,
) -> None:
    write_params("cross_encoder", save_cross_encoder(project / "cross"))
    run_all()
    new = table(schemas.CORPUS, [("A:d:0", "A", "which river flows through France", None)])
    io.write(rerank.CORPUS, pa.concat_tables([make_toy().corpus, new]), schemas.CORPUS)
    tables, counts = run_all()
    assert counts["retrieve_dense"] == {"reused": 11, "computed": 1}
    run = io.read(rerank.RUN, schemas.RUN)
    num_new = run["doc_id"].to_pylist().count("A:d:0")
    assert num_new == 1
    assert counts["rerank"] == {"reused": run.num_rows - 1, "computed": 1}
    shutil.rmtree("runs")
    assert run_all()[0] == tables


def test_what_was_reused_is_said_beside_the_cost(project: Path) -> None:
    write_params("cross_encoder", project)
    log.run_stage("retrieve_dense", retrieve_dense.main)
    cost = io.read_json(Path("metrics/cost/retrieve_dense.json"))
    assert (cost["reused"], cost["computed"]) == (0, 11)
    assert io.read_json(retrieve_dense.METRICS)["index_recall"] == {}


def test_a_missing_run_is_named(project: Path, tiny_checkpoint: Path) -> None:
    write_params("query_likelihood", tiny_checkpoint)
    with pytest.raises(InputError, match=r"data/bm25_run.parquet does not exist; make it with: dvc repro"):
        rerank.main()
