import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from anna import scores
from anna.errors import InputError
from anna.evaluation import contenders, run
from anna.evaluation.encoding import EncodeSettings
from anna.evaluation.tasks import held_out_tasks
from anna.modeling.encoder import Encoder
from anna.modeling.encoder_config import EncoderConfig
from anna.modeling.export import named_prompts
from tests.conftest import tiny_student
from tests.evaluation.conftest import TYPES, hash_embed

SETTINGS = EncodeSettings(max_tokens=24, tokens_per_batch=256, dtype="float32")


@pytest.fixture
def loads(monkeypatch):
    """How often an encoder was loaded."""
    count = []
    original = Encoder.load.__func__
    monkeypatch.setattr(Encoder, "load", classmethod(lambda cls, *a, **k: count.append(1) or original(cls, *a, **k)))
    return count


def evaluate(tmp_path, compared, tables, names=("Farm", "Same")):
    """Score two quick tasks."""
    tasks = [task for task in held_out_tasks(tables) if task.metadata.name in names]
    return run.evaluate_all(compared, tasks, tmp_path / "store", tmp_path / "results")


def test_every_type_is_scored_in_both_modes(tmp_path, exported, tables):
    result = evaluate(tmp_path, [contenders.student(exported, SETTINGS)], tables, TYPES)
    assert {(s.task, s.type) for s in result} == set(TYPES.items())
    assert [s.mode for s in result] == ["zero_shot"] * 7 + ["with_examples"] * 7


def test_two_runs_in_other_orders_give_equal_scores_and_bytes(tmp_path, exported, tables):
    drawing = [t for t in held_out_tasks(tables) if t.metadata.name in ("Farm", "Heaps", "Kinds")]
    compared = [contenders.student(exported, SETTINGS, with_examples=False)]
    first = run.evaluate_all(compared, drawing, tmp_path / "store", tmp_path / "first")
    again = run.evaluate_all(compared, drawing[::-1], tmp_path / "fresh", tmp_path / "again")
    assert set(first) == set(again)
    for file in (tmp_path / "first").rglob("*.json"):
        assert file.read_bytes() == (tmp_path / "again" / file.relative_to(tmp_path / "first")).read_bytes()


def test_results_are_in_mteb_format_without_clock(tmp_path, exported, tables):
    evaluate(tmp_path, [contenders.student(exported, SETTINGS)], tables)
    files = sorted(path.relative_to(tmp_path / "results") for path in (tmp_path / "results").rglob("*.json"))
    assert [str(f) for f in files] == [
        f"anna__student/{mode}/{name}.json"
        for mode in ("with_examples", "zero_shot")
        for name in ("Farm", "Same", "model_meta")
    ]
    result = json.loads((tmp_path / "results" / "anna__student/zero_shot/Farm.json").read_text())
    assert (result["task_name"], result["date"], result["evaluation_time"]) == ("Farm", None, None)


def test_known_results_are_reused_without_loading_the_model(tmp_path, exported, tables, loads):
    first = evaluate(tmp_path, [contenders.student(exported, SETTINGS)], tables)
    second = evaluate(tmp_path, [contenders.student(exported, SETTINGS)], tables)
    assert first == second
    assert len(loads) == 1


@pytest.mark.parametrize(
    "settings", [replace(SETTINGS, max_tokens=23), replace(SETTINGS, tokens_per_batch=255)], ids=["length", "batch"]
)
def test_other_settings_are_computed_anew(tmp_path, exported, tables, loads, settings):
    evaluate(tmp_path, [contenders.student(exported, SETTINGS)], tables)
    evaluate(tmp_path, [contenders.student(exported, settings)], tables)
    assert len(loads) == 2


def test_other_weights_prompts_and_rows_are_computed_anew(tmp_path, exported, tables, config, loads):
    evaluate(tmp_path, [contenders.student(exported, SETTINGS)], tables)
    prompt = config.tasks["Farm"].model_copy(update={"instruction": "other"})
    config.model_copy(update={"tasks": {**config.tasks, "Farm": prompt}}).save(exported)
    evaluate(tmp_path, [contenders.student(exported, SETTINGS)], tables)
    assert len(list((tmp_path / "store" / "student").iterdir())) == 6  # Farm again, in two modes
    (exported / "extra.json").write_text("{}")
    evaluate(tmp_path, [contenders.student(exported, SETTINGS)], tables)
    assert len(list((tmp_path / "store" / "student").iterdir())) == 10  # both again
    fewer = {**tables, "pairs": tables["pairs"].slice(0, len(tables["pairs"]) - 1)}
    evaluate(tmp_path, [contenders.student(exported, SETTINGS)], fewer)
    assert len(list((tmp_path / "store" / "student").iterdir())) == 12  # one task, in two modes
    assert len(loads) == 4


def test_a_damaged_result_is_computed_again(tmp_path, exported, tables, caplog):
    first = evaluate(tmp_path, [contenders.student(exported, SETTINGS)], tables)
    kept = sorted((tmp_path / "store" / "student").iterdir())
    whole = kept[0].read_bytes()
    for harmed in (b"", whole[:80], b"[]", b"{}"):
        kept[0].write_bytes(harmed)
        assert evaluate(tmp_path, [contenders.student(exported, SETTINGS)], tables) == first
        assert kept[0].read_bytes() == whole
    assert caplog.text.count(f"{kept[0]} is damaged (") == 4


@pytest.mark.parametrize(
    "change", [{"pooling": "mean"}, {"attention": "bidirectional"}, {"max_tokens": 200}, {"symmetric": True}], ids=str
)
def test_what_the_student_reads_decides_its_results(exported, config, change):
    before = contenders.student(exported, SETTINGS).identity("Farm", "zero_shot")
    if "symmetric" in change:
        prompt = config.tasks["Farm"].model_copy(update=change)
        change = {"tasks": {**config.tasks, "Farm": prompt}}
    config.model_copy(update=change).save(exported)
    assert contenders.student(exported, SETTINGS).identity("Farm", "zero_shot") != before


def test_prompts_and_code_of_the_teacher_decide_its_results(monkeypatch):
    def identity(query="", document=""):
        contenders._scoring_code.cache_clear()
        return contenders.dense({}, (query, document), None).identity("Farm", "zero_shot")

    plain = identity()
    assert plain != identity(query="query: ")
    assert identity(query="query: ") != identity(document="query: ")
    monkeypatch.setattr(contenders, "code_hash", lambda path: "other")
    assert plain != identity()
    contenders._scoring_code.cache_clear()


def test_libraries_parts_and_own_code_decide_results(exported, tables, monkeypatch):
    (task,) = [task for task in held_out_tasks(tables) if task.metadata.name == "Farm"]
    student = contenders.student(exported, SETTINGS)

    def key():
        return run._fingerprint(student, task, "zero_shot", None)

    plain = key()
    assert plain == key()
    assert plain != run._fingerprint(student, task, "zero_shot", "copy")
    with monkeypatch.context() as patched:
        patched.setattr(run, "version", lambda name: "0")
        assert plain != key()
    with monkeypatch.context() as patched:
        patched.setattr(run, "code_hash", lambda path: "other")
        assert plain != key()
    monkeypatch.setattr(task, "_eval_splits", ["dev"], raising=False)
    monkeypatch.setattr(type(task), "eval_splits", property(lambda self: ["dev"]))
    assert plain != key()


def test_documents_of_searches_are_bare_and_encoded_once_for_both_modes(tmp_path, exported, tables, monkeypatch):
    seen: list[tuple[str, str]] = []
    original = Encoder.embed

    def embed(self, texts, *, prefix, **kwargs):
        seen.extend((prefix, text) for text in texts)
        return original(self, texts, prefix=prefix, **kwargs)

    monkeypatch.setattr(Encoder, "embed", embed)
    evaluate(tmp_path, [contenders.student(exported, SETTINGS)], tables, ["Farm"])
    example = "Instruct: do Farm\nQuery: where is the fox\nResponse: the fox eats here\n\n"
    opening = "Instruct: do Farm\nQuery: "
    assert {prefix for prefix, text in seen if text.startswith("where")} == {opening, example + opening}
    assert {prefix for prefix, text in seen if text.startswith("the")} == {""}
    assert len(seen) == len(set(seen))


def test_texts_of_symmetric_tasks_all_get_the_prompt(tmp_path, exported, tables, monkeypatch):
    seen: set[str] = set()
    original = Encoder.embed

    def embed(self, texts, *, prefix, **kwargs):
        seen.add(prefix)
        return original(self, texts, prefix=prefix, **kwargs)

    monkeypatch.setattr(Encoder, "embed", embed)
    symmetric = ["Alike", "Same", "Kinds", "Digest"]
    evaluate(tmp_path, [contenders.student(exported, SETTINGS, with_examples=False)], tables, symmetric)
    assert seen == {f"Instruct: do {name}\nQuery: " for name in symmetric}


def test_tasks_without_a_prompt_are_named_before_anything_runs(tmp_path, exported, tables, config, loads):
    tasks = {name: prompt for name, prompt in config.tasks.items() if name not in ("Farm", "Same")}
    config.model_copy(update={"tasks": tasks}).save(exported)
    with pytest.raises(
        InputError, match=r"student lacks a usable prompt for \['Farm', 'Same'\].*prompts.tasks"
    ) as caught:
        evaluate(tmp_path, [contenders.student(exported, SETTINGS)], tables)
    assert "params.yaml" in str(caught.value)
    assert not loads
    assert not (tmp_path / "results").exists()


def test_a_task_without_examples_has_no_mode_with_them(tmp_path, exported, tables, config, loads):
    bare = config.tasks["Same"].model_copy(update={"examples": ()})
    config.model_copy(update={"tasks": config.tasks | {"Same": bare}}).save(exported)
    with pytest.raises(InputError, match=r"\['Same'\]: evaluate.with_examples is true, but 'Same' has no in-context"):
        evaluate(tmp_path, [contenders.student(exported, SETTINGS)], tables)
    assert not loads
    evaluate(tmp_path, [contenders.student(exported, SETTINGS, with_examples=False)], tables)


def test_both_modes_are_the_prompts_that_the_export_names(exported, config):
    student, named = contenders.student(exported, SETTINGS), named_prompts(config)
    for task in config.tasks:
        assert student.identity(task, "zero_shot")["prefix"] == named[task]
        assert student.identity(task, "with_examples")["prefix"] == named[f"{task}+examples"] != named[task]


def test_a_prompt_that_leaves_too_little_room_is_refused_before_anything_runs(
    tmp_path, exported, tables, config, loads
):
    config.model_copy(update={"max_tokens": 30}).save(exported)
    with pytest.raises(
        InputError, match=r"evaluate.max_tokens is 24, but the prompt of 'Farm' with 0 examples leaves 14 of"
    ):
        evaluate(tmp_path, [contenders.student(exported, SETTINGS)], tables)
    assert not loads


def test_a_model_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"absent does not exist; make it with: dvc repro export"):
        contenders.student(tmp_path / "absent", SETTINGS)


def test_a_score_that_is_no_number_is_refused(tmp_path, tables):
    flat = contenders.dense({}, ("", ""), lambda texts, prefix: np.ones((len(texts), 4), np.float32))
    with pytest.raises(InputError, match=r"Digest: cosine_spearman of teacher \(zero_shot\) is nan"):
        evaluate(tmp_path, [flat], tables, ["Digest"])


def test_untrained_has_the_prompts_of_the_trained_and_other_weights(tmp_path, exported, tiny_checkpoint, tables):
    params = tiny_student(tiny_checkpoint, layers=1)
    trained = contenders.student(exported, SETTINGS, with_examples=False)
    result = evaluate(tmp_path, [trained, contenders.untrained(params, exported, SETTINGS)], tables)
    assert {s.model for s in result} == {"student", "untrained"}
    values = {model: [s.value for s in result if s.model == model] for model in ("student", "untrained")}
    assert values["student"] != values["untrained"]


def test_the_teacher_gets_its_own_prompts_and_bm25_retrieval_alone(tmp_path, tables):
    seen: dict[str, set[str]] = {}

    def embed(texts, prefix):
        seen.setdefault(prefix, set()).update(texts)
        return hash_embed(texts, "")

    def search(doc_ids, docs, query_ids, queries, depth):
        return pa.table({"query_id": query_ids, "doc_id": doc_ids[: len(query_ids)], "score": [1.0] * len(query_ids)})

    teacher = contenders.dense({}, ("query: ", "text: "), embed)
    bm25 = contenders.bm25(search, {"k1": 1.5, "b": 0.75}, search)
    result = evaluate(tmp_path, [teacher, bm25], tables)
    assert set(seen) == {"query: ", "text: ", ""}
    assert seen["query: "] == {row["text"] for row in tables["queries"].to_pylist() if row["task"] == "Farm"}
    assert seen["text: "] == {row["text"] for row in tables["corpus"].to_pylist() if row["task"] == "Farm"}
    assert [(s.model, s.task, s.value) for s in result if s.model == "bm25"] == [("bm25", "Farm", 1.0)]
    summary = scores.summary(result)
    assert set(summary["bm25"]) == {"Retrieval"}


def test_encoder_vectors_reach_mteb_unchanged(exported, config: EncoderConfig):
    model = contenders.student(exported, SETTINGS).models["zero_shot"]
    texts = ["where is the fox", "the owl"]
    batches = [{"text": texts[:1]}, {"text": texts[1:]}]
    task = type("Task", (), {"name": "Same"})
    got = model.encode(batches, task_metadata=task, hf_split="test", hf_subset="default")
    expected = Encoder.load(exported).encode(texts, prefix=config.prefix("Same"), max_tokens=24, tokens_per_batch=256)
    np.testing.assert_allclose(got, expected, atol=1e-6)
