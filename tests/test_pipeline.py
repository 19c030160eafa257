"""All ten stages, in order, on a toy corpus and tiny real models."""

import hashlib
import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Pooling, Transformer

from anna import log
from anna.errors import InputError
from anna.params import STAGES
from anna.training import checks
from stages import train
from tests.conftest import save_tiny
from tests.toy import write_toy_project

REPO = Path(__file__).parents[1]


def toy_params(folder: Path) -> dict[str, Any]:
    """The committed params with toy sources, tiny models and a few steps."""
    params: dict[str, Any] = yaml.safe_load((REPO / "params.yaml").read_text(encoding="utf-8"))
    save_tiny(folder / "causal")
    save_dense(folder / "causal", folder / "dense")
    causal = {"kind": "files", "path": str(folder / "causal")}
    params["ingest"] = write_toy_project(folder / "sources")
    params["retrieve_dense"]["model"] = {"kind": "files", "path": str(folder / "dense")}
    params["rerank"].update(model=causal, kind="query_likelihood", queries_per_task=10)
    params["label"].update(min_entropy_share=0.0, max_entropy_share=1.0)
    params["filter"].update(rule="adaptive", margin=0.01)
    params["student"].update(model=causal, layers=2)
    params["train"].update(batch_queries=6, epochs=1, max_steps=6, dtype="float32")
    sources = [source for part in ("train", "held_out") for source in params["ingest"][part]]
    kinds = {source["task"]: source.get("kind") or source["type"] for source in sources}
    tasks = {
        task: {"instruction": "retrieve similar text", "symmetric": kind not in checks.BARE}
        for task, kind in sorted(kinds.items())
    }
    params["prompts"] = {"max_tokens": 400, "example_tokens": 8, "tasks": tasks}
    params["evaluate"].update(benchmark="held_out", tasks=None, dtype="float32")
    return params


def save_dense(causal: Path, folder: Path) -> None:
    """Write a tiny sentence-transformers model over the tiny decoder's weights."""
    transformer = Transformer(str(causal), max_seq_length=128)
    SentenceTransformer(modules=[transformer, Pooling(32, pooling_mode="mean")], device="cpu").save(str(folder))


def digests(folder: Path) -> dict[str, str]:
    """Return the sha256 of every table and metric, costs apart, and of the exported model."""
    files = [*folder.glob("data/**/*.parquet"), *folder.glob("data/**/*.json"), *folder.glob("metrics/*.*")]
    files += folder.glob("models/sentence-transformer/*.*")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder after one run of every stage."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "params.yaml").write_text(yaml.safe_dump(toy_params(folder / "inputs")), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in STAGES:
            importlib.import_module(f"stages.{name}").main()
            log.write_cost(name, seconds=1.0)
    return folder


def test_every_output_is_there(project: Path) -> None:
    for name in STAGES:
        for path in importlib.import_module(f"stages.{name}").OUTPUTS:
            assert (project / path).exists(), f"{name} did not write {path}"


def test_the_seven_categories_are_scored(project: Path) -> None:
    metrics = json.loads((project / "metrics/mteb.json").read_text())
    categories = set(metrics["student"]) - {"mean"}
    assert categories == {
        "Classification",
        "Clustering",
        "PairClassification",
        "Reranking",
        "Retrieval",
        "STS",
        "Summarization",
    }
    assert {"untrained", "teacher", "bm25"} <= set(metrics)


def test_plain_sentence_transformers_loads_the_result(project: Path) -> None:
    model = SentenceTransformer(str(project / "models/sentence-transformer"), device="cpu", local_files_only=True)
    assert model.encode(["a text"]).shape == (1, 32)


def test_the_model_carries_a_card_and_the_run_the_same_with_scores(project: Path) -> None:
    params = yaml.safe_load((project / "params.yaml").read_text())
    bare = (project / "models/sentence-transformer/README.md").read_text()
    scored = (project / "reports/model_card.md").read_text()
    for task in (source["task"] for source in params["ingest"]["train"]):
        assert f"\n| {task} | " in bare
    assert "Not scored yet" in bare
    lines = scored.splitlines()
    assert [line for line in bare.splitlines() if line.startswith("| base model")] == [
        line for line in lines if line.startswith("| base model")
    ]
    value = json.loads((project / "metrics/mteb_tasks.json").read_text())["student"]["zero_shot"]
    for task, of in value.items():
        assert any(
            line.startswith(f"| {task} | {of['type']} |") and f"{100 * of['score']:.2f}" in line for line in lines
        )


@pytest.mark.usefixtures("project")
def test_the_same_params_give_the_same_bytes(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = digests(project)
    assert len(first) > 25
    monkeypatch.chdir(project)
    for name in STAGES[:-1]:
        importlib.import_module(f"stages.{name}").main()
    assert digests(project) == first


def test_bare_documents_of_a_task_that_is_scored_with_prompts_are_not_trained_on(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    params = Path("params.yaml").read_text(encoding="utf-8")
    changed = yaml.safe_load(params)
    changed["prompts"]["tasks"]["Pairs"]["symmetric"] = False
    Path("params.yaml").write_text(yaml.safe_dump(changed), encoding="utf-8")
    with pytest.raises(InputError, match=r"prompts.tasks.Pairs.symmetric is false, but the task is sts, of which all"):
        train.main()
    Path("params.yaml").write_text(params, encoding="utf-8")
