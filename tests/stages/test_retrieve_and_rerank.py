"""The stages that run a model, on tiny ones: sidecars name the teacher and the unit, results are the same twice."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

from anna import io, schemas
from anna.errors import InputError
from stages import rerank, retrieve_bm25, retrieve_dense
from tests.teachers.conftest import make_toy
from tests.teachers.test_cross_encoder import save as save_cross_encoder
from tests.teachers.test_dense import save_bert


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with the toy collection and a tiny dense model."""
    monkeypatch.chdir(tmp_path)
    toy = make_toy()
    io.write(rerank.CORPUS, toy.corpus, schemas.CORPUS)
    io.write(rerank.QUERIES, toy.queries, schemas.QUERIES)
    io.write(rerank.QRELS, toy.qrels, schemas.QRELS)
    save_bert(tmp_path / "bert")
    SentenceTransformer(modules=[Transformer("bert"), Pooling(16)]).save("dense")
    return tmp_path


def write_params(kind: str, model: Path) -> None:
    sections: dict[str, Any] = {
        "retrieve_bm25": {"k1": 1.5, "b": 0.75, "depth": 3},
        "retrieve_dense": {
            "model": {"kind": "files", "path": "dense"},
            "query_prompt": "",
            "max_tokens": 16,
            "depth": 3,
        },
        "rerank": {
            "kind": kind,
            "model": {"kind": "files", "path": str(model)},
            "depth": 2,
            "queries_per_task": 1,
            "doc_tokens": 20,
            "query_tokens": 10,
            "tokens_per_batch": 64,
        },
    }
    Path("params.yaml").write_text(yaml.safe_dump(sections), encoding="utf-8")


@pytest.mark.parametrize(("kind", "unit"), [("cross_encoder", "logit"), ("query_likelihood", "log probability")])
def test_stages_run_twice_with_the_same_bytes(project: Path, tiny_checkpoint: Path, kind: str, unit: str) -> None:
    model = save_cross_encoder(project / "cross", 1) if kind == "cross_encoder" else tiny_checkpoint
    write_params(kind, model)
    outputs = [*retrieve_bm25.OUTPUTS, *retrieve_dense.OUTPUTS, *rerank.OUTPUTS]
    contents = []
    for _ in range(2):
        for stage in (retrieve_bm25, retrieve_dense, rerank):
            stage.main()
        contents.append([path.read_bytes() for path in outputs])
    assert contents[0] == contents[1]
    described = io.read_json(io.sidecar(rerank.RUN))
    assert described["unit"].startswith(unit)
    assert described["teacher"] == str(model)
    assert io.read_json(rerank.METRICS)["queries"] == 2


def test_a_missing_run_is_named(project: Path, tiny_checkpoint: Path) -> None:
    write_params("query_likelihood", tiny_checkpoint)
    with pytest.raises(InputError, match=r"data/bm25_run.parquet does not exist; make it with: dvc repro"):
        rerank.main()
