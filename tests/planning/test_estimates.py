"""Single stages, by hand."""

from typing import Any

import numpy as np
import pytest

from anna.footprint import GIB, GPU_BASE
from anna.planning import held_out, memory, scoring, tables, work
from anna.planning.case import Case, Estimate, Models
from anna.planning.counts import Counts
from anna.planning.estimates import estimate
from anna.planning.hardware import Hardware, parse
from anna.planning.settings import Settings
from anna.shapes import Shape
from anna.teachers import padding, query_likelihood, shortlist
from tests.planning.test_training import SHAPE, TASK
from tests.planning.test_training import settings as training_settings

ENCODER = Shape(2, 8, 16, 2, 2, 4, 10, is_decoder=False)
CPU = Hardware("slow", 1, GIB, 1e6, False, "", 2)


def fixed() -> Settings:
    """The settings of `test_training`, and teachers that read little."""
    plain = training_settings()
    rerank = {"kind": "query_likelihood", "depth": 4, "queries_per_task": 24, "doc_tokens": 64, "query_tokens": 32}
    sections = {
        "retrieve_bm25": plain.retrieve_bm25.model_copy(update={"depth": 10}),
        "retrieve_dense": plain.retrieve_dense.model_copy(update={"max_tokens": 64, "depth": 10}),
        "rerank": plain.rerank.model_copy(update=rerank),
        "evaluate": plain.evaluate.model_copy(update={"max_tokens": 64}),
    }
    return plain._replace(**sections)


def make(section: str = "rerank", hardware: Hardware = CPU, **changes: Any) -> Case:
    settings = fixed()
    changed = getattr(settings, section).model_copy(update=changes)
    models = Models(SHAPE, ENCODER, SHAPE if settings.rerank.kind == "query_likelihood" else ENCODER, SHAPE)
    return Case(settings._replace(**{section: changed}), Counts((TASK,), "", ()), models, hardware, 1)


def of(case: Case, stage: str) -> Estimate:
    (found,) = [one for one in estimate(case) if one.stage == stage]
    return found


@pytest.fixture(autouse=True)
def two_held_out_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [
        held_out.Texts("A", 100, np.array([9.0]), 20.0),
        held_out.Texts("A", 50, np.array([90.0]), 0.0),
    ]
    monkeypatch.setattr(held_out, "texts", lambda _: parts)


def test_the_dense_teacher_pads_to_sixteen() -> None:
    found = of(make(), "retrieve_dense")
    assert found.tokens == 400 * 64 + 200 * 16
    operations = 400 * 64 * work.forward(ENCODER, 64) + 200 * 16 * work.forward(ENCODER, 16)
    assert found.operations == operations
    search = 2 * 8 * 400 * 200
    assert found.seconds == pytest.approx(scoring.START["retrieve_dense"] + (operations + search) / 1e6)
    assert found.disk == 3 * 600 * 8 * 4 + 200 * 10 * tables.ROW_BYTES


def test_query_likelihood_reads_a_passage_once_for_several_queries() -> None:
    found = of(make(), "rerank")
    pairs = 24 * (4 + scoring.OUTSIDE)
    assert found.tokens == pytest.approx(pairs * (0.8 * (60 + 9) + 10))
    head = pairs * 10 * 2 * 40
    assert found.operations == pytest.approx(found.tokens * work.forward(SHAPE, 30) + head)


def test_a_cross_encoder_reads_every_pair_padded() -> None:
    case = make(kind="cross_encoder", queries_per_task=None, depth=20)
    found = of(case, "rerank")
    assert found.tokens == pytest.approx(200 * 20.2 * 80)  # 60 + 10 + 2 tokens, padded to 80
    assert found.note == "4,040 pairs"


def test_evaluation_computes_prompted_texts_again_with_examples() -> None:
    case = make("evaluate", with_examples=True, baselines=["untrained"], max_tokens=64)
    zero = 20 + 100 * 9 + 50 * 64
    shown = 20 + 2 * (20 + 2 * 48 + len("Response: ") / 4.4) + 100 * 9
    assert of(case, "evaluate").tokens == pytest.approx(2 * zero + shown)
    teacher = of(make("evaluate", with_examples=False, baselines=["teacher"]), "evaluate")
    assert teacher.tokens == pytest.approx(zero + 100 * 16 + 50 * 64)
    assert teacher.disk == 150 * 8 * 4


def test_bm25_indexes_every_document_and_compares_it_with_every_query() -> None:
    assert of(make(), "retrieve_bm25").seconds == pytest.approx(1 + 400 * 8.5e-5 + 200 * 400 * 5.2e-9 / 2)


def test_teachers_use_the_gpus_that_scoring_gives_them() -> None:
    eight = parse("h200x8")
    plain = {"engine": "local", "workers": 4, "gpus": 1.0}
    assert scoring.scorers(make("scoring", eight, **plain)) == 4
    assert scoring.scorers(make("scoring", eight, **plain | {"workers": None})) == 8
    assert scoring.scorers(make("scoring", parse("h200x16"), **plain | {"workers": None})) == 8
    assert scoring.scorers(make("scoring", parse("h200x16"), **plain | {"workers": None, "engine": "ray"})) == 16
    assert scoring.scorers(make("scoring", eight, **plain | {"engine": "ray"})) == 4
    assert scoring.scorers(make("scoring", eight, **plain | {"engine": "ray", "workers": 20})) == 8
    assert scoring.scorers(make("scoring", CPU, **plain | {"engine": "ray"})) == 1
    for stage in ("retrieve_dense", "rerank", "evaluate"):
        assert of(make("scoring", eight, **plain), stage).note.endswith(", on 4 of 8 GPUs")


def test_on_a_gpu_teachers_are_in_bfloat16_and_the_student_has_a_copy_in_it() -> None:
    for stage, number in (("retrieve_dense", 2), ("rerank", 2), ("evaluate", 6)):
        for is_wide in (False, True):
            expected = GPU_BASE + (4 if is_wide else number) * SHAPE.parameters
            assert memory.inference_memory(stage, SHAPE, 0, parse("l4"), is_wide=is_wide) == expected
    assert memory.inference_memory("evaluate", SHAPE, 10, CPU, is_wide=False) - memory.LIBRARIES["evaluate"] == (
        4 * SHAPE.parameters + 10 * (16 * 4 + 3 * (8 + 4) * 4)
    )


def test_ranks_on_a_cpu_share_the_machine_and_the_first_holds_the_copies() -> None:
    own = make().setup
    one, two = (memory.needed_memory(own._replace(ranks=ranks, zero_stage=0)) for ranks in (1, 2))
    assert two == 2 * one - 8 * own.trained


def test_adapters_on_a_gpu_read_the_checkpoint_in_their_own_numbers() -> None:
    full = make().setup._replace(ranks=2, weight_bytes=2, method="full")
    assert memory.host_memory(SHAPE, full) == 2 * (4 * SHAPE.parameters + memory.LIBRARIES["train"])
    lora = full._replace(ranks=1, method="lora")
    assert memory.host_memory(SHAPE, lora) == 2 * SHAPE.parameters + memory.LIBRARIES["train"]
    assert memory.host_memory(SHAPE._replace(is_tied=False), lora) - memory.host_memory(SHAPE, lora) == 2 * 40


def test_what_the_teachers_read_is_counted_by_their_own_numbers() -> None:
    assert scoring.LOGITS_AT_ONCE == query_likelihood.LOGITS_AT_ONCE
    assert scoring.PADDED_TO == padding.PADDED_TO
    assert scoring.JUDGED == shortlist.MAX_JUDGED
