"""The whole mistral-7b preset at tiny size: its own params through every stage, sizes alone overridden."""

import csv
import importlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import mteb
import pytest
import yaml
from sentence_transformers import SentenceTransformer

from anna import io, log, schemas
from anna.params import STAGES
from anna.ranks import TOLD
from tests.preset_hub import write_hub

REPO = Path(__file__).parents[1]

TASKS = [
    "ArguAna",
    "AskUbuntuDupQuestions",
    "Banking77Classification",
    "STS17",
    "STSBenchmark",
    "SprintDuplicateQuestions",
    "StackExchangeClusteringP2P.v2",
    "SummEvalSummarization.v2",
]
"""One task or two of each category; tests/evaluation/test_benchmark.py has all 41."""

SIZES: dict[str, dict[str, Any]] = {
    "ingest": {"validation_share": 0.2},
    "train": {
        "zero_stage": 3,
        "processes": 2,
        "dtype": "bfloat16",
        "batch_queries": 6,
        "max_steps": 4,
        "max_micro_step_tokens": 300,
        "warmup_steps": 1,
        "checkpoint_steps": 3,
        "validation_steps": 3,
        "validation_queries": 6,
    },
    "export": {"check_texts": 8},
    "evaluate": {"tasks": TASKS, "dtype": "bfloat16"},
}
"""What differs from the preset: rows are those of the tiny data, and tokens of a batch are fewer."""

pytestmark = pytest.mark.slow


def tiny_params() -> dict[str, Any]:
    """Return the preset with the sizes of a test."""
    params: dict[str, Any] = yaml.safe_load((REPO / "presets/mistral-7b.yaml").read_text(encoding="utf-8"))
    for section, sizes in SIZES.items():
        assert set(sizes) <= set(params[section])
        params[section] |= sizes
    return params


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder after every stage of the preset."""
    folder = tmp_path_factory.mktemp("preset")
    params = tiny_params()
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    (folder / "presets").symlink_to(REPO / "presets")  # of the examples written by hand
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANNA_HUB_DIR", str(folder / "hub"))
        patch.setenv("PYTHONPATH", str(REPO))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setattr("datasets.config.HF_DATASETS_CACHE", str(folder / "cache"))
        for name in TOLD:
            patch.delenv(name, raising=False)
        patch.chdir(folder)
        write_hub(folder / "hub", params, TASKS)
        for name in STAGES:
            importlib.import_module(f"stages.{name}").main()
            log.write_cost(name, seconds=1.0)
    return folder


def test_every_source_and_every_example_of_the_preset_is_read(project: Path) -> None:
    params = tiny_params()
    metrics = json.loads((project / "metrics/ingest.json").read_text())
    assert set(metrics["train"]) == {source["task"] for source in params["ingest"]["train"]}
    examples = io.read(project / "data/eval/examples.parquet", schemas.EXAMPLES).to_pylist()
    counts = Counter(row["task"] for row in examples)
    assert set(counts) == {task.metadata.name for task in mteb.get_benchmark("MTEB(eng, v2)").tasks}
    written = {source["task"] for source in params["ingest"]["examples"] if source["origin"]["kind"] == "files"}
    assert {name: counts[name] for name in written} == dict.fromkeys(written, 5)
    config = json.loads((project / "models/encoder/encoder.json").read_text())
    assert set(config["tasks"]) == set(params["prompts"]["tasks"])
    shown = {(row["task"], row["position"]): (row["query"], row["response"]) for row in examples}
    carried = {(name, n): texts for name, task in config["tasks"].items() for n, texts in enumerate(task["examples"])}
    assert set(carried) == set(shown)
    for place, texts in carried.items():  # cut after prompts.example_tokens, of which a tiny tokenizer needs more
        assert all(text and whole.startswith(text) for text, whole in zip(texts, shown[place], strict=True)), place


def test_two_ranks_of_zero_3_trained_adapters_in_micro_steps(project: Path) -> None:
    metrics = json.loads((project / "metrics/train.json").read_text())
    assert metrics["steps"] == 4
    assert metrics["relative_update"] > 0
    assert (project / "models/encoder/adapter/adapter_model.safetensors").is_file()
    with (project / "metrics/training.csv").open() as file:
        tokens = [int(row["tokens"]) for row in csv.DictReader(file)]
    assert min(tokens) / 2 > SIZES["train"]["max_micro_step_tokens"], "no batch was cut"


def test_the_export_is_a_plain_mistral_that_sentence_transformers_loads(project: Path) -> None:
    folder = project / "models/sentence-transformer"
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["MistralModel"]
    assert (config["sliding_window"], config["num_key_value_heads"]) == (4096, 2)
    assert "auto_map" not in config
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    ids = model.tokenizer(["an otter"])["input_ids"][0]
    assert (ids[0], ids[-1]) == (model.tokenizer.bos_token_id, model.tokenizer.eos_token_id)
    assert model.encode(["an otter"], prompt_name="ArguAna+examples").shape == (1, 64)


def test_every_contender_is_scored_on_the_benchmarks_own_tasks(project: Path) -> None:
    detail = json.loads((project / "metrics/mteb_tasks.json").read_text())
    assert set(detail) == {"student", "untrained", "teacher", "bm25"}
    assert set(detail["student"]) == {"zero_shot", "with_examples"}
    for model in ("student", "untrained", "teacher"):
        assert set(detail[model]["zero_shot"]) == set(TASKS)
    assert set(detail["bm25"]["zero_shot"]) == {"ArguAna"}
    revision = mteb.get_task("ArguAna").metadata.dataset["revision"]
    result = json.loads((project / "reports/mteb/anna__student/zero_shot/ArguAna.json").read_text())
    assert result["dataset_revision"] == revision
    assert (project / "reports/index.html").stat().st_size > 1000
