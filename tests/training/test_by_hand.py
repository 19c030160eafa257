"""What is trained, against plain code: the loss one number at a time, and an optimizer that is told every number."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from anna.modeling.encoder import Encoder, Part
from anna.training import engine as engines
from anna.training import loop, run, step
from anna.training.batches import Batch
from anna.training.layout import lay_out
from anna.training.recipe import TrainParams
from tests.conftest import tiny_student
from tests.training.test_gradcache import PlainEngine
from tests.training.worker import prompts, recipe, toy_groups, toy_texts

OTHERS, LAST = tuple(toy_groups()[number] for number in (7, 5, 1, 8)), toy_groups()[2]
GROUPS = (*OTHERS, LAST._replace(soft_labels=()))
"""q05 has d7, q07's positive, as another of its own; the last query has no soft labels, as those with a class."""
TEXTS = toy_texts()._replace(queries={name: f"{text} " * 5 for name, text in toy_texts().queries.items()})
KNOWN = {name: torch.from_numpy(vector) for name, vector in TEXTS.vectors.items()}


def changed(**changes: object) -> TrainParams:
    """A recipe whose numbers all differ."""
    numbers = {"query_tokens": 6, "doc_tokens": 8, "kd_weight": 0.7, "batch_kd_weight": 0.3, "matryoshka_dims": (8,)}
    numbers |= {"temperature": 0.2, "batch_teacher_temperature": 0.15, "false_negative_margin": 0.05}
    return TrainParams.model_validate(recipe(0, "full").model_dump() | numbers | changes)


def log_share(of: Tensor, among: Iterable[Tensor], temperature: float) -> Tensor:
    """The log of a softmax at one of its values."""
    return of / temperature - torch.stack([value / temperature for value in among]).exp().sum().log()


def loss_by_hand(emb: dict[str, Tensor], margin: float) -> Tensor:
    """The loss of `GROUPS` from unit vectors, as docs/PIPELINE.md defines it."""

    def cosine(one: str, other: str) -> Tensor:
        return emb[one] @ emb[other]

    docs = {doc for group in GROUPS for doc in group.doc_ids}
    losses = []
    for query, _, group, labels, _ in GROUPS:
        limit = cosine(query, group[0]) + margin
        others = {doc for doc in docs - {*group} if cosine(query, doc) <= limit} - TEXTS.positives.get(query, set())
        loss = -log_share(cosine(query, group[0]), [cosine(query, doc) for doc in (*group, *others)], 0.2)
        for doc, label in zip(group if labels else (), labels, strict=True):
            loss -= 0.7 * label * log_share(cosine(query, doc), [cosine(query, other) for other in group], 0.2)
        losses.append(loss)
    texts, distilled = [*docs, *(group.query_id for group in GROUPS)], []
    for text in texts:
        others = {*texts} - {text}
        for other in others:
            share = log_share(KNOWN[text] @ KNOWN[other], [KNOWN[text] @ KNOWN[third] for third in others], 0.15).exp()
            distilled.append(-share * log_share(cosine(text, other), [cosine(text, third) for third in others], 0.2))
    return torch.stack(losses).mean() + 0.3 * torch.stack(distilled).sum() / len(texts)


def embed(encoder: Encoder, text: str, prefix: str, max_tokens: int) -> Tensor:
    """A text's vector, computed alone: its prompt whole, itself cut to `max_tokens`, EOS the last of them."""
    *tokens, eos = encoder.tokenizer(prefix + text)["input_ids"]
    assert len(tokens) >= encoder.count(prefix) + max_tokens or not prefix, "a query that is not cut proves nothing"
    return encoder([Part([[*tokens[: encoder.count(prefix) + max_tokens - 1], eos]])])[0][0]


@pytest.mark.usefixtures("alone")
def test_a_steps_loss_and_gradient_are_the_definitions(tiny_encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "step", lambda _: 0.0)
    got = step.take(PlainEngine(tiny_encoder), tiny_encoder, Batch("Capitals", GROUPS, ()), TEXTS, changed())["loss"]
    gradients = {name: weight.grad for name, weight in tiny_encoder.named_parameters()}
    tiny_encoder.zero_grad()
    prefix = tiny_encoder.config.prefix("Capitals")
    emb = {group.query_id: embed(tiny_encoder, TEXTS.queries[group.query_id], prefix, 6) for group in GROUPS}
    emb |= {doc: embed(tiny_encoder, TEXTS.docs[doc], "", 8) for group in GROUPS for doc in group.doc_ids}
    cut = {name: torch.nn.functional.normalize(vector[:8], dim=0) for name, vector in emb.items()}
    expected = (loss_by_hand(emb, 0.05) + loss_by_hand(cut, 0.05)) / 2
    assert got == pytest.approx(expected.item(), rel=1e-5)
    assert loss_by_hand(emb, 0.05) < loss_by_hand(emb, 2.0) - 1e-3, "a margin that masks nothing proves nothing"
    expected.backward()  # type: ignore[no-untyped-call]
    for name, weight in tiny_encoder.named_parameters():
        torch.testing.assert_close(gradients[name], weight.grad, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.usefixtures("alone")
def test_steps_are_adamws_with_the_recipes_numbers(tiny_checkpoint: Path) -> None:
    chosen = changed(max_gradient_norm=0.01, weight_decay=0.3, learning_rate=0.003, warmup_steps=2)
    encoder, other = (run.new_encoder(tiny_student(tiny_checkpoint), prompts(), {}, chosen) for _ in range(2))
    batches = run.plan(toy_groups(), chosen)[:3]
    records = loop.train(engines.start_engine(encoder, chosen), encoder, batches, TEXTS, chosen)
    optimizer = torch.optim.AdamW(other.parameters(), betas=(0.9, 0.98), weight_decay=0.3)
    for batch, rate, record in zip(batches, (0.001, 0.002, 0.003), records, strict=True):
        layout = lay_out(batch, 0, 1, TEXTS)
        sides = step.tokenize_batch(other, batch, batch.groups, layout.doc_ids, texts=TEXTS, recipe=chosen)
        value, _ = step.loss_of(layout, texts=TEXTS, recipe=chosen, device=other.device)(*other(sides))
        optimizer.zero_grad()
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(other.parameters(), 0.01)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        assert (record["learning_rate"], record["gradient_norm"]) == pytest.approx((rate, norm.item()), rel=1e-4)
    for (name, got), expected in zip(encoder.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-6, msg=name)


@pytest.mark.usefixtures("alone")
def test_in_bfloat16_as_on_a_gpu_zero_0_takes_the_steps_of_zero_1(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_bfloat16(**given: Any) -> Any:
        given["config"]["bf16"] = {"enabled": True}
        return initialize(**given)

    initialize = engines.deepspeed.initialize
    monkeypatch.setattr(engines.deepspeed, "initialize", in_bfloat16)
    losses = []
    for stage in (0, 1):
        chosen = changed(zero_stage=stage, dtype="bfloat16", weight_decay=0.3, warmup_steps=0, learning_rate=0.003)
        encoder = run.new_encoder(tiny_student(tiny_checkpoint), prompts(), {}, chosen)
        batches = run.plan(toy_groups(), chosen)[:4]
        records = loop.train(engines.start_engine(encoder, chosen), encoder, batches, TEXTS, chosen)
        losses.append([record["loss"] for record in records])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize("is_frozen", [True, False])
def test_all_is_trained_but_a_token_table_that_is_frozen(tiny_checkpoint: Path, is_frozen: bool) -> None:
    encoder = run.new_encoder(tiny_student(tiny_checkpoint), prompts(), {}, changed(freeze_token_table=is_frozen))
    frozen = {name for name, weight in encoder.named_parameters() if not weight.requires_grad}
    assert frozen == ({"backbone.embed_tokens.weight"} if is_frozen else set())
