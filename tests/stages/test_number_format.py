"""Both model stages in bfloat16, which this machine may only emulate: what is written, and what is refused."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from transformers import BertForSequenceClassification

from anna import io, schemas
from anna.errors import InputError
from anna.modeling.checkpoint import load_causal_lm
from anna.teachers import bi_encoder, cross_encoder, query_likelihood
from anna.teachers.reranker import Kind
from stages import rerank, retrieve_dense
from tests.stages.test_kills import OUTPUTS, write_project
from tests.stages.test_processes import use
from tests.test_cluster import cluster

__all__ = ["cluster"]

KINDS: list[Kind] = ["cross_encoder", "query_likelihood"]


class Ranked(NamedTuple):
    """A candidate of a query, and the score that a stage gave it."""

    query: str
    doc: str
    score: float


def compute_in(dtype: str, **more: Any) -> None:
    """Change params.yaml for both stages."""
    text = Path("params.yaml").read_text().replace("dtype: float32", f"dtype: {dtype}")
    for name, value in more.items():
        before = {"check_queries": 2, "min_spearman": 0.9}[name]
        text = text.replace(f"{name}: {before}", f"{name}: {value}")
    Path("params.yaml").write_text(text)


def first_queries(path: Path) -> dict[str, list[Ranked]]:
    """Return the candidates in a run of the two queries whose ids have the lowest hashes, by query."""
    texts = {row["doc_id"]: row["text"] for row in io.read(rerank.CORPUS, schemas.CORPUS).to_pylist()}
    asked = {row["query_id"]: row["text"] for row in io.read(rerank.QUERIES, schemas.QUERIES).to_pylist()}
    found: dict[str, list[Ranked]] = {"A:q:006": [], "A:q:053": []}
    for row in io.read(path, schemas.RUN).to_pylist():
        if row["query_id"] in found:
            found[row["query_id"]].append(Ranked(asked[row["query_id"]], texts[row["doc_id"]], row["score"]))
    return found


def in_float32(kind: Kind | str, model: Path, rows: list[Ranked]) -> list[float]:
    """Return the scores of a query's candidates by the model alone, without store or engine."""
    pairs = [(row.query, row.doc) for row in rows]
    if kind == "dense":
        encoder = bi_encoder.load_model(model, 16)
        query, *docs = bi_encoder.encode_batch(encoder, [rows[0].query, *(row.doc for row in rows)], "")
        return [float(query @ doc) for doc in docs]
    if kind == "cross_encoder":
        return cross_encoder.score_batch(cross_encoder.load_cross_encoder(model, 32), pairs).tolist()
    return query_likelihood.score_batch(*load_causal_lm(model), pairs, doc_tokens=20, query_tokens=12).tolist()


def by_hand(kind: Kind | str, model: Path, run: Path) -> dict[str, Any]:
    """Return what metrics must say: the correlation of mean ranks, query by query."""
    found = [
        np.corrcoef(rankdata([row.score for row in rows]), rankdata(in_float32(kind, model, rows)))[0, 1]
        for rows in first_queries(run).values()
    ]
    assert len(found) == 2
    return {"mean": pytest.approx(np.mean(found)), "lowest": pytest.approx(min(found)), "queries": 2}


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_hold_the_correlation_with_float32(
    kind: Kind, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path, kind, tiny_checkpoint)
    compute_in("bfloat16", min_spearman=-1.0)
    retrieve_dense.main()
    rerank.main()
    model = tmp_path / "cross" if kind == "cross_encoder" else tiny_checkpoint
    dense = by_hand("dense", tmp_path / "dense" / "model", retrieve_dense.RUN)
    assert io.read_json(retrieve_dense.METRICS)["spearman_float32"] == dense
    assert io.read_json(rerank.METRICS)["spearman_float32"] == by_hand(kind, model, rerank.RUN)


@pytest.mark.parametrize("kind", KINDS)
def test_float32_compares_nothing_and_gives_what_a_run_without_the_check_gives(
    kind: Kind, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path, kind, tiny_checkpoint)
    counts = [retrieve_dense.main(), rerank.main()]
    tables = [path.read_bytes() for path in OUTPUTS]
    assert "spearman_float32" not in io.read_json(retrieve_dense.METRICS) | io.read_json(rerank.METRICS)
    (tmp_path / "runs").rename(tmp_path / "before")
    compute_in("float32", check_queries=0)
    assert [retrieve_dense.main(), rerank.main()] == counts
    assert [path.read_bytes() for path in OUTPUTS] == tables


def test_what_was_compared_is_in_the_store_and_costs_nothing_again(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path, "cross_encoder", tiny_checkpoint)
    compute_in("bfloat16", min_spearman=-1.0)
    counts = [retrieve_dense.main(), rerank.main()]
    written = [path.read_bytes() for path in OUTPUTS]
    texts = {text for rows in first_queries(retrieve_dense.RUN).values() for row in rows for text in row[:2]}
    assert counts[0]["computed"] == 330 + len(texts)
    pairs = sum(len(rows) for rows in first_queries(rerank.RUN).values())
    assert counts[1]["computed"] == io.read_json(rerank.METRICS)["pairs"] + pairs
    assert [stage.main()["computed"] for stage in (retrieve_dense, rerank)] == [0, 0]
    assert [path.read_bytes() for path in OUTPUTS] == written


def test_a_model_whose_scores_bfloat16_cannot_tell_apart_is_refused_and_nothing_is_written(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path, "cross_encoder", tiny_checkpoint)
    model = BertForSequenceClassification.from_pretrained(tmp_path / "cross")
    with torch.no_grad():
        model.classifier.bias.fill_(1e4)  # bfloat16 has 8 bits: about 1e4 its steps are 64
    model.save_pretrained(tmp_path / "cross")
    retrieve_dense.main()
    rerank.main()
    rerank.RUN.unlink()
    rerank.METRICS.unlink()
    compute_in("bfloat16")
    expected = (
        r"^rerank.min_spearman is 0.9, but over 2 queries the order of candidates in bfloat16 has a mean rank "
        r"correlation of 0.0000 with that in float32; set rerank.dtype: float32$"
    )
    with pytest.raises(InputError, match=expected):
        rerank.main()
    assert not rerank.RUN.exists()
    assert not rerank.METRICS.exists()


def test_the_dense_teacher_is_held_to_its_own_limit(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path, "cross_encoder", tiny_checkpoint)
    compute_in("bfloat16", check_queries=60, min_spearman=1.0)
    with pytest.raises(InputError, match=r"^retrieve_dense.min_spearman is 1.0, but over .* set retrieve_dense.dtype"):
        retrieve_dense.main()
    assert not any(path.exists() for path in retrieve_dense.OUTPUTS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_cluster_writes_and_compares_the_same(
    kind: Kind, cluster: Any, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path, kind, tiny_checkpoint)
    compute_in("bfloat16", min_spearman=-1.0)
    counts = [retrieve_dense.main(), rerank.main()]
    expected = [path.read_bytes() for path in OUTPUTS]
    (tmp_path / "runs").rename(tmp_path / "before")
    use("ray", 2)
    assert [retrieve_dense.main(), rerank.main()] == counts
    assert [path.read_bytes() for path in OUTPUTS] == expected
