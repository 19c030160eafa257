"""The model card: what the hub reads of it, every source with its licence, and energy by its formula."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from sentence_transformers import SentenceTransformer

from anna.modeling.encoder import Encoder
from anna.modeling.export import export
from anna.reporting import card
from anna.reporting.gather import Facts
from stages import report
from tests.reporting.conftest import HOSTILE
from tests.test_contracts import PARAM_FILES, REPO


def made(file: str = "params.yaml") -> card.Made:
    tree = yaml.safe_load((REPO / file).read_text(encoding="utf-8"))
    example = {"query": "q", "response": "r"}
    prompts = {name: {**prompt, "examples": []} for name, prompt in tree["prompts"]["tasks"].items()}
    if "IMDB" in prompts:
        prompts["IMDB"]["examples"] = prompts["STSBenchmark"]["examples"] = [example]
    encoder = {"layers": None, "pooling": "last_token", "attention": "causal", "max_tokens": 512, "tasks": prompts}
    config = {"architectures": ["MistralModel"], "num_hidden_layers": 32, "hidden_size": 4096}
    return card.Made({name: tree[name] for name in card.SECTIONS}, encoder, config)


def scored(facts: Facts, **changes: Any) -> card.Scored:
    first = {"groups": 3000, "epochs": 6, "steps": 90, "loss_first_tenth": 7.5, "loss_last_tenth": 4.25}
    training = {"last_layer_first": first, "queries": 3330, "steps": 105, "tokens": 234312}
    base = card.Scored(
        facts.tasks,
        facts.leaderboard,
        facts.contamination,
        training,
        facts.params["evaluate"],
        facts.costs,
        facts.sizes,
    )
    return base._replace(**changes)


def metadata(text: str) -> dict[str, Any]:
    """Return the front matter, as a reader of YAML sees it."""
    assert text.startswith("---\n")
    found: dict[str, Any] = yaml.safe_load(text.split("\n---\n", 1)[0].removeprefix("---\n"))
    return found


@pytest.mark.parametrize("file", PARAM_FILES)
def test_every_training_source_stands_with_its_revision_and_licence(file: str) -> None:
    of = made(file)
    text = card.render(of)
    for source in of.sections["ingest"]["train"]:
        row = f"| {source['task']} | {source['kind']} | {card.named(source['origin'])} |"
        line = next(line for line in text.splitlines() if line.startswith(row))
        assert line.endswith(f"| {source.get('licence') or '**not stated**'} |")
    for teacher in ("retrieve_dense", "rerank"):
        assert f"| {card.named(of.sections[teacher]['model'])} |" in text
    assert f"| learning_rate | {of.sections['train']['learning_rate']} |" in text
    assert ("| lora.rank |" in text) == (of.sections["train"]["method"] == "lora")
    assert "\n\n\n" not in text
    assert "Not scored yet" in text


def test_distractors_are_trained_on_and_named_too() -> None:
    of = made("presets/mistral-7b.yaml")
    origin = {"kind": "hub", "repo": "owner/corpus", "revision": "0" * 40}
    part = {"origin": origin, "columns": {"doc": "text"}, "licence": "CC0", "rows": 1000}
    first = of.sections["ingest"]["train"][0]
    first["distractors"] = [part]
    text = card.render(of)
    assert f"| {first['task']} | distractors | owner/corpus@{'0' * 12} | 1,000 at most | CC0 |" in text
    assert "owner/corpus" in metadata(text)["datasets"]


def test_it_says_which_versions_compute_it() -> None:
    causal = made()
    both_sides = causal._replace(encoder={**causal.encoder, "attention": "bidirectional"})
    assert "\n| loads in | sentence-transformers from 3.4 and transformers from 4.48 on," in card.render(causal)
    assert "\n| loads in | transformers from 5.2 on |\n" in card.render(both_sides)


def test_it_says_what_the_last_layer_began_as() -> None:
    default, paper = card.render(made()), card.render(made("presets/mistral-7b.yaml"))
    assert "\n| last layer before training | EOS as a weighted, whitened mean of its text |\n" in default
    assert "\n| last layer before training | as in the base model |\n" in paper


@pytest.mark.parametrize("file", PARAM_FILES)
def test_it_says_what_texts_it_was_trained_on(file: str) -> None:
    assert "\n\nGive texts as in training: Unicode NFC, no control" in card.render(made(file))


def test_no_language_is_claimed_of_texts_that_users_bring() -> None:
    text = card.render(made())
    assert "language" not in metadata(text)
    assert "English" not in text


def test_the_hub_reads_base_model_and_data_sets_where_they_are_its_own() -> None:
    data = metadata(card.render(made("presets/mistral-7b.yaml")))
    assert data["base_model"] == "mistralai/Mistral-7B-v0.1"
    assert data["datasets"][0] == "cfli/bge-full-data"
    assert len(data["datasets"]) == len(set(data["datasets"]))
    wheels = metadata(card.render(made()))
    assert "base_model" not in wheels
    assert "datasets" not in wheels
    assert "model-index" not in wheels


def test_examples_that_ship_inside_the_prompts_name_their_own_source() -> None:
    text = card.render(made())
    part = text.split("as in-context examples:")[1].split("## Teachers")[0]
    assert [line.split(" | ")[0] for line in part.splitlines() if line.startswith("| ")][1:] == [
        "| STSBenchmark",
        "| IMDB",
    ]
    assert "sts-dev.csv" in part, "the examples' own file, not that of the rows scored"
    assert "| research use |" in part


def test_the_hubs_own_reader_finds_the_scores(facts: Facts) -> None:
    benchmark = {**facts.leaderboard, "benchmark": "MTEB(eng, v2)"}
    text = card.render(made(), scored(facts, leaderboard=benchmark))
    results = ModelCard(text).data.eval_results
    assert results
    assert {(r.dataset_type, r.metric_type, r.metric_value) for r in results} == {
        (task, of["metric"], round(100 * of["score"], 3)) for task, of in facts.tasks["student"].items()
    }
    assert {r.dataset_name for r in results} == {f"MTEB {task}" for task in facts.tasks["student"]}
    assert "mteb" in metadata(text)["tags"]
    assert "chosen with the scores of BoolQ and STSBenchmark in sight" in text, "it is STS Benchmark's own test split"


def test_held_out_samples_are_not_passed_off_as_mtebs_tasks(facts: Facts) -> None:
    text = card.render(made(), scored(facts))
    results = metadata(text)["model-index"][0]["results"]
    assert {result["dataset"]["name"] for result in results} == {
        f"{task} (held-out sample)" for task in facts.tasks["student"]
    }
    assert "mteb" not in metadata(text)["tags"]
    assert "Leaderboard: not ranked" in text
    assert "chosen with the scores of BoolQ and STSBenchmark in sight" in text
    assert "Zero-shot share, by mteb's rule: 87 %." in text
    assert "Rows of the same source were trained on under another name: HPOSynonyms." in text


def test_texts_of_the_data_stay_within_their_cell(facts: Facts) -> None:
    text = card.render(made(), scored(facts))
    assert f"| {HOSTILE}" not in text
    assert "| &lt;b>x & $y$ | Classification | accuracy | 4 | – |" in text  # noqa: RUF001
    assert "scored of PrivacyQA (49) and &lt;b>x & $y$ (4): " in text
    assert card.cell("a | b\nc\\") == "a \\| b c\\\\"


def test_each_score_stands_with_its_rows_and_documents_where_they_are_known(facts: Facts) -> None:
    text = card.render(made(), scored(facts))
    assert "\n| task | type | metric | scored | docs | instruction alone | with examples |\n" in text
    assert "\n|---|---|---|---|---|---|---|\n" in text
    student = facts.tasks["student"]["BoolQ"]["score"]
    assert f"\n| BoolQ | Retrieval | ndcg at 10 | 300 | 5,050 | {100 * student:.2f} |" in text
    unknown = card.render(made(), scored(facts, sizes={}))
    assert f"\n| BoolQ | Retrieval | ndcg at 10 | {100 * student:.2f} |" in unknown
    assert "Fewer than 50 rows" not in unknown
    assert "\n\n\n" not in text
    assert "\n\n\n" not in unknown


def test_its_lines_cut_texts_as_they_were_scored(tiny_encoder: Encoder, tmp_path: Path, facts: Facts) -> None:
    export(tiny_encoder, tmp_path / "model")
    model = SentenceTransformer(str(tmp_path / "model"), device="cpu", local_files_only=True)
    tasks = {"student": {"Capitals": {"type": "Retrieval", "metric": "ndcg_at_10", "score": 0.5}}}
    text = card.render(made(), scored(facts, tasks=tasks, evaluate={"max_tokens": 3}))
    lines = text[text.index("model.max_seq_length = ") :].split("\n```", 1)[0].split("\n", 1)
    long = ["Paris is a capital of many rivers and mountains"]
    for line, prefix in zip(lines, ("", tiny_encoder.config.prefix("Capitals")), strict=True):
        exec(line, {"model": model})
        expected = tiny_encoder.encode(long, prefix=prefix, max_tokens=3, tokens_per_batch=512)
        whole = tiny_encoder.encode(long, prefix=prefix, max_tokens=32, tokens_per_batch=512)
        got = model.encode(long, prompt=prefix)
        assert got == pytest.approx(expected, abs=1e-5)
        assert not np.allclose(got, whole, atol=1e-3), "nothing was cut"


def test_standings_are_told_where_there_are_any(facts: Facts) -> None:
    standing = {"rank": 7, "of": 184, "mean_by_task": 0.7412, "mean_by_type": 0.684}
    ranked = {
        "benchmark": "MTEB(eng, v2)",
        "notes": ["ranked on all"],
        "standings": {"student": standing},
        "around": [],
    }
    text = card.render(made(), scored(facts, leaderboard=ranked))
    assert "`student`: Borda rank 7 of 184, mean by task 74.12, mean by type 68.40." in text


def test_energy_is_hours_times_power_and_unknown_without_a_power(facts: Facts) -> None:
    gpu = {"seconds": 7200.0, "cpus": 64, "gpus": ["NVIDIA H200"] * 8, "gpu_watts": 5600}
    costs = {"label": {"seconds": 60.0, "cpus": 64}, "rerank": gpu, "train": {**gpu, "machines": 2}}
    used = card.energy(costs)
    assert used is not None
    assert used.hours == pytest.approx(16 + 32)
    assert used.kwh == pytest.approx(11.2 + 22.4)
    assert used.kg == pytest.approx(33.6 * 0.445)
    text = card.render(made(), scored(facts, costs=costs))
    assert "At most 33.60 kWh and 14.95 kg of carbon dioxide" in text
    assert "| train | 2 h 00 min | 2 x 64 CPUs, 8 x NVIDIA H200 |" in text
    assert card.energy(facts.costs) is None
    assert "not estimated, no power figure of this hardware is known" in card.render(made(), scored(facts))


def test_the_report_writes_the_card_of_the_run(finished_run: Path) -> None:
    report.main()
    text = report.CARD.read_text(encoding="utf-8")
    student = json.loads(report.FILES.tasks.read_text())["student"]["zero_shot"]["BoolQ"]["score"]
    assert f"| BoolQ | Retrieval | ndcg at 10 | 300 | 5,050 | {100 * student:.2f} |" in text
    assert "3,330 queries, 105 optimizer steps, 234,312 tokens computed." in text
    assert 'prompt_name="BoolQ"' in text
    assert "find \\| answers" in text


def test_the_same_facts_give_the_same_card(facts: Facts) -> None:
    assert card.render(made(), scored(facts)) == card.render(made(), scored(facts))
