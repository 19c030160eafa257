"""What of the recipe reaches a training step."""

from typing import Any

import pytest
import torch

from anna.errors import InputError
from anna.modeling.encoder import Encoder, num_tokens
from anna.prompts import Example
from anna.training import engine as engines
from anna.training import losses, step
from anna.training.batches import Batch, Group
from anna.training.checks import check_dims, check_prompts, tell_cut
from anna.training.layout import lay_out
from anna.training.losses import combined_loss
from anna.training.recipe import TrainParams
from tests.training.test_gradcache import PlainEngine
from tests.training.worker import recipe, toy_groups, toy_texts


@pytest.fixture
def batch() -> Batch:
    return Batch("Capitals", tuple(group for group in toy_groups() if group.task == "Capitals")[:5], ())


def changed(**changes: Any) -> TrainParams:
    return TrainParams.model_validate(recipe(0, "full").model_dump() | changes)


@pytest.mark.usefixtures("alone")
def test_matryoshka_dims_are_trained(tiny_encoder: Encoder, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "step", lambda _: 0.0)
    seen: list[int] = []

    def watch(query: torch.Tensor, doc: torch.Tensor, *labels: torch.Tensor, **others: Any) -> losses.Terms:
        seen.append(query.shape[1])
        return combined_loss(query, doc, *labels, **others)

    monkeypatch.setattr(step, "combined_loss", watch)
    taken = {}
    for dims in ((), (8,)):
        engine = PlainEngine(tiny_encoder)
        taken[dims] = step.take(engine, tiny_encoder, batch, toy_texts(), changed(matryoshka_dims=dims))["loss"]
    assert seen == [32, 32, 8]
    assert taken[()] != pytest.approx(taken[8,], rel=1e-3)


@pytest.mark.usefixtures("alone")
def test_a_prompt_counts_as_often_as_it_is_computed(tiny_encoder: Encoder, batch: Batch) -> None:
    queries, texts, plain = [], toy_texts(), recipe(0, "full")
    for attention in ("causal", "bidirectional"):
        tiny_encoder.config = tiny_encoder.config.model_copy(update={"attention": attention})
        sides = step.tokenize_batch(tiny_encoder, batch, batch.groups, ["d1"], texts=texts, recipe=plain)
        queries.append(sides[0])
    once, each = (num_tokens([side]) for side in queries)
    assert each == sum(len(row) for row in queries[0].rows)
    assert once == each - 4 * queries[0].num_shared < each - 40


def test_a_twin_is_left_out_of_what_the_teacher_compares_a_text_with() -> None:
    texts = toy_texts()
    texts = texts._replace(
        docs={**texts.docs, "d0": "One, two", "d1": "one two"}, queries={**texts.queries, "q01": "ONE TWO"}
    )
    groups = (Group("q00", "Capitals", ("d0", "d2"), ()), Group("q01", "Capitals", ("d1", "d3"), ()))
    layout = lay_out(Batch("Capitals", groups, ()), 0, 1, texts)
    assert layout.text_ids == ["q00", "q01", "d0", "d2", "d1", "d3"]
    is_self = step._relations(layout, texts, torch.device("cpu")).is_self
    alike = torch.tensor([0, 1, 1, 2, 1, 3])
    assert torch.equal(is_self, alike[:, None] == alike)


def test_where_all_texts_are_twins_each_is_compared_with_the_others() -> None:
    texts = toy_texts()
    texts = texts._replace(docs={**texts.docs, "d0": "same"}, queries={**texts.queries, "q00": "Same"})
    layout = lay_out(Batch("Capitals", (Group("q00", "Capitals", ("d0",), ()),), ()), 0, 1, texts)
    assert torch.equal(step._relations(layout, texts, torch.device("cpu")).is_self, torch.eye(2, dtype=torch.bool))


def test_queries_and_documents_of_a_symmetric_task_share_one_prompt(tiny_encoder: Encoder) -> None:
    groups = [group for group in toy_groups() if group.task == "Similar"]
    batch, texts = Batch("Similar", tuple(groups[:4]), (groups[5],)), toy_texts()
    sides = step.tokenize_batch(tiny_encoder, batch, batch.groups, ["d1", "d3"], texts=texts, recipe=changed())
    prompt = tiny_encoder.count(step.batch_prefix(tiny_encoder, batch, texts))
    assert sides[0].prefix == sides[1].prefix
    assert prompt - 1 <= sides[0].num_shared <= prompt  # its last space may be part of a text's first token
    assert num_tokens(sides) == sum(len(row) for side in sides for row in side.rows) - 5 * sides[0].num_shared


def test_more_dimensions_than_the_student_has_are_refused() -> None:
    check_dims((8, 31), 32)
    with pytest.raises(InputError, match=r"train.matryoshka_dims has 32, but the student's vectors have 32 dimensions"):
        check_dims((8, 32), 32)


def test_a_prompt_that_leaves_too_little_room_is_refused_before_the_first_step(tiny_encoder: Encoder) -> None:
    groups, texts = tuple(group for group in toy_groups() if group.task == "Capitals"), toy_texts()
    batches = [Batch("Capitals", groups[:5], groups[5 : 5 + count]) for count in (0, 2, 1)]
    needed = tiny_encoder.count(step.batch_prefix(tiny_encoder, batches[1], texts)) + changed().query_tokens

    def check(max_tokens: int, *, num_examples: int = 0) -> None:
        prompt = tiny_encoder.config.tasks["Capitals"]
        prompt = prompt.model_copy(update={"examples": (Example("who", "he " * 200),) * num_examples})
        update = {"max_tokens": max_tokens, "tasks": {"Capitals": prompt}}
        tiny_encoder.config = tiny_encoder.config.model_copy(update=update)
        check_prompts(tiny_encoder, batches, texts, changed())

    check(needed)
    with pytest.raises(InputError, match=r"train.doc_tokens is \d+, but prompts.max_tokens is \d+; lower it"):
        check(changed().doc_tokens - 1)
    with pytest.raises(InputError, match=r"prompts.max_tokens is 9999999, but the student knows \d+ positions"):
        check(9999999)
    with pytest.raises(InputError, match=rf"is {needed - 1}, but the prompt of step 2 \(task 'Capitals', 2 examples\)"):
        check(needed - 1)
    with pytest.raises(InputError, match=r"task 'Capitals' with all of its 1 examples, .* lower ingest.examples_per_t"):
        check(needed, num_examples=1)


def test_how_many_texts_lose_their_end_is_told(tiny_encoder: Encoder, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    docs = {str(number): "water " * (3 if number % 4 else 90) for number in range(1200)}
    texts = toy_texts()._replace(docs=docs)
    tell_cut(tiny_encoder, texts, changed(doc_tokens=80, query_tokens=80))
    (told,) = [record.message for record in caplog.records if "lose their end" in record.message]
    longest = len(tiny_encoder.tokenizer(docs["0"])["input_ids"])
    assert longest > 80
    assert told == (
        "25 % of documents are longer than the 80 tokens that are read of each, and lose their end; the longest of 600 "
        f"has {longest}"
    )


@pytest.mark.parametrize("change", [{"method": "full"}, {"zero_stage": 3}])
def test_quantized_matrices_that_would_move_or_be_sharded_are_refused(change: dict[str, Any]) -> None:
    assert changed(quantize="nf4", method="lora", zero_stage=2).quantize == "nf4"
    with pytest.raises(ValueError, match="4-bit matrices cannot move or be sharded; set method lora and zero_stage 0"):
        changed(**{"quantize": "nf4", "method": "lora", "zero_stage": 2, **change})
