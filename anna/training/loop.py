"""One pass over the planned batches: embed, gather, loss, step, record.

Legend: Q queries on this rank, N documents of all ranks, G group size, D dimensions.
"""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from anna import log
from anna.errors import InputError
from anna.modeling.batching import shared_prefix
from anna.modeling.encoder import Encoder
from anna.prompts import query_prefix
from anna.training import engine as engines
from anna.training.batches import Batch, Group, Layout, lay_out
from anna.training.gather import gather_rows
from anna.training.losses import combined_loss
from anna.training.recipe import TrainParams
from anna.training.schedule import learning_rate

_log = logging.getLogger(__name__)


class Texts(NamedTuple):
    """Everything that batches name by id or by task."""

    queries: Mapping[str, str]
    """Text by query_id."""
    docs: Mapping[str, str]
    """Text by doc_id."""
    positives: Mapping[str, frozenset[str]]
    """Every labelled positive by query_id."""
    group_only: frozenset[str]
    """Tasks whose queries are compared with their own group alone."""


def train(
    engine: Any, encoder: Encoder, batches: Sequence[Batch], texts: Texts, recipe: TrainParams
) -> list[dict[str, float | int | str]]:
    """Take one optimizer step per batch and return one record per step.

    Raises:
        InputError: If a loss or gradient norm is not finite; nothing is saved then.
    """
    records: list[dict[str, float | int | str]] = []
    queries, started = 0, time.perf_counter()
    engine.train()
    for step, batch in enumerate(log.progress(batches, unit="step", desc="training")):
        rate = learning_rate(step, len(batches), recipe.learning_rate, recipe.warmup_steps)
        for group in engine.optimizer.param_groups:
            group["lr"] = rate
        *terms, norm = _step(engine, encoder, batch, texts, recipe)
        queries += len(batch.groups)
        if not math.isfinite(terms[0]) or not math.isfinite(norm):
            raise InputError(
                f"step {step} ({batch.task}): loss {terms[0]}, gradient norm {norm}; nothing is saved. "
                f"Lower train.learning_rate ({recipe.learning_rate}) or raise train.temperature"
            )
        names = ("loss", "info_nce", "soft_label_ce", "learning_rate", "gradient_norm")
        values = (round(value, 6) for value in (*terms, rate, norm))
        records.append(
            {"step": step + 1, "queries": queries, **dict(zip(names, values, strict=True)), "task": batch.task}
        )
        if step % 10 == 9:
            seconds = time.perf_counter() - started
            _log.info(
                "step %d/%d %s: loss %.3f (InfoNCE %.3f, soft labels %.3f), gradient norm %.2f, %.1f queries/s",
                step + 1,
                len(batches),
                batch.task,
                *terms,
                norm,
                queries / seconds,
            )
    return records


def _step(engine: Any, encoder: Encoder, batch: Batch, texts: Texts, recipe: TrainParams) -> tuple[float, ...]:
    """Embed, gather, take one optimizer step; return loss, both its terms and the gradient norm, over all ranks."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    layout = lay_out(batch, world_size, texts.positives, batch.task in texts.group_only)
    share = batch.share(rank, world_size)
    query_ids, doc_ids, shared = tokenize_batch(encoder, batch, share, layout.doc_ids[rank], texts=texts, recipe=recipe)
    query_emb_QD, own_doc_emb = engine(query_ids, doc_ids, shared)
    doc_emb_ND = gather_rows(own_doc_emb, [len(block) for block in layout.doc_ids])
    terms_Q = combined_loss(
        query_emb_QD,
        doc_emb_ND,
        *_targets(layout, rank, share, len(doc_emb_ND), query_emb_QD.device),
        temperature=recipe.temperature,
        kd_weight=recipe.kd_weight,
        false_negative_margin=recipe.false_negative_margin,
    )
    # DeepSpeed averages gradients over ranks, so each rank's loss is its queries' sum times W / (queries of all ranks):
    # the average over W ranks is then the mean over all queries, and `gather_rows` sums what ranks owe each other.
    total = len(batch.groups)
    engine.backward(terms_Q[0].sum() * (world_size / total))
    norm = engines.step(engine)
    means = torch.stack([term.detach().sum().float() for term in terms_Q]) / total
    dist.all_reduce(means)
    return (*means.tolist(), norm)


def tokenize_batch(
    encoder: Encoder,
    batch: Batch,
    share: Sequence[Group],
    doc_ids: Sequence[str],
    *,
    texts: Texts,
    recipe: TrainParams,
) -> tuple[list[list[int]], list[list[int]], tuple[int, int]]:
    """Return the tokens of a rank's queries and documents, and how many leading tokens each side shares."""
    prompt = encoder.config.task(batch.task)
    examples = [encoder.cut_example(texts.queries[g.query_id], texts.docs[g.doc_ids[0]]) for g in batch.examples]
    prefix = query_prefix(prompt.instruction, examples)
    doc_prefix = prefix if prompt.symmetric else ""
    queries = encoder.tokenize(
        [texts.queries[g.query_id] for g in share], prefix=prefix, max_tokens=recipe.query_tokens
    )
    docs = encoder.tokenize([texts.docs[d] for d in doc_ids], prefix=doc_prefix, max_tokens=recipe.doc_tokens)
    # Whether there is a shared pass must be the same on all ranks; how many tokens it has need not.
    return queries, docs, (shared_prefix(queries), shared_prefix(docs) if doc_prefix else 0)


def _targets(
    layout: Layout, rank: int, share: Sequence[Group], num_docs: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the groups' columns (-1 where absent), soft labels (0 where absent) and the mask of a rank's queries."""
    width = max(len(group.doc_ids) for group in share)
    group_QG = torch.full((len(share), width), -1)
    soft_labels_QG = torch.zeros(len(share), width)
    is_masked_QN = torch.zeros(len(share), num_docs, dtype=torch.bool)
    for row, group in enumerate(share):
        group_QG[row, : len(group.doc_ids)] = torch.tensor(layout.columns[rank][row])
        soft_labels_QG[row, : len(group.doc_ids)] = torch.tensor(group.soft_labels)
        is_masked_QN[row, layout.is_masked[rank][row]] = True
    return group_QG.to(device), soft_labels_QG.to(device), is_masked_QN.to(device)
