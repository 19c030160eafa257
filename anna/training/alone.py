"""The last layer trained alone, before the whole student is.

What lies below it stays as it is, so every text goes through that once, however many epochs follow; and where EOS alone
is a query in the last layer, all that an epoch computes are its keys and values, and one token per text. So epochs are
many and batches large, which the whole student could not afford.

Reference: a head first and then the whole, Kumar et al. 2022, arXiv:2202.10054 (theirs is linear).

Legend: T tokens of a packed row, D hidden dimensions.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from anna import log, seeding
from anna.errors import InputError
from anna.modeling import readout
from anna.modeling.attention import READS_EARLY
from anna.modeling.encoder import Encoder
from anna.modeling.readout_fit import Reading
from anna.training import engine as engines
from anna.training import step
from anna.training.batches import Batch, Group, Texts, plan_epochs
from anna.training.layout import lay_out
from anna.training.recipe import AloneParams, TrainParams
from anna.training.schedule import learning_rate

MOST = 10_000
"""Groups that are read at most."""

MOST_BYTES = 4 * 2**30
"""Memory for what the last layer is given of their texts: two bytes per token and dimension."""

_LEAST_NORM = torch.finfo(torch.float32).tiny

_log = logging.getLogger(__name__)


class Known(NamedTuple):
    """A text, and what the last layer is given of the tokens after its prompt."""

    reading: Reading
    own: Tensor
    """Divided by its root mean square, as the layer does in any case, (tokens, D), float16."""
    at_eos: Tensor
    """What the layer adds to at EOS, (D,)."""


class Library(NamedTuple):
    """All that has been read."""

    texts: Mapping[tuple[str, str], Known]
    """By task, which decides the prompt, and query_id or doc_id."""
    prompts: Mapping[tuple[int, ...], Tensor]
    """What the last layer is given of each prompt, as of texts."""


Told = dict[str, float]
"""Groups, epochs, steps and losses of the last layer's training; nothing where there was none."""


def check_reads_early(model_type: str) -> None:
    """Refuse students whose last layer is not known to compute EOS alone, which training it alone relies on."""
    if model_type not in READS_EARLY:
        raise InputError(
            f"train.last_layer_first is for decoders whose last layer computes EOS alone; this is a {model_type}, for "
            "which that is not known. Set it to null"
        )


def train_alone(encoder: Encoder, groups: Sequence[Group], texts: Texts, recipe: TrainParams) -> Told:
    """Train the last layer and the final norm, as `train.last_layer_first` says, on as many groups as `most` allows.

    Queries have zero-shot prompts: in-context examples are for the whole student to learn, the last layer alone would
    give up retrieval for them (docs/LOG.md). The loss is training's own. Every rank does all of it by itself.

    Args:
        encoder: What is trained.
        groups: With one positive each, the same in all epochs, before which all texts are read.
        texts: What they name.
        recipe: How.

    Raises:
        InputError: If the encoder's last layer does not read EOS alone, or a gradient is not finite.
    """
    alone = recipe.last_layer_first
    if alone is None:
        return {}
    check_reads_early(encoder.backbone.config.model_type)
    order = seeding.rng(recipe.seed, "last layer first").permutation(len(groups))
    chosen = [groups[number] for number in order[: most(groups, recipe, encoder.backbone.config.hidden_size)]]
    if len(chosen) < len(groups):
        _log.info("the last layer alone is trained on %d of %d groups", len(chosen), len(groups))
    library = read(encoder, chosen, texts, recipe)
    losses = _descend(encoder, plan(chosen, recipe, alone), library, texts, recipe, peak=alone.learning_rate)
    tenth = max(1, len(losses) // 10)
    first, last = (round(sum(part) / tenth, 4) for part in (losses[:tenth], losses[-tenth:]))
    _log.info(
        "the last layer alone, %d steps: loss %.3f in the first tenth, %.3f in the last", len(losses), first, last
    )
    return {
        "groups": len(chosen),
        "epochs": alone.epochs,
        "steps": len(losses),
        "loss_first_tenth": first,
        "loss_last_tenth": last,
    }


def _descend(
    encoder: Encoder, batches: Sequence[Batch], library: Library, texts: Texts, recipe: TrainParams, *, peak: float
) -> list[float]:
    """Take one step per batch, up to the learning rate `peak`, and return their losses."""
    weights = [*encoder.backbone.layers[-1].parameters(), *encoder.backbone.norm.parameters()]
    warmup = min(recipe.warmup_steps, max(1, len(batches) // 10))  # the whole run's may be more than there are steps
    optimizer = engines.adamw(weights, peak, recipe.weight_decay)
    losses = []
    for number, batch in log.progress(list(enumerate(batches)), unit="step", desc="training the last layer"):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(number, len(batches), peak, warmup)
        value = loss(encoder, batch, library, texts, recipe)
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(weights, recipe.max_gradient_norm)
        if not norm.isfinite():
            raise InputError(
                f"step {number + 1} of the last layer alone ({batch.task}): gradient norm {norm.item()}; nothing is "
                f"saved. Lower train.last_layer_first.learning_rate ({peak})"
            )
        optimizer.step()
        losses.append(value.item())
    optimizer.zero_grad()
    return losses


def most(groups: Sequence[Group], recipe: TrainParams, num_dims: int) -> int:
    """Return how many groups are read at most: `MOST`, or what takes `MOST_BYTES` if all texts are cut."""
    tokens = recipe.query_tokens + max(len(group.doc_ids) for group in groups) * recipe.doc_tokens
    return max(1, min(MOST, MOST_BYTES // (2 * num_dims * tokens)))


def read(encoder: Encoder, groups: Sequence[Group], texts: Texts, recipe: TrainParams) -> Library:
    """Return what the last layer is given of all queries and documents of the groups, each in one prompt."""
    readings: dict[tuple[str, str], Reading] = {}
    for task in sorted({group.task for group in groups}):
        whole = Batch(task, tuple(group for group in groups if group.task == task), examples=())
        ids = [group.query_id for group in whole.groups], whole.doc_ids()
        sides = step.tokenize_batch(encoder, whole, whole.groups, ids[1], texts=texts, recipe=recipe)
        for side, of_side, is_query in zip(sides, ids, (True, False), strict=True):
            for text_id, row in zip(of_side, side.rows, strict=True):
                readings[task, text_id] = Reading(row, side.num_shared, is_query)
    names = list(readings)
    known: dict[tuple[str, str], Known] = {}
    prompts: dict[tuple[int, ...], Tensor] = {}
    for number, hidden_TD in readout.read_hidden(encoder, list(readings.values())):
        reading = readings[names[number]]
        norm_T1 = hidden_TD.pow(2).mean(dim=1, keepdim=True).sqrt()
        # Of a token without a vector, as the one for padding may be, which a text can name, it is 0.
        unit_TD = (hidden_TD / norm_T1.clamp(min=_LEAST_NORM)).half().cpu()
        prompts.setdefault(tuple(reading.prompt), unit_TD[: reading.num_prompt].clone())
        known[names[number]] = Known(reading, unit_TD[reading.num_prompt :].clone(), hidden_TD[-1].cpu().clone())
    return Library(known, prompts)


def embed(encoder: Encoder, task: str, text_ids: Sequence[str], library: Library) -> Tensor:
    """Return the unit vectors of a task's texts, (texts, D), with gradients of the last layer and the final norm."""
    chosen = [library.texts[task, text_id] for text_id in text_ids]
    packing, places = readout.pack_readings([text.reading for text in chosen])
    given_TD = torch.empty(packing.ids.shape[1], len(chosen[0].at_eos))
    for text, (prompt, own) in zip(chosen, places, strict=True):
        given_TD[prompt.start : prompt.stop] = library.prompts[tuple(text.reading.prompt)].float()
        given_TD[own.start : own.stop] = text.own.float()
        given_TD[own.stop - 1] = text.at_eos
    return encoder.finish(packing, given_TD)


def plan(groups: Sequence[Group], recipe: TrainParams, alone: AloneParams) -> list[Batch]:
    """Return the batches of all epochs, in order."""
    return list(plan_epochs(groups, recipe, epochs=alone.epochs, batch_queries=alone.batch_queries, max_examples=0))


def loss(encoder: Encoder, batch: Batch, library: Library, texts: Texts, recipe: TrainParams) -> Tensor:
    """Return training's loss of a batch, the mean over its queries, from what is known of its texts."""
    layout = lay_out(batch, 0, 1, texts)
    of_vectors = step.loss_of(layout, texts=texts, recipe=recipe, device=encoder.device)
    query_emb_QD = embed(encoder, batch.task, [group.query_id for group in batch.groups], library)
    value, _ = of_vectors(query_emb_QD, embed(encoder, batch.task, layout.doc_ids, library))
    return value
