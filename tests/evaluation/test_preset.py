from pathlib import Path

import mteb
import pytest
import yaml

from anna.engine import ScoringParams
from anna.evaluation.tasks import select_tasks
from anna.modeling.encoder_config import PromptParams
from anna.modeling.student import StudentParams
from anna.origins import HubOrigin
from anna.params import SECTIONS, RandomParams
from anna.teachers.bm25 import Bm25Params
from anna.teachers.dense import DenseParams
from anna.teachers.filtering import FilterParams
from anna.teachers.reranker import RerankParams
from anna.training.recipe import TrainParams
from stages.evaluate import EvaluateParams
from stages.export import ExportParams
from stages.ingest import IngestParams
from stages.label import LabelParams

ROOT = Path(__file__).parents[2]
PRESET = ROOT / "presets" / "mistral-7b.yaml"
FULL = [PRESET, ROOT / "presets" / "qwen3-0.6b.yaml"]
"""Presets that train on the hub's data and are scored on mteb's own benchmark."""
FILES = [ROOT / "params.yaml", *FULL]
CLASSES = (
    RandomParams,
    IngestParams,
    Bm25Params,
    DenseParams,
    RerankParams,
    ScoringParams,
    LabelParams,
    FilterParams,
    StudentParams,
    PromptParams,
    TrainParams,
    ExportParams,
    EvaluateParams,
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("params", CLASSES, ids=lambda params: params.section)
def test_every_section_loads(params, path):
    params.load(path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_section_is_without_a_class(path):
    assert set(yaml.safe_load(path.read_text())) == {c.section for c in CLASSES} == set(SECTIONS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_training_and_evaluation_task_has_a_prompt(path):
    ingest, prompts = IngestParams.load(path), PromptParams.load(path)
    evaluated = {task.task for task in ingest.held_out}
    if not ingest.held_out:
        evaluated = {t.metadata.name for t in select_tasks(EvaluateParams.load(path).benchmark, None, pytest.fail)}
    needed = evaluated | {source.task for source in ingest.train}
    assert needed == set(prompts.tasks)


@pytest.mark.parametrize(
    ("path", "student"), zip(FULL, ["mistralai/Mistral-7B-v0.1", "Qwen/Qwen3-0.6B-Base"], strict=True)
)
def test_the_presets_name_their_student_and_the_papers_benchmark(path, student):
    assert StudentParams.load(path).model.repo == student
    assert EvaluateParams.load(path).benchmark == "MTEB(eng, v2)"


@pytest.mark.parametrize("path", FULL, ids=lambda path: path.stem)
def test_documents_of_searches_are_bare_and_all_other_tasks_prompt_both_sides(path):
    prompts = PromptParams.load(path)
    for task in select_tasks("MTEB(eng, v2)", None, pytest.fail):
        is_search = task.metadata.type in ("Retrieval", "Reranking")
        assert prompts.tasks[task.metadata.name].symmetric != is_search, task.metadata.name


@pytest.mark.parametrize("path", FULL, ids=lambda path: path.stem)
def test_each_of_the_41_tasks_has_an_instruction_and_examples(path):
    ingest, prompts = IngestParams.load(path), PromptParams.load(path)
    tasks = {task.metadata.name: task.metadata for task in mteb.get_benchmark("MTEB(eng, v2)").tasks}
    shown = [source.task for source in ingest.examples]
    assert len(tasks) == 41
    assert sorted(shown) == sorted(tasks), "each has one source of examples, and no other task has any"
    assert set(tasks) <= set(prompts.tasks)
    written = {source.task for source in ingest.examples if source.origin.kind == "files"}
    assert len(written) == 20
    trained = {name for name in tasks if name.split(".")[0] in {source.task for source in ingest.train}}
    fitted = {name for name, metadata in tasks.items() if metadata.type == "Classification"}
    assert not written & (trained | fitted), "where there is data to train on, examples are drawn from it"


@pytest.mark.parametrize("path", FULL, ids=lambda path: path.stem)
def test_revisions_of_mtebs_own_sets_are_those_that_mteb_names(path):
    ingest = IngestParams.load(path)
    known = {
        (task.metadata.dataset["path"], task.metadata.dataset["revision"])
        for task in mteb.get_tasks(exclude_superseded=False)
    }
    checked = 0
    for source in (*ingest.train, *ingest.examples):
        if isinstance(source.origin, HubOrigin) and source.origin.repo.startswith("mteb/"):
            assert (source.origin.repo, source.origin.revision) in known, source.task
            checked += 1
    assert checked > 15


@pytest.mark.parametrize("path", FULL, ids=lambda path: path.stem)
def test_prompt_examples_and_text_fit_into_the_longest_input(path):
    prompts, evaluate = PromptParams.load(path), EvaluateParams.load(path)
    shown = max(TrainParams.load(path).max_examples, IngestParams.load(path).examples_per_task)
    instruction = max(len(task.instruction) for task in prompts.tasks.values())
    assert shown * (2 * prompts.example_tokens + instruction) + instruction + evaluate.max_tokens <= prompts.max_tokens
    assert evaluate.with_examples
