"""The in-context examples that are written by hand: complete, clean, all different, as long as the task's own texts."""

import json
from collections import Counter
from pathlib import Path
from statistics import mean
from typing import Any

import mteb
import pytest
import yaml

from anna.corpus.clean import clean_text
from anna.corpus.examples import load_examples
from anna.corpus.sources import Cleaning, TrainSource
from anna.folding import normalise
from stages.ingest import IngestParams

ROOT = Path(__file__).parents[2]
PRESETS = [ROOT / "presets" / f"{name}.yaml" for name in ("mistral-7b", "qwen3-0.6b")]
FILE = Path("presets/mteb_examples-v1.jsonl")
ABOUT, *ROWS = [json.loads(line) for line in (ROOT / FILE).read_text(encoding="utf-8").splitlines()]
TASKS = sorted({row["task"] for row in ROWS})
LONG = 300
"""Characters. Longer texts are cut in the prompt, and written shorter here: of them only a lower bound is asked."""


def written(preset: Path) -> list[TrainSource]:
    return [source for source in IngestParams.load(preset).examples if source.origin.kind == "files"]


def test_the_file_says_where_it_is_from_and_what_it_may_be_used_under() -> None:
    assert set(ABOUT) == {"about"}
    assert "written by hand for this project" in ABOUT["about"]
    assert "Licence: Apache-2.0" in ABOUT["about"]
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text()


def test_there_are_five_of_each_of_20_tasks() -> None:
    assert Counter(row["task"] for row in ROWS) == dict.fromkeys(TASKS, 5)
    assert len(TASKS) == 20


def test_every_row_has_a_clean_query_and_a_clean_response() -> None:
    for row in ROWS:
        assert set(row) == {"task", "query", "response"}
        for text in (row["query"], row["response"]):
            assert clean_text(text) == text


def test_no_text_occurs_twice_not_even_as_query_and_response() -> None:
    texts = Counter(normalise(row[side]) for row in ROWS for side in ("query", "response"))
    assert [text for text, times in texts.items() if times > 1] == []


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_a_preset_shows_as_many_of_them_as_it_says_from_the_project_root(
    preset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    params, sources = IngestParams.load(preset), written(preset)
    assert {(source.origin.path, source.licence) for source in sources} == {(FILE, "apache-2.0")}
    cleaning = Cleaning(params.max_faulty_share, params.near_duplicate, seed=17)
    got = load_examples(sources, lambda task: (), cleaning, count=params.examples_per_task)
    assert {task: len(examples) for task, examples in got.items()} == dict.fromkeys(TASKS, params.examples_per_task)
    shown = {(task, *example) for task, examples in got.items() for example in examples}
    assert shown <= {(row["task"], row["query"], row["response"]) for row in ROWS}
    assert len(shown) == len(TASKS) * params.examples_per_task


def test_both_presets_have_the_same() -> None:
    first, second = (yaml.safe_load(path.read_text())["ingest"]["examples"] for path in PRESETS)
    assert [each for each in first if each.get("format")] == [each for each in second if each.get("format")]


@pytest.mark.parametrize("task", TASKS)
def test_texts_are_about_as_long_as_those_that_the_task_scores(task: str) -> None:
    stats: Any = mteb.get_task(task).metadata.descriptive_stats
    own = {name: part for name, part in stats["test"].items() if name.endswith("_statistics") and part}
    sides = {
        "query": ("queries_text_statistics", "text1_statistics", "human_summaries_statistics", "text_statistics"),
        "response": (
            "documents_text_statistics",
            "text2_statistics",
            "machine_summaries_statistics",
            "text_statistics",
        ),
    }
    for side, names in sides.items():
        usual = next(own[name]["average_text_length"] for name in names if name in own)
        here = mean(len(row[side]) for row in ROWS if row["task"] == task)
        assert min(usual, LONG) / 1.5 < here < 1.5 * usual, (side, here, usual)
