"""Data of mteb's own tasks from copies of their repositories, and the texts that they score."""

import json

import datasets
import mteb
import pytest

from anna.errors import InputError
from anna.evaluation import data
from anna.evaluation.contenders import Contender
from anna.evaluation.mteb_model import PromptedModel
from anna.evaluation.run import evaluate_all
from tests.evaluation.conftest import hash_embed
from tests.evaluation.mteb_data import texts, write_copy

NAMES = ("ArguAna", "AskUbuntuDupQuestions", "Banking77Classification", "STS17", "StackExchangeClusteringP2P.v2")


@pytest.fixture(autouse=True)
def _hub(tmp_path, monkeypatch):
    monkeypatch.setenv("ANNA_HUB_DIR", str(tmp_path))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for name in NAMES:
        write_copy(tmp_path, data.english_task(name))


@pytest.fixture
def loads(monkeypatch) -> list[str]:
    """Names of the tasks whose data were loaded, as they are."""
    names, load = [], data.load_data
    monkeypatch.setattr(data, "load_data", lambda task: (names.append(task.metadata.name), load(task)))
    return names


def test_a_copy_is_read_by_mteb_and_the_result_still_names_the_repository(tmp_path):
    task = data.english_task("Banking77Classification")
    before, cache = task.metadata, datasets.config.HF_DATASETS_CACHE
    data.load_data(task)
    assert datasets.config.HF_DATASETS_CACHE == cache
    assert task.dataset["test"]["text"][0] == "test: the otter swims (Banking77Classification)"
    assert task.metadata is before
    assert task.metadata.dataset["path"] == "mteb/banking77"


def test_a_result_is_kept_until_the_copy_changes(tmp_path, loads):
    def scored() -> float:
        model = PromptedModel("student", "zero_shot", hash_embed, lambda task, side: "")
        contender = Contender("student", {"zero_shot": model}, lambda task, mode: {}, None, None)
        (score,) = evaluate_all([contender], [data.english_task("STS17")], tmp_path / "store", tmp_path / "results")
        return score.value

    before = scored()
    assert scored() == before
    assert loads == ["STS17"]
    (path,) = (tmp_path / "datasets" / "mteb" / "sts17-crosslingual-sts").rglob("test.jsonl")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    turned = [{**row, "score": 5 - row["score"]} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in turned), encoding="utf-8")
    assert scored() == pytest.approx(-before)
    assert loads == ["STS17"] * 2


def test_scored_are_queries_and_what_is_relevant_to_them_not_the_whole_collection():
    own = texts("ArguAna")[:4]
    queries, docs = ({form.format(text) for text, _ in own} for form in ("where is {}", "{}"))
    titled = {f"{title} {text}" for text, title in own}
    assert data.scored_texts(data.english_task("ArguAna")) == queries | docs | titled


def test_scored_are_test_rows_and_not_what_a_classifier_is_fitted_on():
    task = data.english_task("Banking77Classification")
    scored = data.scored_texts(task)
    own = {f"{split}: {text}" for split in ("train", "test") for text, _ in texts("Banking77Classification")}
    assert scored & own == {text for text in own if text.startswith("test")}
    assert not task.data_loaded


@pytest.mark.parametrize(
    ("name", "text"), [("STS17", "the otter swims (STS17)"), (NAMES[4], f"the otter swims ({NAMES[4]}) 0")]
)
def test_scored_are_strings_in_lists_and_in_subsets(name, text):
    assert text in data.scored_texts(data.english_task(name))


def test_only_english_counts():
    assert data.english_task("STS17").hf_subsets == ["en-en"]
    assert data.english_task("MassiveIntentClassification").hf_subsets == ["en"]


def test_a_task_that_mteb_does_not_know_is_refused():
    with pytest.raises(InputError, match=r"ingest.examples: mteb has no task 'STSBenchmarks'"):
        data.english_task("STSBenchmarks")


def test_a_copy_that_lacks_what_the_task_needs_is_named(tmp_path):
    task = data.english_task("Banking77Classification")
    for file in (tmp_path / "datasets/mteb/banking77").rglob("*.jsonl"):
        file.unlink()
    with pytest.raises(
        InputError, match=r"data of mteb task 'Banking77Classification' did not arrive from .*banking77"
    ):
        data.load_data(task)
    assert task.metadata is mteb.get_task("Banking77Classification").metadata
