"""One optimizer step: embed a batch, take the loss over all ranks, carry it back, move the weights.

Legend: Q queries on this rank, N documents of all ranks, G group size, D dimensions, M texts on this rank, queries and
documents, A texts of all ranks.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from anna.modeling.encoder import Encoder, Part
from anna.prompts import query_prefix
from anna.training import engine as engines
from anna.training import gradcache
from anna.training.batches import Batch, Group, Texts
from anna.training.gather import gather_rows
from anna.training.layout import Layout, Sizes, lay_out
from anna.training.losses import Terms, combined_loss, distilled_batch, matryoshka
from anna.training.recipe import TrainParams


class Targets(NamedTuple):
    """What the loss knows of a rank's queries besides vectors."""

    group: Tensor
    """Columns of each group's documents, positive first, -1 where a group is smaller, (Q, G)."""
    soft_labels: Tensor
    """The teachers' probabilities over each group, 0 where absent and where there are none, (Q, G)."""
    is_masked: Tensor
    """Documents that are no negatives of a query, (Q, N)."""


class Relations(NamedTuple):
    """How texts of the batch relate under the dense teacher: queries of all ranks first, then their documents."""

    cosines: Tensor
    """(M, A)."""
    is_self: Tensor
    """Where a text meets itself, or its twin: the same but for case, punctuation and spacing, (M, A)."""


def take(engine: Any, encoder: Encoder, batch: Batch, texts: Texts, recipe: TrainParams) -> dict[str, float]:
    """Take one optimizer step and return its statistics by name, over all ranks."""
    layout = lay_out(batch, dist.get_rank(), dist.get_world_size(), texts)
    sides = tokenize_batch(encoder, batch, layout.share, layout.doc_ids, texts=texts, recipe=recipe)
    loss = loss_of(layout, texts=texts, recipe=recipe, device=encoder.device)
    sums, num_tokens = gradcache.backward(engine, sides, loss, recipe.max_micro_step_tokens)
    norm = engines.step(engine)
    plain = sum(len(row) for side in sides for row in side.rows)
    sums |= {"tokens": torch.tensor(float(num_tokens)), "plain_tokens": torch.tensor(float(plain))}
    return {**_over_ranks(sums, len(batch.groups), encoder.device), "gradient_norm": norm}


def batch_prefix(encoder: Encoder, batch: Batch, texts: Texts) -> str:
    """Return the prompt of a batch: its task's instruction and its in-context examples, cut."""
    examples = [encoder.cut_example(texts.queries[g.query_id], texts.docs[g.doc_ids[0]]) for g in batch.examples]
    return query_prefix(encoder.config.task(batch.task).instruction, examples)


def tokenize_batch(
    encoder: Encoder,
    batch: Batch,
    share: Sequence[Group],
    doc_ids: Sequence[str],
    *,
    texts: Texts,
    recipe: TrainParams,
) -> gradcache.Sides:
    """Return the tokens of a rank's queries and of its documents."""
    prefix = batch_prefix(encoder, batch, texts)
    doc_prefix = encoder.config.doc_prefix(batch.task, prefix)
    queries = encoder.tokenize(
        [texts.queries[g.query_id] for g in share], prefix=prefix, max_tokens=recipe.query_tokens
    )
    docs = encoder.tokenize([texts.docs[d] for d in doc_ids], prefix=doc_prefix, max_tokens=recipe.doc_tokens)
    if doc_prefix:  # one prompt for both
        num_shared = encoder.num_shared([*queries, *docs])
        return Part(queries, num_shared), Part(docs, num_shared)
    return Part(queries, encoder.num_shared(queries)), Part(docs, 0)


def loss_of(layout: Layout, *, texts: Texts, recipe: TrainParams, device: torch.device) -> gradcache.Loss:
    """Return the loss of a batch as a function of the vectors of a rank's queries and of its documents."""
    return partial(
        _loss,
        targets=_targets(layout, device),
        relations=_relations(layout, texts, device) if recipe.batch_kd_weight else None,
        sizes=layout.sizes,
        recipe=recipe,
    )


def _loss(
    query_emb_QD: Tensor,
    own_doc_emb: Tensor,
    *,
    targets: Targets,
    relations: Relations | None,
    sizes: Sizes,
    recipe: TrainParams,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return what this rank carries back, and its sums over queries."""
    doc_emb_ND = gather_rows(own_doc_emb, sizes.docs)
    terms = _terms(query_emb_QD, doc_emb_ND, targets, recipe)
    value, batch_ce, total = terms.loss.sum(), query_emb_QD.new_zeros(()), sum(sizes.queries)
    if relations is not None:
        emb_AD = torch.cat([gather_rows(query_emb_QD, sizes.queries), doc_emb_ND])
        batch_ce_M = _distilled(torch.cat([query_emb_QD, own_doc_emb]), emb_AD, relations, recipe)
        # What is a mean over texts is weighed as if it were one over queries.
        batch_ce = batch_ce_M.sum() * (total / len(emb_AD))
        value = value + recipe.batch_kd_weight * batch_ce
    sums = _sums(terms, query_emb_QD, doc_emb_ND, targets)
    sums |= {"loss": value.detach(), "batch_soft_label_ce": batch_ce.detach()}
    # DeepSpeed averages gradients over ranks, so each rank's loss is its queries' sum times W / (queries of all ranks):
    # the average over W ranks is then the mean over all queries, and `gather_rows` sums what ranks owe each other.
    return value * (len(sizes.queries) / total), sums


def _terms(query_emb_QD: Tensor, doc_emb_ND: Tensor, targets: Targets, recipe: TrainParams) -> Terms:
    def loss(query_emb_QD: Tensor, doc_emb_ND: Tensor) -> Tensor:
        terms = combined_loss(
            query_emb_QD,
            doc_emb_ND,
            *targets,
            temperature=recipe.temperature,
            kd_weight=recipe.kd_weight,
            false_negative_margin=recipe.false_negative_margin,
        )
        return torch.stack(terms)

    return Terms(*matryoshka(loss, query_emb_QD, doc_emb_ND, recipe.matryoshka_dims))


def _distilled(own_emb_MD: Tensor, emb_AD: Tensor, relations: Relations, recipe: TrainParams) -> Tensor:
    loss = partial(
        distilled_batch,
        teacher_MN=relations.cosines,
        is_self_MN=relations.is_self,
        temperature=recipe.temperature,
        teacher_temperature=recipe.batch_teacher_temperature,
    )
    return matryoshka(loss, own_emb_MD, emb_AD, recipe.matryoshka_dims)


def _targets(layout: Layout, device: torch.device) -> Targets:
    share, width = layout.share, max(len(group.doc_ids) for group in layout.share)
    group_QG = torch.full((len(share), width), -1)
    soft_labels_QG = torch.zeros(len(share), width)
    is_masked_QN = torch.zeros(len(share), sum(layout.sizes.docs), dtype=torch.bool)
    for row, group in enumerate(share):
        group_QG[row, : len(group.doc_ids)] = torch.tensor(layout.columns[row])
        soft_labels_QG[row, : len(group.soft_labels)] = torch.tensor(group.soft_labels)
        is_masked_QN[row, layout.masked[row]] = True
    return Targets(group_QG.to(device), soft_labels_QG.to(device), is_masked_QN.to(device))


def _relations(layout: Layout, texts: Texts, device: torch.device) -> Relations:
    """Return the relations of the rank's texts, its queries first, with all texts."""
    vectors_AD = torch.from_numpy(np.stack([texts.vectors[text_id] for text_id in layout.text_ids]))
    own_M = torch.tensor(layout.own)
    content_A = torch.tensor(layout.contents)
    is_twin_MA = content_A[own_M][:, None] == content_A
    # A twin would take nearly all of the teacher's probability and teach nothing; it stays where there is nothing else.
    is_self_MA = (own_M[:, None] == torch.arange(len(content_A))) | is_twin_MA & ~is_twin_MA.all(dim=1, keepdim=True)
    return Relations((vectors_AD[own_M] @ vectors_AD.T).to(device), is_self_MA.to(device))


@torch.no_grad()
def _sums(terms: Terms, query_emb_QD: Tensor, doc_emb_ND: Tensor, targets: Targets) -> dict[str, Tensor]:
    """Return this rank's sums over its queries of the terms and of the positive's lead over the hardest negative."""
    similarity_QN = query_emb_QD @ doc_emb_ND.T
    positive_Q1 = targets.group[:, :1]
    hardest_Q = similarity_QN.masked_fill(targets.is_masked, -2.0).scatter(1, positive_Q1, -2.0).amax(dim=1)
    has_negative_Q = hardest_Q > -2.0
    gap_Q = (similarity_QN.gather(1, positive_Q1)[:, 0] - hardest_Q)[has_negative_Q]
    sums = {name: term.detach().sum() for name, term in terms._asdict().items()}
    return {**sums, "similarity_gap": gap_Q.sum(), "with_negative": has_negative_Q.sum()}


def _over_ranks(sums: dict[str, Tensor], total: int, device: torch.device) -> dict[str, float]:
    """Return means over the queries of all ranks, and the tokens that all ranks computed and saved."""
    values = torch.stack([value.to(device, torch.float64) for value in sums.values()])
    dist.all_reduce(values)
    over = dict(zip(sums, values.tolist(), strict=True))
    means = {name: over[name] / total for name in (*Terms._fields, "batch_soft_label_ce")}
    gap = over["similarity_gap"] / over["with_negative"] if over["with_negative"] else float("nan")
    tokens = over["tokens"]
    return {**means, "similarity_gap": gap, "tokens": tokens, "tokens_saved": over["plain_tokens"] - tokens}
