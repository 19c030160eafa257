"""Fuse the teachers' scores of each query's candidates, and turn the result into soft labels.

Legend: C candidates of all queries together, flat, one query after another; Q queries; K teachers. `starts_Q` is the
first row of each query (`anna.segments`).
"""

from collections.abc import Sequence

import numpy as np

from anna import segments
from anna.segments import Float, Int


def fill_unmatched(scores_C: Float, starts_Q: Int, depth: int) -> Float:
    """Replace missing BM25 scores by 0 where a query has fewer than `depth` results, (C,).

    What is not listed then shares no word with the query.

    Args:
        scores_C: BM25's raw scores; NaN of what it did not list.
        starts_Q: First row of each query.
        depth: Most documents that BM25 lists per query; it lists those with a score above 0.
    """
    is_missing_C = np.isnan(scores_C)
    is_short_Q = segments.total(~is_missing_C, starts_Q) < depth
    return np.where(is_missing_C & segments.spread(is_short_Q, starts_Q, len(scores_C)), 0.0, scores_C)


def fill_missing(scores_C: Float, starts_Q: Int) -> Float:
    """Replace each missing score by the lowest that the same teacher gave to the same query, (C,).

    A retriever that lists as many as it may lists its best candidates, so what is missing is at most as good as the
    last one listed: the fill is an upper bound of the true score. For a reranker, which scores what both retrievers
    found best, it is an assumption. A query that the teacher has not scored at all gets zeros, hence a z-score of zero:
    the teacher has no say in it.

    Args:
        scores_C: The teacher's raw scores; NaN where it gave none.
        starts_Q: First row of each query.
    """
    is_missing_C = np.isnan(scores_C)
    low_Q = segments.lowest(np.where(is_missing_C, np.inf, scores_C), starts_Q)
    low_Q = np.where(np.isfinite(low_Q), low_Q, 0.0)
    fill_C = segments.spread(low_Q, starts_Q, len(scores_C))
    return np.where(is_missing_C, fill_C, scores_C)


def standardise_scores(scores_C: Float, starts_Q: Int) -> Float:
    """Return z-scores within each query, (C,): mean 0 and population standard deviation 1.

    Args:
        scores_C: Finite scores in any unit.
        starts_Q: First row of each query.

    Returns:
        z-scores; all zero for a query whose scores are all equal.
    """
    counts_Q, num_rows = segments.count(starts_Q, len(scores_C)), len(scores_C)
    mean_Q = segments.total(scores_C, starts_Q) / counts_Q
    centred_C = scores_C - segments.spread(mean_Q, starts_Q, num_rows)
    deviation_Q = np.sqrt(segments.total(centred_C**2, starts_Q) / counts_Q)
    # Equal scores are found by comparing them: the deviation of 0.1, 0.1, 0.1 is not exactly zero.
    is_flat_Q = segments.highest(scores_C, starts_Q) == segments.lowest(scores_C, starts_Q)
    is_flat_Q |= deviation_Q == 0
    z_C = centred_C / segments.spread(np.where(is_flat_Q, 1.0, deviation_Q), starts_Q, num_rows)
    return np.where(segments.spread(is_flat_Q, starts_Q, num_rows), 0.0, z_C)


def fuse_scores(signals_KC: Sequence[Float], weights_K: Sequence[float], starts_Q: Int) -> Float:
    """Return `sum_k w_k z_k` for every candidate, (C,), where z is the z-score within the query.

    Args:
        signals_KC: Each teacher's raw scores, NaN where it gave none (`fill_missing`).
        weights_K: Weight of each teacher, >= 0.
        starts_Q: First row of each query.

    Raises:
        ValueError: If the numbers of signals and weights differ.
    """
    fused_C = np.zeros(len(signals_KC[0]), dtype=np.float64)
    for scores_C, weight in zip(signals_KC, weights_K, strict=True):
        fused_C += weight * standardise_scores(fill_missing(scores_C, starts_Q), starts_Q)
    return fused_C


def soften(fused_C: Float, teacher_temperature: float, starts_Q: Int) -> Float:
    """Return `softmax(fused / teacher_temperature)` over the candidates of each query, (C,), summing to 1 per query.

    Args:
        fused_C: Fused scores.
        teacher_temperature: Divides the scores, > 0; small is close to one-hot, large close to uniform.
        starts_Q: First row of each query.
    """
    # The maximum is taken off before dividing, so that no temperature overflows.
    highest_C = segments.spread(segments.highest(fused_C, starts_Q), starts_Q, len(fused_C))
    weight_C = np.exp((fused_C - highest_C) / teacher_temperature)
    return share(weight_C, starts_Q)


def share(weights_C: Float, starts_Q: Int) -> Float:
    """Return weights divided by their sum over the query, (C,): over a part of a softmax, the softmax of that part."""
    return np.asarray(weights_C / segments.spread(segments.total(weights_C, starts_Q), starts_Q, len(weights_C)))


def entropies(soft_labels_C: Float, starts_Q: Int) -> tuple[Float, Float]:
    """Return the entropy of each query's soft labels in nats, and as a share of its largest value, log n; both (Q,).

    The share is NaN for a query with one candidate, which has no entropy to share.
    """
    logs_C = np.log(soft_labels_C, out=np.zeros_like(soft_labels_C), where=soft_labels_C > 0)
    entropy_Q = np.maximum(-segments.total(soft_labels_C * logs_C, starts_Q), 0.0)
    counts_Q = segments.count(starts_Q, len(soft_labels_C))
    most_Q = np.log(np.where(counts_Q > 1, counts_Q, np.nan))
    return entropy_Q, entropy_Q / most_Q
