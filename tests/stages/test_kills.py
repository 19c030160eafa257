"""SIGKILL at random moments, again and again: in the end the tables are those of a run that nobody disturbed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from anna import io, schemas
from anna.teachers.reranker import Kind
from stages import rerank, retrieve_bm25, retrieve_dense
from tests.stages.test_retrieve_and_rerank import write_params
from tests.teachers.conftest import table
from tests.teachers.models import WORDS, save_bi_encoder, save_cross_encoder

REPO = Path(__file__).parents[2]
OUTPUTS = [*retrieve_dense.OUTPUTS, *rerank.OUTPUTS]


def write_project(folder: Path, kind: Kind, causal: Path) -> None:
    """Write a project whose two stages have dozens of batches to compute, and whose documents are searched by index."""
    rng = np.random.default_rng(0)
    texts = list(dict.fromkeys(" ".join(rng.choice(WORDS, size=1 + n % 7)) for n in range(420)))
    docs, asked = texts[:270], texts[270:330]
    corpus = [(f"A:d:{place:03}", "A", text, None) for place, text in enumerate(docs)]
    queries = [(f"A:q:{place:03}", "A", "retrieval", "train", text, None) for place, text in enumerate(asked)]
    qrels = [(f"A:q:{place:03}", f"A:d:{place:03}", 1) for place in range(len(asked))]
    os.chdir(folder)
    io.write(rerank.CORPUS, table(schemas.CORPUS, corpus), schemas.CORPUS)
    io.write(rerank.QUERIES, table(schemas.QUERIES, queries), schemas.QUERIES)
    io.write(rerank.QRELS, table(schemas.QRELS, qrels), schemas.QRELS)
    save_bi_encoder(folder / "dense")
    write_params(kind, save_cross_encoder(folder / "cross") if kind == "cross_encoder" else causal)
    params = Path("params.yaml").read_text().replace("queries_per_task: 1", "queries_per_task: 60")
    Path("params.yaml").write_text(params)
    retrieve_bm25.main()


def check(folder: Path, kind: Kind, causal: Path, kills: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    write_project(folder, kind, causal)
    for stage in (retrieve_dense, rerank):
        stage.main()
    expected = [path.read_bytes() for path in OUTPUTS]
    for path in OUTPUTS:
        path.unlink()
    (folder / "runs").rename(folder / "undisturbed")
    done = subprocess.run(
        [sys.executable, "-m", "tests.stages.kills", str(folder), str(kills), "0", "retrieve_dense", "rerank"],
        cwd=REPO,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [path.read_bytes() for path in OUTPUTS] == expected
    for reused, computed in json.loads(done.stdout).values():
        assert reused > 0
        assert computed > 0
    assert not list(folder.rglob("*.damaged"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cross_encoder", "query_likelihood"])
def test_twenty_kills(kind: Kind, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(tmp_path, kind, tiny_checkpoint, 20, monkeypatch)


def test_two_kills(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(tmp_path, "cross_encoder", tiny_checkpoint, 2, monkeypatch)
