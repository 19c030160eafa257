from pathlib import Path

import pytest
import yaml

from anna.evaluation.tasks import select_tasks
from anna.modeling.encoder_config import PromptParams
from anna.modeling.student import StudentParams
from anna.params import SECTIONS, RandomParams
from anna.teachers.bm25 import Bm25Params
from anna.teachers.dense import DenseParams
from anna.training.recipe import TrainParams
from stages.evaluate import EvaluateParams
from stages.export import ExportParams
from stages.filter import FilterParams
from stages.ingest import IngestParams
from stages.label import LabelParams
from stages.rerank import RerankParams

ROOT = Path(__file__).parents[2]
PRESET = ROOT / "presets" / "mistral-7b.yaml"
CLASSES = (
    RandomParams,
    IngestParams,
    Bm25Params,
    DenseParams,
    RerankParams,
    LabelParams,
    FilterParams,
    StudentParams,
    PromptParams,
    TrainParams,
    ExportParams,
    EvaluateParams,
)


@pytest.mark.parametrize("path", [ROOT / "params.yaml", PRESET], ids=lambda path: path.stem)
@pytest.mark.parametrize("params", CLASSES, ids=lambda params: params.section)
def test_every_section_loads(params, path):
    params.load(path)


@pytest.mark.parametrize("path", [ROOT / "params.yaml", PRESET], ids=lambda path: path.stem)
def test_no_section_is_without_a_class(path):
    assert set(yaml.safe_load(path.read_text())) == {c.section for c in CLASSES} == set(SECTIONS)


@pytest.mark.parametrize("path", [ROOT / "params.yaml", PRESET], ids=lambda path: path.stem)
def test_every_training_and_evaluation_task_has_a_prompt(path):
    ingest, prompts = IngestParams.load(path), PromptParams.load(path)
    evaluated = {task.task for task in ingest.held_out}
    if not ingest.held_out:
        evaluated = {t.metadata.name for t in select_tasks(EvaluateParams.load(path).benchmark, None, pytest.fail)}
    needed = evaluated | {source.task for source in ingest.train}
    assert needed == set(prompts.tasks)


def test_the_preset_names_the_papers_student_and_benchmark():
    assert StudentParams.load(PRESET).model.repo == "mistralai/Mistral-7B-v0.1"
    assert EvaluateParams.load(PRESET).benchmark == "MTEB(eng, v2)"


def test_documents_of_searches_are_bare_and_all_other_tasks_prompt_both_sides():
    prompts = PromptParams.load(PRESET)
    for task in select_tasks("MTEB(eng, v2)", None, pytest.fail):
        is_search = task.metadata.type in ("Retrieval", "Reranking")
        assert prompts.tasks[task.metadata.name].symmetric != is_search, task.metadata.name
