"""nDCG@10 on queries that are never trained on, while training goes on.

Legend: Q queries, N documents, D dimensions.
"""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from anna import seeding
from anna.folding import normalise
from anna.modeling.batching import packed_batches
from anna.modeling.encoder import Encoder, Part
from anna.training.batches import Group, Texts
from anna.training.gather import from_first, gather_rows
from anna.training.layout import contents_by_id
from anna.training.recipe import TrainParams

DEPTH = 10

CANDIDATES = 5
"""Hard negatives that each query brings into its task's pool."""

_TOKENS_PER_PASS = 4096
"""Computed at once: about as many as a training batch of the default has."""


_log = logging.getLogger(__name__)


class HeldOut(NamedTuple):
    """Validation queries of one task, and the documents that each of them is ranked against."""

    task: str
    query_ids: tuple[str, ...]
    doc_ids: tuple[str, ...]


def sample(groups: Sequence[Group], texts: Texts, count: int, trained_on: Sequence[Group]) -> list[HeldOut]:
    """Return the first `count` groups by a hash of their query, gathered by task.

    Left out: tasks with classes, and queries whose pair is trained on in reverse, with the positive as the query. In
    symmetric tasks either text may be the query.

    A query is ranked against the labelled positives and the hardest negatives of all chosen queries of its task:
    documents that the teachers found near, and a cost that grows with `count` alone.

    Args:
        groups: Of the validation split, positive first, then negatives, hardest first.
        texts: What both name.
        count: Largest number of queries; 0 gives none.
        trained_on: Of the training split.
    """
    ranked = [group for group in groups if group.query_id not in texts.labels]
    unseen = _without_reversed(ranked, texts, trained_on)
    if len(unseen) < len(ranked):
        left_out = len(ranked) - len(unseen)
        _log.info("%d of %d validation queries left out: their pair is trained on, reversed", left_out, len(ranked))
    chosen = sorted(unseen, key=lambda group: seeding.derive_seed(0, "validation", group.query_id))[:count]
    result = []
    for task in sorted({group.task for group in chosen}):
        members = [group for group in chosen if group.task == task]
        doc_ids = {doc for g in members for doc in (*g.doc_ids[: 1 + CANDIDATES], *texts.positives[g.query_id])}
        result.append(HeldOut(task, tuple(sorted(g.query_id for g in members)), tuple(sorted(doc_ids))))
    return result


def _without_reversed(groups: Sequence[Group], texts: Texts, trained_on: Sequence[Group]) -> list[Group]:
    positives = [{normalise(texts.docs[doc_id]) for doc_id in texts.positives[g.query_id]} for g in groups]
    asked = set[str]().union(*positives)
    # Of training's documents, which are many and long, those alone are folded whose query is a positive here.
    matching = [group for group in trained_on if normalise(texts.queries[group.query_id]) in asked]
    trained = {
        (normalise(texts.docs[doc_id]), normalise(texts.queries[g.query_id]))
        for g in matching
        for doc_id in g.doc_ids[: g.num_positives]
    }
    pairs = zip(groups, positives, strict=True)
    return [g for g, own in pairs if trained.isdisjoint((normalise(texts.queries[g.query_id]), text) for text in own)]


def ndcg(scores_QN: NDArray[np.floating], gains_QN: NDArray[np.floating], depth: int = DEPTH) -> NDArray[np.float64]:
    """Return nDCG of each query, (Q,), in [0, 1]; 0 for a query without gain.

    Args:
        scores_QN: A higher score ranks first; of equal scores, the first column.
        gains_QN: What each document is worth, >= 0, all that the query has among them.
        depth: Documents counted.

    Reference: Järvelin and Kekäläinen 2002, doi:10.1145/582415.582418; gain and discount as in trec_eval's ndcg_cut:
    gain / log2(rank + 1).
    """
    depth = min(depth, scores_QN.shape[1])
    discounts = 1 / np.log2(np.arange(2, depth + 2))
    order_QN = np.argsort(-scores_QN, axis=1, kind="stable")[:, :depth]
    gained_Q = np.take_along_axis(gains_QN, order_QN, axis=1) @ discounts
    ideal_Q = -np.sort(-gains_QN, axis=1)[:, :depth] @ discounts
    return np.divide(gained_Q, ideal_Q, out=np.zeros(len(ideal_Q)), where=ideal_Q > 0)


def score(engine: Any, encoder: Encoder, held_out: Sequence[HeldOut], texts: Texts, recipe: TrainParams) -> float:
    """Return nDCG@10, mean over the queries of all tasks, the same on every rank; every rank must call this.

    Zero-shot prompts. A document whose text is the query's own is not ranked, as in retrieval.
    """
    engine.eval()
    parts = [_score_task(engine, encoder, task, texts, recipe) for task in held_out]
    engine.train()
    return float(from_first(np.concatenate(parts).mean()))


def _score_task(
    engine: Any, encoder: Encoder, held_out: HeldOut, texts: Texts, recipe: TrainParams
) -> NDArray[np.float64]:
    prefix = encoder.config.prefix(held_out.task)
    doc_prefix = encoder.config.doc_prefix(held_out.task, prefix)
    queries = [texts.queries[query_id] for query_id in held_out.query_ids]
    docs = [texts.docs[doc_id] for doc_id in held_out.doc_ids]
    query_emb_QD = _embed(engine, encoder, encoder.tokenize(queries, prefix=prefix, max_tokens=recipe.query_tokens))
    doc_emb_ND = _embed(engine, encoder, encoder.tokenize(docs, prefix=doc_prefix, max_tokens=recipe.doc_tokens))
    contents = contents_by_id(held_out.query_ids, held_out.doc_ids, texts)
    asked, found = (np.array([contents[key] for key in ids]) for ids in (held_out.query_ids, held_out.doc_ids))
    is_own_QN = asked[:, None] == found
    gains_QN = np.array([[doc in texts.positives[query] for doc in held_out.doc_ids] for query in held_out.query_ids])
    scores_QN = np.where(is_own_QN, -np.inf, (query_emb_QD @ doc_emb_ND.T).cpu().numpy())
    return ndcg(scores_QN, gains_QN.astype(np.float64))


@torch.no_grad()
def _embed(engine: Any, encoder: Encoder, token_ids: Sequence[Sequence[int]]) -> Tensor:
    """Return the unit vectors of tokenised texts on every rank, (N, D), each rank computing its share.

    Ranks make the same number of passes, as ZeRO-3 needs; one that has too few repeats the last and forgets it.
    """
    rank, world_size = dist.get_rank(), dist.get_world_size()
    num_shared = encoder.num_shared(token_ids)
    passes = packed_batches([len(row) - num_shared for row in token_ids], _TOKENS_PER_PASS)
    vectors = []
    for first in range(0, len(passes), world_size):
        chosen = passes[min(first + rank, len(passes) - 1)]
        (embedded,) = engine([Part([token_ids[index] for index in chosen], num_shared)])
        vectors.append(embedded if first + rank < len(passes) else embedded[:0])
    shares = [[index for chunk in passes[other::world_size] for index in chunk] for other in range(world_size)]
    gathered_ND = gather_rows(torch.cat(vectors), [len(share) for share in shares])
    place = torch.tensor([index for share in shares for index in share], device=gathered_ND.device)
    return torch.empty_like(gathered_ND).index_copy_(0, place, gathered_ND)
