"""Every fault of params.yaml is told before anything runs, all of them at once."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from anna import check, cli, io
from anna.errors import InputError
from anna.params import SECTIONS
from tests.modeling.test_families import SIZES, save
from tests.test_contracts import PARAM_FILES, REPO

LONG = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}

PROMPT = {"instruction": "Find it.", "symmetric": False}


def write(tmp_path: Path, changes: Mapping[str, Any], file: str = "params.yaml") -> Path:
    """Write `file` with some keys changed, each named by its dotted path."""
    tree = yaml.safe_load((REPO / file).read_text(encoding="utf-8"))
    for place, value in changes.items():
        *parents, last = [int(part) if part.isdigit() else part for part in place.split(".")]
        part = tree
        for parent in parents:
            part = part[parent]
        part[last] = value
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as refused:
        check.check(path)
    return str(refused.value)


@pytest.mark.parametrize("file", PARAM_FILES)
def test_params_and_presets_are_right(file: str) -> None:
    check.check(REPO / file)


def test_every_section_is_checked() -> None:
    assert {cls.section for cls in check.sections()} == set(SECTIONS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.batch_queries": 0}, "train.batch_queries: got 0: Input should be greater than or equal to 2"),
        ({"student.model": {"path": "model"}}, "student.model: has no 'kind'; add it"),
        ({"train.processes": 0}, "train.processes: got 0: Input should be greater than 0"),
        ({"retrieve_dense.index": {}}, "retrieve_dense.index.min_docs: missing; add it"),
        (
            {"ingest.train.0.kind": "retreival"},
            "ingest.train.0 (BoolQ).kind: got 'retreival': Input should be 'retrieval', ",
        ),
        ({"rerank.kind": "retreival"}, "rerank.kind: got 'retreival': Input should be "),
        (
            {"ingest.held_out.0.type": "retrieval"},
            "ingest.held_out.0 (BoolQ).type: got 'retrieval': Input should be 'Retrieval'",
        ),
        ({"train": []}, "train: got []: Input should be a valid dictionary"),
        ({"ingest.train": []}, "ingest.train: got []: Tuple should have at least 1 item"),
        ({"ingest.validation_share": 2}, "ingest.validation_share: got 2: Input should be less than 1"),
        ({"student.layers": 0}, "student.layers: got 0: Input should be greater than 0"),
        ({"train.epoch": 1}, "train.epoch: unknown key (did you mean 'epochs'?); remove or rename it"),
        ({"prompts.tasks.BoolQ": {}}, "prompts.tasks.BoolQ.instruction: missing; add it"),
        (
            {"prompts.tasks.BoolQ-document": PROMPT},
            "prompts.tasks: a task is called 'BoolQ-document', but the exported model has",
        ),
        ({"prompts.tasks.query": PROMPT}, "prompts.tasks: a task is called 'query', but the exported model has"),
        (
            {"ingest.held_out": []},
            "evaluate.benchmark is 'held_out', but ingest.held_out declares no task; declare one there, or name one of "
            "mteb's benchmarks",
        ),
        (
            {"ingest.examples_per_task": 0},
            "evaluate.with_examples is true, but ingest.examples_per_task is 0; raise that, or set it to false",
        ),
        (
            {"ingest.held_out.1.task": "BoolQ"},
            "ingest: ingest.held_out has two tasks named 'BoolQ'; rename one",
        ),
        (
            {"ingest.train.0.task": "TREC"},
            "ingest: ingest.train: task 'TREC' is both retrieval and classification; rename one",
        ),
        ({"label.weights.dense": float("inf")}, "label.weights.dense: got inf: Input should be a finite number"),
        ({"ingest.train.4.positive_at": float("nan")}, "ingest.train.4 (STSBenchmark).positive_at: got nan: Input"),
        (
            {"rerank.kind": "cross_encoder", "rerank.doc_tokens": 65},
            "rerank: doc_tokens and query_tokens make 97 tokens, but a cross-encoder needs a multiple of 16; ",
        ),
        (
            {"retrieve_dense.index.min_docs": 100},
            "retrieve_dense.index: min_docs is 100, but an index is learnt from 256 documents and nlist ",
        ),
        ({"train.keep": "best", "train.validation_steps": None}, "train.keep: got 'best': there is one validation at "),
        ({"train.keep": "best", "train.validation_queries": 0}, "train.keep: got 'best': there is one validation at "),
        (
            {"train.keep": "best", "train.validation_steps": 50, "train.max_steps": 50},
            "train.keep: got 'best': there is one validation alone to choose by, after the last of 50 steps; set ",
        ),
        (
            {"train.method": "lora", "train.last_layer_first": None},
            "student.last_layer is weighted_mean, which needs train.method full, but that is lora; set ",
        ),
        (
            {"student.pooling": "mean"},
            "student.last_layer is weighted_mean, which needs student.pooling last_token, but that is mean; set ",
        ),
        (
            {"student.attention": "bidirectional"},
            "student.last_layer is weighted_mean, which needs student.attention causal, but that is bidirectional; set",
        ),
        (
            {"student.pooling": "mean", "student.last_layer": "pretrained"},
            "train.last_layer_first is for students read at their last token, but student.pooling is mean; set ",
        ),
        ({"train.gradient_checkpointing": 9}, "train.gradient_checkpointing is 9, but the student has 6 layers; set "),
        (
            {"train.processes": 9},
            "train.batch_queries is 16, but train.processes is 9, and each needs a query of every batch, ",
        ),
        (
            {"train.doc_tokens": 600},
            "train.doc_tokens is 600, but prompts.max_tokens, the longest input, is 512; lower the one, or raise ",
        ),
        (
            {"evaluate.max_tokens": 600},
            "evaluate.max_tokens is 600, and a prompt comes before it, but prompts.max_tokens, the longest input, is ",
        ),
        (
            {"train.query_tokens": 512},
            "train.query_tokens is 512, and a prompt comes before it, but prompts.max_tokens, the longest input, is ",
        ),
        (
            {"evaluate.tasks": ["BoolQQ"]},
            "evaluate.tasks: 'BoolQQ' is no task of ingest.held_out (did you mean 'BoolQ'?); it has ['BBCNews', ",
        ),
        (
            {"prompts.tasks.TREC.symmetric": False},
            "prompts.tasks.TREC.symmetric is false, but the task is Classification, of which all texts have the prompt "
            "when they are scored; set it to true",
        ),
        (
            {"ingest.train.0.task": "Other"},
            "prompts.tasks has no instruction for ['Other'], tasks of ingest; add one for each there",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_each_fault_is_one_exact_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write(tmp_path, changes)
    assert refusal(path).splitlines()[0].startswith(f"{path}: {message}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"evaluate.benchmark": "MTEB(eng, v9)"},
            "evaluate.benchmark: 'MTEB(eng, v9)' is neither 'held_out' nor one of",
        ),
        (
            {"evaluate.tasks": ["STS122"]},
            "evaluate.tasks: 'STS122' is no task of 'MTEB(eng, v2)' (did you mean 'STS12'",
        ),
        ({"prompts.tasks": {}}, "prompts.tasks has no instruction for ["),
        ({"ingest.examples": []}, "evaluate.with_examples is true, but nothing gives in-context examples of ['Ama"),
    ],
)
def test_faults_of_a_benchmark_of_mtebs(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write(tmp_path, changes, "presets/mistral-7b.yaml")
    assert refusal(path).startswith(f"{path}: {message}")


def test_a_task_of_mtebs_without_a_prompt_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, {}, "presets/mistral-7b.yaml")
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    del tree["prompts"]["tasks"]["STS12"]
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    assert "prompts.tasks has no instruction for ['STS12'], tasks of evaluate; add one for each there" in refusal(path)


def test_examples_of_a_held_out_task_are_refused(tmp_path: Path) -> None:
    tree = yaml.safe_load((REPO / "params.yaml").read_text(encoding="utf-8"))
    boolq = tree["ingest"]["train"][0]
    path = write(tmp_path, {"ingest.examples": [boolq]})
    assert "ingest.examples names 'BoolQ', a held-out task, which sets its own examples aside; leave it" in refusal(
        path
    )
    path = write(tmp_path, {"ingest.examples": [boolq | {"task": "Mine"}] * 2})
    assert "ingest.examples has two sources of task 'Mine'; leave one out" in refusal(path)


def test_sizes_of_known_models_are_compared_without_fetching_them(tmp_path: Path) -> None:
    hub = {"kind": "hub", "revision": "0" * 40}
    path = write(
        tmp_path,
        {
            "retrieve_dense.model": hub | {"repo": "BAAI/bge-m3"},
            "student.model": hub | {"repo": "HuggingFaceTB/SmolLM2-360M"},
            "train.matryoshka_dims": [240, 960],
        },
    )
    assert refusal(path).splitlines() == [
        f"{path}: retrieve_dense.index.m is 48, which does not divide the 1024 dimensions of "
        "BAAI/bge-m3@000000000000; set it to 32",
        f"{path}: train.matryoshka_dims has 960, but the student's vectors have 960 dimensions, which count anyway; "
        "leave it out",
    ]
    deep = write(tmp_path, {"student.model": hub | {"repo": "mistralai/Mistral-7B-v0.1"}, "student.layers": 99})
    assert "student.layers is 99, but mistralai/Mistral-7B-v0.1@000000000000 has 32; choose at most 32" in refusal(deep)
    qwen = hub | {"repo": "Qwen/Qwen3-0.6B-Base"}
    for changes, message in (
        ({"train.gradient_checkpointing": 99}, "train.gradient_checkpointing is 99, but the student has 28 layers"),
        (
            {"student.last_layer": "weighted_mean"},
            "student.last_layer is weighted_mean, which is for models of the Lla",
        ),
    ):
        plain = {"student.model": qwen, "student.layers": None, "student.last_layer": "pretrained"}
        assert message in refusal(write(tmp_path, plain | changes))
    unknown = hub | {"repo": "someone/else"}
    changes = {"retrieve_dense.model": unknown, "student.model": unknown, "train.matryoshka_dims": [960]}
    check.check(write(tmp_path, changes))


def test_a_teacher_whose_last_layer_gives_another_size_is_not_compared(tmp_path: Path) -> None:
    sizes = {"num_attention_heads": 2, "hidden_size": 8, "intermediate_size": 16, "vocab_size": 10}
    io.write_json(tmp_path / "config.json", {"model_type": "mistral", "num_hidden_layers": 2, **sizes})
    path = write(tmp_path, {"retrieve_dense.model": {"kind": "files", "path": str(tmp_path)}})
    for kind, is_refused in (("Pooling", True), ("Dense", False)):
        modules = [
            {"path": path, "type": f"sentence_transformers.models.{name}"}
            for path, name in (("", "Transformer"), (f"1_{kind}", kind))
        ]
        (tmp_path / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
        if is_refused:
            assert "retrieve_dense.index.m is 48, which does not divide the 8 dimensions of " in refusal(path)
        else:
            check.check(path)


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    nowhere = {"kind": "files", "path": "sources/nope.jsonl"}
    path = write(tmp_path, {"ingest.train.0.origin": nowhere, "student.model": nowhere | {"path": "/models/nope"}})
    said = f"these files do not exist, as seen from {Path.cwd()}: ['/models/nope', 'sources/nope.jsonl']; correct each"
    assert said in refusal(path)


def test_a_teacher_of_no_transformer_is_refused(tmp_path: Path) -> None:
    modules = [{"path": "", "type": "sentence_transformers.sentence_transformer.modules.StaticEmbedding"}]
    (tmp_path / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    path = write(tmp_path, {"retrieve_dense.model": {"kind": "files", "path": str(tmp_path)}})
    assert f"{tmp_path} begins with a StaticEmbedding, expected a Transformer; choose another" in refusal(path)


def test_folders_without_a_model_and_a_student_with_too_few_layers_are_refused(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    tiny = {"kind": "files", "path": str(tiny_checkpoint)}
    folder = tmp_path / "model"
    folder.mkdir()
    origin = {"kind": "files", "path": str(folder)}
    for place, needed in (("student", "config"), ("retrieve_dense", "modules"), ("rerank", "config")):
        path = write(tmp_path, {f"{place}.model": origin})
        assert f"{place}.model: {folder} has no {needed}.json, expected a folder with a model" in refusal(path)
    path = write(tmp_path, {"student.model": tiny, "student.layers": 6})
    assert f"student.layers is 6, but {tiny_checkpoint} has 3; choose at most 3, or null" in refusal(path)
    check.check(
        write(
            tmp_path, {"student.model": tiny, "student.layers": 3, "prompts.max_tokens": 128, "evaluate.max_tokens": 64}
        )
    )


def test_what_the_pipeline_writes_is_no_origin(tmp_path: Path) -> None:
    path = write(tmp_path, {"student.model": {"kind": "files", "path": "models/encoder"}})
    assert "the pipeline itself writes models/encoder, so what is read there would change with every run" in refusal(
        path
    )


def test_a_reranker_on_this_machine_is_one_of_its_kind(tmp_path: Path, tiny_checkpoint: Path) -> None:
    tiny = {"kind": "files", "path": str(tiny_checkpoint)}
    check.check(write(tmp_path, {"rerank.model": tiny}))
    path = write(tmp_path, {"rerank.model": tiny, "rerank.kind": "cross_encoder"})
    message = "lacks 1 weights of a MistralForSequenceClassification (score.weight first), which would be"
    assert f"rerank.model: {tiny_checkpoint} {message}" in refusal(path)


@pytest.mark.parametrize(
    ("family", "sizes", "message"),
    [
        ("gemma2", {}, "a gemma2 caps its attention scores, which packed rows do not compute; choose"),
        (
            "gemma3_text",
            {"use_bidirectional_attention": True},
            "student.attention is causal, but this gemma3_text attends in both directions",
        ),
        (
            "mistral",
            {"max_position_embeddings": 511},
            "prompts.max_tokens is 512, but the student knows 511 positions; lower it",
        ),
        (
            "phi3",
            {"rope_parameters": LONG, "original_max_position_embeddings": 256, "max_position_embeddings": 1024},
            "prompts.max_tokens is 512, but the student knows 256 positions; lower it",
        ),
        ("llama", {"attention_bias": True}, "has biases, which Mistral lacks; choose another checkpoint"),
        ("phi3", {}, "train.last_layer_first is for decoders whose last layer computes EOS alone; this is a phi3"),
    ],
)
def test_a_student_on_this_machine_is_refused_before_the_teachers_run(
    family: str, sizes: dict[str, Any], message: str, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    folder = save(tmp_path / "model", family, tiny_checkpoint, **SIZES | sizes)
    changes = {"student.model": {"kind": "files", "path": str(folder)}, "student.layers": 1}
    assert message in refusal(write(tmp_path, changes | {"student.last_layer": "pretrained"}))


def test_a_trained_student_keeps_its_last_layer(tmp_path: Path, tiny_checkpoint: Path) -> None:
    folder = save(tmp_path / "model", "mistral", tiny_checkpoint, **SIZES)
    io.write_json(folder / "encoder.json", {})
    changes = {"student.model": {"kind": "files", "path": str(folder)}, "student.layers": None}
    assert "weighted_mean would write its last layer anew; set that to pretrained" in refusal(write(tmp_path, changes))
    check.check(write(tmp_path, changes | {"student.last_layer": "pretrained"}))


@pytest.mark.parametrize(
    ("family", "sizes", "message"),
    [
        ("qwen2", {}, "is known for Llama and Mistral decoders alone; this is a qwen2. Set it to pretrained"),
        ("mistral", {"head_dim": 32}, "this student has 64 for 32. Set it to pretrained"),
    ],
)
def test_a_student_on_this_machine_whose_last_layer_cannot_be_written_is_refused(
    family: str, sizes: dict[str, Any], message: str, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    folder = save(tmp_path / "model", family, tiny_checkpoint, **SIZES | sizes)
    changes = {"student.model": {"kind": "files", "path": str(folder)}, "student.layers": 1}
    assert message in refusal(write(tmp_path, changes))


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    text = (REPO / "params.yaml").read_text(encoding="utf-8")
    path.write_text(text.replace("  min_cosine:", "  check_texts: 5\n  min_cosine:"), encoding="utf-8")
    assert "is not valid YAML: key 'check_texts' stands in line " in refusal(path)


def test_a_mapping_that_overrides_a_merged_key_and_is_merged_itself_holds_no_key_twice(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    text = (REPO / "params.yaml").read_text(encoding="utf-8")
    export = text[text.index("export:\n") : text.index("# --- prompts")]
    merged = (
        "scratch: {deep: {a: &a {check_texts: 1, min_cosine: 0.5}, b: &b {<<: *a, check_texts: 2}}}\nexport: {<<: *b}\n"
    )
    path.write_text(text.replace(export, merged), encoding="utf-8")
    assert "unknown section 'scratch'" in refusal(path)
    path.write_text(text.replace(export, merged.replace("scratch", "export")), encoding="utf-8")
    assert "key 'export' stands in line " in refusal(path)


def test_a_right_file_is_said_to_be_in_one_line() -> None:
    command = [sys.executable, "-m", "anna.cli", "check"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "params.yaml: every section is right\n", "")


def test_without_the_environment_on_the_path_the_command_says_how_to_activate_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "python"
    other.write_text("", encoding="utf-8")
    other.chmod(0o755)
    for path, named in ((tmp_path, other), (tmp_path / "empty", "none")):
        monkeypatch.setenv("PATH", str(path))
        assert cli.main(["check", "--params", str(REPO / "params.yaml")]) == 1
        message = f"with the `python` of the path, which is {named}, but anna is installed for {sys.executable}; run: "
        assert message in capsys.readouterr().err


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path, {"train.epochs": 0, "evaluate.max_tokens": -1, "student.layers": 0, "label.weights.bm25": "x"}
    )
    told = refusal(path).splitlines()
    assert sorted(line.removeprefix(f"{path}: ").split(":")[0] for line in told) == [
        "evaluate.max_tokens",
        "label.weights.bm25",
        "student.layers",
        "train.epochs",
    ]
    told = refusal(write(tmp_path, {"ingest.held_out": [], "evaluate.max_tokens": 600})).splitlines()
    assert len(told) == 2


def test_what_a_stage_may_do_without_a_plan_may_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, {}, "presets/mistral-7b.yaml")
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    del tree["ingest"]["held_out"]
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    assert cli.main(["plan", "--params", str(path), "--hardware", "h200x8"]) == 0
    assert "Verdict: fits." in capsys.readouterr().out


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, {})
    assert cli.main(["check", "--params", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: every section is right\n"
    assert cli.main(["check", "--params", str(write(tmp_path, {"train.epochs": 0}))]) == 1
    assert capsys.readouterr().err == f"anna check: {path}: train.epochs: got 0: Input should be greater than 0\n"
