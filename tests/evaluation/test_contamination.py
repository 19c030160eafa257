"""The zero-shot share is mteb's own; what mteb cannot see, a shared source, is named beside it."""

import mteb
import pytest
import yaml

from anna.evaluation import contamination
from tests.test_contracts import REPO

TESTED = [task.metadata.name for task in mteb.get_benchmark("MTEB(eng, v2)").tasks]


@pytest.mark.parametrize(
    "model", ["annamodels/LGAI-Embedding-Preview", "BAAI/bge-en-icl", "sentence-transformers/all-MiniLM-L6-v2"]
)
def test_the_share_is_that_of_mteb_for_public_models(model: str) -> None:
    meta = mteb.get_model_meta(model, fetch_from_hf=False)
    assert meta.training_datasets
    flagged = contamination.trained_on(meta.training_datasets, TESTED)
    share = contamination.zero_shot_percentage(len(flagged), len(TESTED))
    assert share == meta.zero_shot_percentage(TESTED)
    assert bool(flagged) == (not meta.is_zero_shot_on(TESTED))


def test_versions_and_tasks_made_from_a_training_set_count() -> None:
    assert contamination.trained_on({"FEVER", "BiorxivClusteringP2P", "ELI5"}, TESTED) == [
        "BiorxivClusteringP2P.v2",
        "FEVERHardNegatives",
    ]
    assert contamination.trained_on({"SQuAD", "NoSuchSet"}, TESTED) == []


def test_shares_are_cut_as_mteb_cuts_them() -> None:
    assert contamination.zero_shot_percentage(3, 9) == 66
    assert contamination.zero_shot_percentage(0, 9) == 100
    assert contamination.zero_shot_percentage(9, 9) == 0
    assert contamination.zero_shot_percentage(0, 0) is None


def test_the_default_names_its_in_domain_tasks_and_shared_sources() -> None:
    ingest = yaml.safe_load((REPO / "params.yaml").read_text())["ingest"]
    tested = [source["task"] for source in ingest["held_out"]]
    assert contamination.summary(ingest, tested) == {
        "zero_shot_percentage": 66,
        "tasks": 9,
        "tasks_trained_on": 3,
        "trained_on": ["BoolQ", "STSBenchmark", "TREC"],
        "same_source": {"HPOSynonyms": ["HPODefinitions"], "WikipediaTopics": ["WikipediaLeads"]},
    }
    assert contamination.summary(ingest, ["IMDB"])["same_source"] == {}, "only of tasks that were scored"


def test_the_papers_size_says_what_it_trains_on() -> None:
    ingest = yaml.safe_load((REPO / "presets" / "mistral-7b.yaml").read_text())["ingest"]
    said = contamination.summary(ingest, TESTED)
    assert {"Banking77Classification", "FiQA2018", "STS12", "STSBenchmark", "ArguAna"} <= set(said["trained_on"])
    assert not {"TRECCOVID", "SICK-R", "TwitterURLCorpus", "MassiveIntentClassification"} & set(said["trained_on"])
    assert "SCIDOCS" in said["trained_on"], "made from mteb's SciDocsRR"
    assert (said["tasks_trained_on"], said["zero_shot_percentage"]) == (19, 53)
    assert said["same_source"] == {
        "MTOPDomainClassification": ["MTOPIntentClassification"],
        "STS13": ["STSBenchmark"],
        "STS14": ["STSBenchmark"],
        "STS15": ["STSBenchmark"],
    }


def test_a_task_that_shares_texts_and_a_file_with_training_names_both() -> None:
    def source(task: str, path: str) -> dict[str, object]:
        return {"task": task, "origin": {"kind": "files", "path": path}}

    ingest = {"train": [source("STSBenchmark", "a"), source("Foo", "b")], "held_out": [source("STS13", "b")]}
    assert contamination.summary(ingest, ["STS13"])["same_source"] == {"STS13": ["Foo", "STSBenchmark"]}
