"""What batches come to, by hand."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from anna.modeling import readout
from anna.planning import training, work
from anna.planning.counts import Counts, Task
from anna.planning.settings import Settings
from anna.shapes import Shape
from anna.training import alone, last_layer, validation
from anna.training.recipe import AloneParams
from tests.planning.conftest import MEASURED_ON, REPO, read_settings

SHAPE = Shape(layers=3, hidden=4, ffn=8, heads=2, key_heads=1, head_dim=2, vocabulary=10)

TASK = Task(
    name="T",
    kind="retrieval",
    queries=200,
    docs=400,
    groups=160,
    query_lengths=np.array([10.0]),
    doc_lengths=np.array([60.0]),
    prompt_tokens=20.0,
    is_symmetric=False,
    has_negatives=False,
)

FIXED = {
    "batch_queries": 16,
    "max_examples": 0,
    "last_layer_first": None,
    "chain_negatives": False,
    "validation_queries": 0,
    "query_tokens": 48,
    "doc_tokens": 48,
    "method": "full",
    "gradient_checkpointing": False,
    "max_micro_step_tokens": None,
    "max_steps": None,
    "epochs": 1,
}


def settings(**train: Any) -> Settings:
    """The default's with one negative, causal attention, and training as in `FIXED`, as changed."""
    plain = read_settings(REPO / "params.yaml")
    sections: dict[str, Any] = {
        "train": plain.train.model_copy(update=FIXED | train),
        "filter": plain.filter.model_copy(update={"negatives_per_query": 1}),
        "prompts": plain.prompts.model_copy(update={"example_tokens": 48}),
        "student": plain.student.model_copy(
            update={"attention": "causal", "pooling": "last_token", "last_layer": "pretrained"}
        ),
        "ingest": plain.ingest.model_copy(update={"validation_share": 0.05}),
    }
    return plain._replace(**sections)


def test_a_prompt_is_computed_once_for_a_batch() -> None:
    done = training.plan_pass(TASK, settings(), 16, 0)
    docs = 16 * (1 + training.NEW_NEGATIVES)
    assert done.tokens == pytest.approx(20 + 16 * 10 + docs * 48)  # train.doc_tokens: 48
    assert done.texts == pytest.approx(16 + docs)
    keys = 20 * 10 + 16 * 10 * 25 + docs * 48 * 24
    assert done.context == pytest.approx(keys / done.tokens)
    assert not done.is_cut


def test_examples_are_part_of_the_prompt_and_cut() -> None:
    none, two = (training.plan_pass(TASK, settings(), 16, examples).tokens for examples in (0, 2))
    assert two - none == pytest.approx(2 * (20 + 10 + 48 + training.AROUND_EXAMPLE))  # prompts.example_tokens: 48


def test_bidirectional_attention_computes_it_for_every_text() -> None:
    plain = settings()
    student = plain.student.model_copy(update={"attention": "bidirectional"})
    both = plain._replace(student=student)
    done = training.plan_pass(TASK, both, 16, 0)
    assert done.tokens - training.plan_pass(TASK, plain, 16, 0).tokens == pytest.approx(15 * 20)
    docs = 16 * (1 + training.NEW_NEGATIVES)
    assert done.context * done.tokens == pytest.approx(16 * (20 + 10) ** 2 + docs * 48**2)  # each sees its whole text


def test_a_chained_negative_is_in_the_batch_more_often() -> None:
    loose, chained = (training.plan_pass(TASK, settings(chain_negatives=on), 16, 0).texts for on in (False, True))
    assert loose - chained == pytest.approx(16 * (training.NEW_NEGATIVES - training.NEW_CHAINED))


def test_steps_tokens_and_operations_of_a_run() -> None:
    counts, made = Counts((TASK,), "", ()), settings(epochs=2)
    done = training.plan(made, counts, SHAPE, ranks=2)
    one = training.plan_pass(TASK, made, 8, 0)
    assert done.steps == 20
    assert done.tokens == pytest.approx(20 * 2 * one.tokens)
    each = 3 * work.forward_read(SHAPE, one.context, one.texts / one.tokens)
    assert done.operations == pytest.approx(done.tokens * each)
    assert (done.cut_share, done.largest, done.largest_batch) == (0, round(one.tokens), round(one.tokens))


def test_a_limit_of_steps_and_a_cut_batch() -> None:
    counts = Counts((TASK,), "", ())
    whole = training.plan(settings(), counts, SHAPE, ranks=1)
    few = training.plan(settings(max_steps=5), counts, SHAPE, ranks=1)
    assert few.steps == 5
    assert few.tokens == pytest.approx(whole.tokens / 2)
    cut = training.plan(settings(max_micro_step_tokens=500), counts, SHAPE, ranks=1)
    assert (cut.cut_share, cut.largest, cut.largest_batch) == (1.0, 500, whole.largest)
    assert cut.operations == pytest.approx(whole.operations * 4 / 3)


def test_each_rank_reads_the_sample_that_the_last_layer_starts_from() -> None:
    plain, counts = settings(), Counts((TASK,), "", ())
    student = plain.student.model_copy(update={"last_layer": "weighted_mean"})
    made = plain._replace(student=student)
    more = training.plan(made, counts, SHAPE, 2).operations - training.plan(plain, counts, SHAPE, 2).operations
    # All of the groups, since there are fewer than SAMPLE.
    sample = 160 * (20 / 32 + 10 + 48) * work.forward_read(SHAPE, 0, 0)
    assert more == pytest.approx(2 * sample)
    assert training.SAMPLE == last_layer.SAMPLE
    many = Counts((replace(TASK, groups=4000),), "", ())
    assert training.last_layer(made, many, SHAPE) == pytest.approx(sample * training.SAMPLE / 160)
    shown = made._replace(train=made.train.model_copy(update={"max_examples": 2}))
    exampled = training.last_layer(shown, counts, SHAPE) - training.last_layer(made, counts, SHAPE)
    prompt = 20 + 1.5 * (20 + 10 + 48 + training.AROUND_EXAMPLE)  # once for the 4 queries of each of 10 batches
    assert exampled == pytest.approx((40 * (10 + 3 * 60) + 10 * prompt) * work.forward_read(SHAPE, 0, 0))
    assert training.EXAMPLED == last_layer.EXAMPLED
    assert training.EXAMPLED_PER_BATCH == last_layer.EXAMPLED_PER_BATCH
    assert training.EXAMPLED_TOKENS == last_layer.EXAMPLED_TOKENS
    assert training.READ_AT_ONCE == readout.BATCH


def test_each_rank_trains_the_last_layer_first() -> None:
    first = AloneParams(epochs=5, batch_queries=40, learning_rate=1e-3)
    counts = Counts((TASK,), "", ())
    plain = training.plan(settings(), counts, SHAPE, 2).operations
    more = training.plan(settings(last_layer_first=first), counts, SHAPE, 2).operations - plain
    tokens, texts = 4 * 20 + 160 * (10 + 1.9 * 48), 160 * 2.9  # the prompt once for each of 4 batches
    seen = training.plan_pass(TASK, settings(), 40, 0).context
    once = tokens * work.forward_read(SHAPE, seen, texts / tokens)
    assert more == pytest.approx(2 * (once + 5 * 3 * tokens * work.last_layer(SHAPE, seen, texts / tokens)))
    many = Counts((replace(TASK, groups=16_000),), "", ())
    all_of_them = replace(TASK, groups=alone.MOST)
    assert training.alone(settings(last_layer_first=first), many, SHAPE) == pytest.approx(
        training.alone(settings(last_layer_first=first), Counts((all_of_them,), "", ()), SHAPE)
    )


def test_the_last_layer_holds_its_sample_or_what_it_is_given_of_all_texts() -> None:
    counts, plain = Counts((TASK,), "", ()), settings()
    own = training.setup(plain.train, SHAPE, MEASURED_ON, 1, 100)
    assert training.start(plain, counts, own) == 0
    whole = 4 * SHAPE.parameters
    first = settings(last_layer_first=AloneParams(epochs=5, batch_queries=40, learning_rate=1e-3))
    docs = 160 * 2  # of 400
    known = 2 * 4 * (160 * 10 + docs * 48) + 4 * 4 * (160 + docs)
    batch = training.plan_pass(TASK, first, 40, 0).tokens * (4 * 4 + 12 * 4 + 2 * 2 * 4)  # given; states; keys, values
    trained = training.start(first, counts, own)
    assert trained == pytest.approx(whole + known + batch)
    assert training.start(first, counts, own._replace(is_gpu=True)) == whole
    student = first.student.model_copy(update={"last_layer": "weighted_mean"})
    fitted = training.start(first._replace(student=student), counts, own)
    assert fitted == pytest.approx(whole + 3 * 8 * 4 * 160 * (10 + 48 + 20))
    assert fitted > trained
    assert training.SAMPLE_BYTES == last_layer.SAMPLE_BYTES


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_a_task_without_groups_trains_nothing(attention: str) -> None:
    plain = settings(last_layer_first=AloneParams(epochs=5, batch_queries=40, learning_rate=1e-3), epochs=3)
    changed = plain._replace(student=plain.student.model_copy(update={"attention": attention}))
    both = Counts((TASK, replace(TASK, name="U", groups=0)), "", ())
    with_it, without = (training.plan(changed, counts, SHAPE, 1) for counts in (both, Counts((TASK,), "", ())))
    assert with_it == without


def test_validations_are_counted_by_their_interval() -> None:
    counts = Counts((TASK,), "", ())
    none = training.plan(settings(), counts, SHAPE, 1).operations
    some = settings(validation_queries=4, validation_steps=4)
    checks = training.plan(some, counts, SHAPE, 1).operations - none
    once = 4 * (10 + 48 * training.VALIDATION_DOCS) * work.forward_read(SHAPE, 0, 0)
    assert checks == pytest.approx(4 * once)  # before the first step, after steps 4, 8 and 10
    last = training.plan(settings(validation_queries=4, validation_steps=None), counts, SHAPE, 1).operations - none
    assert last == pytest.approx(2 * once)
    labels = Counts((TASK.__class__(**{**vars(TASK), "kind": "classification"}),), "", ())
    assert training.validation(some, labels, SHAPE, 10) == 0
    assert training.VALIDATION_DOCS == 1 + validation.CANDIDATES
