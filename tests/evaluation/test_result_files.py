"""Result files in mteb's format: only the benchmark's own rows and parts count."""

import json
from pathlib import Path
from typing import Any

import pytest

from anna.errors import InputError
from anna.evaluation import result_files


def write(folder: Path, task: str, parts: dict[str, float], revision: str | None = None, split: str = "test") -> Path:
    """Write a result file as mteb does, of the benchmark's own revision unless told otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    scores: list[dict[str, Any]] = [
        {"main_score": score, "hf_subset": part, "languages": ["eng-Latn"]} for part, score in parts.items()
    ]
    tasks = result_files.benchmark_tasks()
    own = revision or (tasks[task].metadata.dataset["revision"] if task in tasks else "0" * 40)
    content = {"dataset_revision": own, "task_name": task, "mteb_version": "2.26.24", "scores": {split: scores}}
    path = folder / f"{task}.json"
    path.write_text(json.dumps({**content, "evaluation_time": None, "kg_co2_emissions": None}))
    return path


def test_scores_are_read_and_other_files_passed_over(tmp_path: Path) -> None:
    write(tmp_path, "STS12", {"default": 0.75})
    write(tmp_path, "STS17", {"en-en": 0.9, "fr-en": 0.1})
    write(tmp_path, "SomeOtherTask", {"default": 0.3})
    (tmp_path / "model_meta.json").write_text("{}")
    scores, types = result_files.read_results(tmp_path)
    assert scores == {"STS12": 0.75, "STS17": 0.9}, "of STS17 the benchmark counts en-en alone"
    assert types == {"STS12": "STS", "STS17": "STS"}


def test_a_held_out_sample_of_the_same_name_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "STSBenchmark", {"default": 0.68}, revision="5a" * 20)
    with pytest.raises(InputError, match=r"STSBenchmark.json was scored on data of revision 5a.* other rows"):
        result_files.read_results(tmp_path)


@pytest.mark.parametrize("score", [float("nan"), 75.3])
def test_a_score_that_is_none_is_refused(tmp_path: Path, score: float) -> None:
    write(tmp_path, "STS12", {"default": score})
    with pytest.raises(InputError, match=rf"STS12.json has a main_score of {score}, expected -1 to 1"):
        result_files.read_results(tmp_path)


def test_an_incomplete_result_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "STS17", {"fr-en": 0.1})
    with pytest.raises(InputError, match=r"STS17.json has 0 of the 1 parts .*subsets \['en-en'\]"):
        result_files.read_results(tmp_path)
    write(tmp_path, "STS17", {"en-en": 0.1}, split="validation")
    with pytest.raises(InputError, match="has 0 of the 1 parts"):
        result_files.read_results(tmp_path)


@pytest.mark.parametrize("content", ["not json", "{}", "[]", '{"task_name": "STS12"}'])
def test_a_broken_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "STS12.json").write_text(content)
    with pytest.raises(InputError, match=r"STS12.json is not a result in mteb's format .*; score .* or remove"):
        result_files.read_results(tmp_path)


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no result file of a task of MTEB\(eng, v2\)"):
        result_files.read_results(tmp_path)
