"""The last layer trained alone, on states that are read once."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError

from anna.errors import InputError
from anna.modeling.encoder import Encoder, Part
from anna.modeling.encoder_config import EncoderConfig
from anna.training import alone, step
from anna.training import engine as engines
from anna.training.batches import Batch, Group
from anna.training.layout import lay_out
from anna.training.recipe import TrainParams
from tests.conftest import encoder_with, save_tiny
from tests.training.worker import recipe, toy_groups, toy_texts


def first(epochs: int = 1, batch_queries: int = 40, **changes: object) -> TrainParams:
    """A recipe that begins with the last layer, by default one batch for each of the two tasks."""
    chosen = {"epochs": epochs, "batch_queries": batch_queries, "learning_rate": 0.003}
    return TrainParams.model_validate(recipe(1, "full").model_dump() | changes | {"last_layer_first": chosen})


def whole(encoder: Encoder, batch: Batch, chosen: TrainParams) -> torch.Tensor:
    """The loss of a batch by the encoder itself, from tokens."""
    layout = lay_out(batch, 0, 1, toy_texts())
    sides = step.tokenize_batch(encoder, batch, batch.groups, layout.doc_ids, texts=toy_texts(), recipe=chosen)
    loss = step.loss_of(layout, texts=toy_texts(), recipe=chosen, device=encoder.device)
    value, _ = loss(*encoder(sides))
    return value


def test_what_is_known_of_texts_is_bounded_in_bytes() -> None:
    per_group = 2 * 512 * (16 + 3 * 16)  # recipe's tokens of a query, and of the three documents of the largest group
    assert alone.most(toy_groups(), first(), 512) == min(alone.MOST, alone.MOST_BYTES // per_group) == alone.MOST
    assert alone.most(toy_groups(), first(), 2**16) == alone.MOST_BYTES // (2 * 2**16 * 64) < alone.MOST


def planned(groups: Sequence[Group], chosen: TrainParams) -> list[Batch]:
    assert chosen.last_layer_first
    return alone.plan(groups, chosen, chosen.last_layer_first)


def is_last(name: str) -> bool:
    return name.startswith("layers.1.") or name == "norm.weight"


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
@pytest.mark.parametrize("window", [None, 6])
def test_vectors_are_the_encoders(
    attention: str, window: int | None, tiny_config: EncoderConfig, tmp_path: Path
) -> None:
    save_tiny(tmp_path / "model", sliding_window=window)
    encoder = encoder_with(tmp_path / "model", tiny_config, attention=attention)
    library = alone.read(encoder, toy_groups(), toy_texts(), first())
    for task, symmetric in (("Capitals", False), ("Similar", True)):
        members = [group for group in toy_groups() if group.task == task]
        for ids, texts, has_prompt in (
            ([group.query_id for group in members], toy_texts().queries, True),
            ([group.doc_ids[0] for group in members], toy_texts().docs, symmetric),
        ):
            prefix = encoder.config.prefix(task) if has_prompt else ""
            tokens = encoder.tokenize([texts[name] for name in ids], prefix=prefix, max_tokens=16)
            with torch.no_grad():
                torch.testing.assert_close(
                    alone.embed(encoder, task, ids, library), encoder([Part(tokens)])[0], rtol=0, atol=1e-3
                )


def test_a_text_that_names_the_token_for_padding_has_a_vector(tiny_encoder: Encoder) -> None:
    assert not tiny_encoder.backbone.get_input_embeddings().weight[tiny_encoder.tokenizer.eos_token_id].any()
    texts = toy_texts()
    texts = texts._replace(docs={**texts.docs, "d0": "</s> and more"})
    library = alone.read(tiny_encoder, toy_groups(), texts, first())
    assert all(known.own.isfinite().all() for known in library.texts.values())
    assert alone.embed(tiny_encoder, toy_groups()[0].task, ["d0"], library).isfinite().all()


def test_gradients_of_the_last_layer_are_those_of_the_whole(tiny_encoder: Encoder) -> None:
    chosen = first()
    library = alone.read(tiny_encoder, toy_groups(), toy_texts(), chosen)
    groups = tuple(group for group in toy_groups() if group.task == "Similar")
    batch = Batch("Similar", groups, ())
    weights = {name: w for name, w in tiny_encoder.backbone.named_parameters() if is_last(name)}
    expected = torch.autograd.grad(whole(tiny_encoder, batch, chosen), list(weights.values()))
    got = torch.autograd.grad(alone.loss(tiny_encoder, batch, library, toy_texts(), chosen), list(weights.values()))
    for name, ours, theirs in zip(weights, got, expected, strict=True):
        # What is known of a text is rounded to half precision.
        assert (ours - theirs).norm() < 5e-3 * theirs.norm(), name


def test_a_step_is_adams_of_the_whole_encoder_with_all_else_frozen(tiny_encoder: Encoder) -> None:
    chosen = first(warmup_steps=1)  # the first step is at half of the peak
    other = copy.deepcopy(tiny_encoder)
    alone.train_alone(tiny_encoder, toy_groups()[::3], toy_texts(), chosen)  # one task: one batch
    weights = [w for name, w in other.backbone.named_parameters() if is_last(name)]
    optimizer = engines.adamw(weights, 0.0015, chosen.weight_decay)
    (batch,) = planned(toy_groups()[::3], chosen)
    whole(other, batch, chosen).backward()
    torch.nn.utils.clip_grad_norm_(weights, chosen.max_gradient_norm)
    optimizer.step()
    moved = [
        (w - v).abs() for w, v in zip(tiny_encoder.backbone.parameters(), other.backbone.parameters(), strict=True)
    ]
    # Adam's first step is the learning rate whatever the gradient: rounding shows only where that is next to nothing.
    assert sum(int((part > 1e-4).sum()) for part in moved) < 0.01 * sum(part.numel() for part in moved)


def test_only_the_last_layer_and_the_final_norm_move_and_the_loss_falls(tiny_encoder: Encoder) -> None:
    chosen = first(epochs=8)
    before = {name: weight.clone() for name, weight in tiny_encoder.backbone.named_parameters()}
    library = alone.read(tiny_encoder, toy_groups(), toy_texts(), chosen)
    batches = planned(toy_groups(), chosen)[:2]

    def losses() -> float:
        return sum(alone.loss(tiny_encoder, batch, library, toy_texts(), chosen).item() for batch in batches)

    high = losses()
    alone.train_alone(tiny_encoder, toy_groups(), toy_texts(), chosen)
    assert losses() < high - 0.5
    for name, weight in tiny_encoder.backbone.named_parameters():
        assert torch.equal(weight, before[name]) != is_last(name), name
        assert weight.grad is None


def test_the_rate_rises_over_no_more_than_a_tenth_of_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def rate(step: int, steps: int, peak: float, warmup: int) -> float:
        asked.append((steps, warmup))
        raise KeyboardInterrupt

    monkeypatch.setattr(alone, "learning_rate", rate)
    layer = torch.nn.Linear(1, 1)
    encoder = SimpleNamespace(backbone=SimpleNamespace(layers=[layer], norm=torch.nn.Linear(1, 1)))
    for warmup in (100, 3):
        chosen, batches = SimpleNamespace(warmup_steps=warmup, weight_decay=0.0), [None] * 50
        with pytest.raises(KeyboardInterrupt):
            alone._descend(encoder, batches, None, None, chosen, peak=1e-3)  # type: ignore[arg-type]
    assert asked == [(50, 5), (50, 3)]


def test_every_epoch_sees_every_group_in_another_order() -> None:
    batches = planned(toy_groups(), first(epochs=3, batch_queries=5))
    seen = [group.query_id for batch in batches for group in batch.groups]
    epochs = [seen[n * 22 : (n + 1) * 22] for n in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [[f"q{n:02d}" for n in range(22)]] * 3
    assert epochs[0] != epochs[1] != epochs[2]


def test_no_more_groups_are_read_than_memory_is_meant_for(
    tiny_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Sequence[object]] = []
    monkeypatch.setattr(alone, "MOST", 7)
    kept: Callable[..., alone.Library] = alone.read
    monkeypatch.setattr(alone, "read", lambda *args: (read.append(args[1]), kept(*args))[1])
    alone.train_alone(tiny_encoder, toy_groups(), toy_texts(), first())
    assert [len(groups) for groups in read] == [7]


def test_null_changes_nothing(tiny_encoder: Encoder) -> None:
    before = {name: weight.clone() for name, weight in tiny_encoder.backbone.state_dict().items()}
    alone.train_alone(tiny_encoder, toy_groups(), toy_texts(), recipe(1, "full"))
    assert all(torch.equal(weight, before[name]) for name, weight in tiny_encoder.backbone.state_dict().items())


def test_what_it_is_not_for_is_refused(tiny_encoder: Encoder) -> None:
    tiny_encoder.backbone.config.model_type, tiny_encoder.reads_early = "gemma", False
    with pytest.raises(InputError, match=r"last_layer_first is for decoders .* a gemma, for which that is not known"):
        alone.train_alone(tiny_encoder, toy_groups(), toy_texts(), first())
    with pytest.raises(ValidationError, match="an adapter holds none of the last layer's own weights"):
        first(method="lora")


def test_a_gradient_that_is_not_finite_is_told(tiny_encoder: Encoder) -> None:
    tiny_encoder.backbone.norm.weight.data[0] = float("nan")
    with pytest.raises(
        InputError, match=r"step 1 of the last layer alone \(\w+\): gradient norm nan; nothing is saved"
    ):
        alone.train_alone(tiny_encoder, toy_groups(), toy_texts(), first())
