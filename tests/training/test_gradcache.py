"""A batch in micro-steps against the same batch in one graph."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from anna.modeling.batching import shared_prefix
from anna.modeling.encoder import Encoder, Part, num_tokens
from anna.training import engine as engines
from anna.training import gradcache
from anna.training.gradcache import Sides
from tests.training.worker import toy_texts


class PlainEngine:
    """A module without DeepSpeed, and what was asked of its gradient accumulation."""

    def __init__(self, module: Encoder) -> None:
        self.module, self.boundaries = module, list[bool]()

    def __call__(self, parts: Any) -> tuple[Tensor, ...]:
        vectors: tuple[Tensor, ...] = self.module(parts)
        return vectors

    def set_gradient_accumulation_boundary(self, is_boundary: bool) -> None:
        self.boundaries.append(is_boundary)

    def backward(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]


@pytest.fixture
def sides(tiny_encoder: Encoder) -> Sides:
    texts = toy_texts()
    prefix = tiny_encoder.config.prefix("Capitals", 2)
    queries = tiny_encoder.tokenize(list(texts.queries.values())[:7], prefix=prefix, max_tokens=16)
    docs = tiny_encoder.tokenize(list(texts.docs.values())[:19], max_tokens=16)
    return Part(queries, shared_prefix(queries)), Part(docs, 0)


def loss(queries: Tensor, docs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """InfoNCE with document n as query n's positive."""
    value = torch.nn.functional.cross_entropy(queries @ docs.T / 0.1, torch.arange(len(queries)))
    return value, {"loss": value.detach()}


def gradients(module: torch.nn.Module) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad()
    return found


@pytest.fixture(autouse=True)
def _alone() -> None:
    engines.init_distributed()


@pytest.mark.parametrize("max_tokens", [1, 60, 100, 10_000])
def test_micro_steps_give_the_gradient_of_one_pass(tiny_encoder: Encoder, sides: Sides, max_tokens: int) -> None:
    engine = PlainEngine(tiny_encoder.double())
    statistics, plain_tokens = gradcache.backward(engine, sides, loss, None)
    expected = gradients(engine.module)
    assert engine.boundaries == [True]
    engine.boundaries.clear()
    cut_statistics, tokens = gradcache.backward(engine, sides, loss, max_tokens)
    got = gradients(engine.module)
    assert cut_statistics["loss"].item() == pytest.approx(statistics["loss"].item(), rel=1e-6)
    assert got.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-5, atol=1e-7)  # RMSNorm rounds to float32
    chunks = gradcache.plan(sides, max_tokens)
    num_steps = 1 if chunks is None else len(chunks)
    assert (num_steps == 1) == (max_tokens == 10_000)
    assert engine.boundaries == [False] * (num_steps - 1) + [True]
    assert (tokens == plain_tokens) == (num_steps == 1)  # each micro-step of queries computes the prompt again


def test_dropout_falls_the_same_in_both_passes(tiny_encoder: Encoder, sides: Sides) -> None:
    config = LoraConfig(r=4, lora_dropout=0.5, target_modules="all-linear", init_lora_weights=False)
    tiny_encoder.backbone = get_peft_model(tiny_encoder.backbone, config)
    module = tiny_encoder.train()
    chunks = gradcache.plan(sides, 60) or []
    torch.manual_seed(5)
    parts = [module([gradcache._part(sides, chunk)])[0] for chunk in chunks]
    vectors = []
    for number, side in enumerate(sides):
        order = [row for chunk in chunks for row in chunk.rows if chunk.side == number]
        rows = torch.cat([part for chunk, part in zip(chunks, parts, strict=True) if chunk.side == number])
        vectors.append(rows[torch.tensor(order).argsort()])
        assert len(order) == len(side.rows)
    loss(*vectors)[0].backward()  # type: ignore[no-untyped-call]
    after, expected = torch.get_rng_state(), gradients(module)
    torch.manual_seed(5)
    gradcache.backward(PlainEngine(module), sides, loss, 60)
    assert torch.equal(torch.get_rng_state(), after)
    for name, gradient in gradients(module).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


def test_what_is_embedded_for_other_ranks_sake_is_no_part_of_the_loss(
    tiny_encoder: Encoder, sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = LoraConfig(r=4, lora_dropout=0.5, target_modules="all-linear", init_lora_weights=False)
    tiny_encoder.backbone = get_peft_model(tiny_encoder.backbone, config)
    engine = PlainEngine(tiny_encoder.train())
    chunks = gradcache.plan(sides, 60) or []
    torch.manual_seed(5)
    _, num_computed = gradcache.backward(engine, sides, loss, 60)
    expected = gradients(engine.module)
    extra = chunks[-1]._replace(is_extra=True)  # as of a rank that has fewer micro-steps
    monkeypatch.setattr(gradcache, "plan", lambda *_: [*chunks, extra])
    torch.manual_seed(5)
    assert gradcache.backward(engine, sides, loss, 60)[1] == num_computed
    for name, gradient in gradients(engine.module).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


def test_every_row_is_embedded_once_within_the_budget(sides: Sides) -> None:
    chunks = gradcache.plan(sides, 60) or []
    for number, side in enumerate(sides):
        own = [chunk for chunk in chunks if chunk.side == number]
        assert sorted(row for chunk in own for row in chunk.rows) == list(range(len(side.rows)))
        assert all(len(chunk.rows) == 1 or num_tokens([gradcache._part(sides, chunk)]) <= 60 for chunk in own)
