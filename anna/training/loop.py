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
        got = _step(engine, encoder, batch, texts, recipe)
        queries += len(batch.groups)
        if not math.isfinite(got["loss"]) or not math.isfinite(got["gradient_norm"]):
            raise InputError(
                f"step {step} ({batch.task}): loss {got['loss']}, gradient norm {got['gradient_norm']}; nothing is "
                f"saved. Lower train.learning_rate ({recipe.learning_rate}) or raise train.temperature"
            )
        names = ("loss", "info_nce", "soft_label_ce", "learning_rate", "gradient_norm")
        values = (round(value, 6) for value in ({**got, "learning_rate": rate}[name] for name in names))
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
                *(got[name] for name in ("loss", "info_nce", "soft_label_ce", "gradient_norm")),
                queries / seconds,
            )
    return records


def _step(engine: Any, encoder: Encoder, batch: Batch, texts: Texts, recipe: TrainParams) -> dict[str, float]:
    """Embed, gather, take one optimizer step; return the step's statistics by name, over all ranks."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    layout = lay_out(batch, world_size, texts.positives, batch.task in texts.group_only)
    share = batch.share(rank, world_size)
    query_ids, doc_ids, shared = tokenize_batch(encoder, batch, share, layout.doc_ids[rank], texts=texts, recipe=recipe)
    query_emb_QD, own_doc_emb = engine(query_ids, doc_ids, shared)
    doc_emb_ND = gather_rows(own_doc_emb, [len(block) for block in layout.doc_ids])
    targets = _targets(layout, rank, share, len(doc_emb_ND), query_emb_QD.device)
    terms_Q = combined_loss(
        query_emb_QD,
        doc_emb_ND,
        *targets,
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
    tokens = sum(map(len, query_ids)) + sum(map(len, doc_ids))
    saved = shared[0] * (len(query_ids) - 1) + shared[1] * (len(doc_ids) - 1)
    return {
        **dict(zip(("loss", "info_nce", "soft_label_ce"), means.tolist(), strict=True)),
        "gradient_norm": norm,
        **_count_tokens(tokens - saved, saved, query_emb_QD.device),
        "similarity_gap": _similarity_gap(query_emb_QD, doc_emb_ND, targets[0][:, 0], targets[2]),
    }


def _count_tokens(computed: int, saved: int, device: torch.device) -> dict[str, float]:
    """Return tokens that all ranks computed, and those that a prompt per text would have added."""
    counts = torch.tensor([computed, saved], dtype=torch.float64, device=device)
    dist.all_reduce(counts)
    return dict(zip(("tokens", "tokens_saved"), counts.tolist(), strict=True))


@torch.no_grad()
def _similarity_gap(query_emb_QD: Tensor, doc_emb_ND: Tensor, positive_Q: Tensor, is_masked_QN: Tensor) -> float:
    """Return cosine of the positive minus that of the hardest negative, mean over the queries of all ranks.

    NaN where no query has a negative.
    """
    similarity_QN = query_emb_QD @ doc_emb_ND.T
    positive_Q1 = positive_Q[:, None]
    hardest_Q = similarity_QN.masked_fill(is_masked_QN, -2.0).scatter(1, positive_Q1, -2.0).amax(dim=1)
    has_negative_Q = hardest_Q > -2.0
    gap_Q = (similarity_QN.gather(1, positive_Q1)[:, 0] - hardest_Q)[has_negative_Q]
    sums = torch.stack([gap_Q.sum().float(), has_negative_Q.sum().float()])
    dist.all_reduce(sums)
    return float(sums[0] / sums[1])


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
