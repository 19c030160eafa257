"""Judge every candidate of every query: hard negative, or dropped for exactly one reason.

Legend: C candidates of all queries together, flat, one query after another, best first; Q queries. s is a candidate's
fused score, p the reference positive's, b the query's background.
"""

from enum import IntEnum
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anna import segments
from anna.segments import Bool, Float, Int

Rule = Literal["adaptive", "percent", "absolute", "none"]


class Verdict(IntEnum):
    """What became of a candidate; the lower-case name is the reason that the tables hold."""

    KEPT = 0
    LABELLED_POSITIVE = 1
    DUPLICATE_OF_POSITIVE = 2
    ABOVE_POSITIVE = 3
    INSIDE_MARGIN = 4
    BEYOND_QUOTA = 5
    WEAK_POSITIVE = 6
    TOO_FEW_NEGATIVES = 7
    RELABELLED = 8

    @property
    def reason(self) -> str:
        """Name as in the tables."""
        return self.name.lower()


QUERY_VERDICTS = (Verdict.WEAK_POSITIVE, Verdict.TOO_FEW_NEGATIVES)
"""Verdicts on a whole query. Its candidates that have no other reason to be dropped get the same verdict."""


class Rules(NamedTuple):
    """What candidates are judged by, besides the margin."""

    rule: Rule
    """See `judge_candidates`."""
    background_quantile: float
    """Which quantile of a query's scores is its background, in [0, 1]; rule adaptive only."""
    negatives_per_query: int
    """Most negatives kept, hardest first, >= 0."""
    min_negatives: int
    """A query that keeps fewer is dropped, >= 0."""
    max_positive_rank: int | None
    """A query whose best positive the teacher ranks below this is dropped; None: any rank."""


class Candidates(NamedTuple):
    """The candidates of some queries, and what is known of them before any margin."""

    scores: Float
    """Fused scores, falling within each query, (C,)."""
    is_positive: Bool
    """Whether the candidate is labelled positive; at least one per query, (C,)."""
    is_duplicate: Bool
    """Whether its text is that of a positive, (C,)."""
    is_relabelled: Bool
    """Whether the reranker takes it for a positive that nobody labelled, (C,)."""
    is_judged_negative: Bool
    """Whether it is known to be none: judged not relevant, or of another class than the query's, (C,)."""
    has_class: Bool
    """Whether the query's positives are the documents of its class, (Q,)."""
    starts: Int
    """First row of each query, (Q,)."""

    def spread(self, values_Q: Float) -> Float:
        """Repeat each query's value for each of its candidates, (C,)."""
        return segments.spread(values_Q, self.starts, len(self.scores))


class Standing(NamedTuple):
    """What holds of candidates and queries at every margin."""

    verdicts: NDArray[np.int8]
    """`Verdict` of each candidate that is no negative at any margin, KEPT of all others, (C,)."""
    positives: Int
    """Row of the labelled positive that the teacher ranks first, (Q,)."""
    is_clear: Bool
    """Whether a candidate stands above the background and the query's lowest score, (C,)."""
    references: Float
    """p, the score that the margin is measured from, (Q,)."""
    backgrounds: Float
    """b, the score that it is measured to, (Q,)."""
    is_weak: Bool
    """Whether the query gives no group, whatever it keeps, (Q,)."""


class Judgement(NamedTuple):
    """Verdicts and what they rest on."""

    verdicts: NDArray[np.int8]
    """`Verdict` of each candidate, (C,)."""
    query_verdicts: NDArray[np.int8]
    """`Verdict` of each query, (Q,): KEPT, WEAK_POSITIVE or TOO_FEW_NEGATIVES."""
    standing: Standing
    """Of the same candidates and queries."""


def judge_candidates(candidates: Candidates, rules: Rules, margin: float) -> Judgement:
    """Return one verdict for every candidate and every query.

    A candidate is judged by the first of these that holds: labelled positive; text of a positive; relabelled; s > p;
    inside the margin; more than `negatives_per_query` better ones kept. What is judged a negative is neither above nor
    inside: a margin is for what nobody has judged. The rules, what they keep:

        adaptive   s <= p - margin * (p - b), b a low quantile of the query's scores (ours)
        percent    s - low < (1 - margin) * (p - low), low the query's lowest score
        absolute   s <= p - margin
        none       all (the ablation): labelled positives, duplicates and the relabelled still go

    Differs: NV-Retriever's TopK-PercPos is `s < (1 - margin) * p` on cosines. Fused scores are z-scores, and for a
    negative p that bound lies above p: it would keep what scores above the positive. Counted from the query's lowest
    score nothing is negative. No rule but `none` keeps a candidate with s > p, whatever the scale or sign.

    Args:
        candidates: Of some queries.
        rules: Which of the rules above, and with which limits.
        margin: In the rule's unit, >= 0: a share of p - b, of p - low, or fused score.

    Reference: Moreira et al. 2024, arXiv:2407.15831, section 3 (percent, absolute).
    """
    starts_Q = candidates.starts
    standing = stand(candidates, rules)
    p_C, b_C = candidates.spread(standing.references), candidates.spread(standing.backgrounds)
    is_clear_C = clears(rules.rule, candidates.scores, p_C, b_C, margin) | candidates.is_judged_negative
    is_open_C = (standing.verdicts == Verdict.KEPT) & is_clear_C
    is_kept_C = is_open_C & (segments.number_within(is_open_C, starts_Q) <= rules.negatives_per_query)
    is_short_Q = segments.total(is_kept_C, starts_Q) < rules.min_negatives
    query_verdict_Q = _first_that_holds(
        (standing.is_weak, Verdict.WEAK_POSITIVE), (is_short_Q, Verdict.TOO_FEW_NEGATIVES)
    )
    query_verdict_C = segments.spread(query_verdict_Q, starts_Q, len(is_open_C))
    verdict_C = _first_that_holds(
        (~is_clear_C, Verdict.INSIDE_MARGIN),
        *((query_verdict_C == verdict, verdict) for verdict in QUERY_VERDICTS),
        (~is_kept_C, Verdict.BEYOND_QUOTA),
    )
    verdict_C = np.where(standing.verdicts == Verdict.KEPT, verdict_C, standing.verdicts)
    return Judgement(verdict_C, query_verdict_Q, standing)


def find_positives(judgement: Judgement, candidates: Candidates, most: int | None) -> Bool:
    """Return which candidates are positives of a training group, (C,); none of a query that is dropped.

    The labelled positive that the teacher ranks first, whatever its score. Then, best first, the other labelled ones
    above the background and the query's lowest score, which most have that nothing found. Then relabelled ones not
    below p. A positive that the teachers put below the negatives would be pushed away by its soft label.

    Args:
        judgement: Of `candidates`.
        candidates: Of some queries.
        most: The first so many of each query, >= 1; None: all.
    """
    starts_Q, num_rows, standing = candidates.starts, len(candidates.scores), judgement.standing
    is_labelled_C = candidates.is_positive & standing.is_clear
    is_labelled_C[standing.positives] = True
    is_high_C = candidates.scores >= candidates.spread(standing.references)
    is_relabelled_C = (judgement.verdicts == Verdict.RELABELLED) & is_high_C
    is_kept_C = segments.spread(judgement.query_verdicts == Verdict.KEPT, starts_Q, num_rows)
    labelled_C = candidates.spread(segments.total(is_labelled_C, starts_Q))
    place_C = np.where(
        is_labelled_C,
        segments.number_within(is_labelled_C, starts_Q),
        labelled_C + segments.number_within(is_relabelled_C, starts_Q),
    )
    return np.asarray((is_labelled_C | is_relabelled_C) & is_kept_C & (place_C <= (most or num_rows)))


def stand(candidates: Candidates, rules: Rules) -> Standing:
    """Return what no margin changes."""
    scores_C, starts_Q = candidates.scores, candidates.starts
    background_Q = _background(rules.rule, scores_C, starts_Q, rules.background_quantile)
    positive_Q, is_clear_C, reference_Q = _reference(candidates, background_Q)
    is_weak_Q = (reference_Q <= background_Q) & ~candidates.has_class
    if rules.max_positive_rank is not None:
        is_weak_Q |= positive_Q - starts_Q >= rules.max_positive_rank
    is_above_C = (scores_C > candidates.spread(reference_Q)) & ~candidates.is_judged_negative
    verdict_C = _first_that_holds(
        (candidates.is_positive, Verdict.LABELLED_POSITIVE),
        (candidates.is_duplicate, Verdict.DUPLICATE_OF_POSITIVE),
        (candidates.is_relabelled, Verdict.RELABELLED),
        (is_above_C & (rules.rule != "none"), Verdict.ABOVE_POSITIVE),
    )
    return Standing(verdict_C, positive_Q, is_clear_C, reference_Q, background_Q, is_weak_Q)


def clears(rule: Rule, s_C: Float, p_C: Float, b_C: Float, margin: float) -> Bool:
    """Return whether each candidate is a margin below p, (C,); see `judge_candidates`."""
    if rule == "adaptive":
        return np.asarray(s_C <= p_C - margin * (p_C - b_C))
    if rule == "percent":
        return np.asarray(s_C - b_C < (1 - margin) * (p_C - b_C))
    if rule == "absolute":
        return np.asarray(s_C <= p_C - margin)
    return np.ones(len(s_C), dtype=np.bool_)


def _reference(candidates: Candidates, background_Q: Float) -> tuple[Int, Bool, Float]:
    """Return `positives`, `is_clear` and `references` of `Standing`.

    p is the weakest positive's, as each was judged to answer the query, but of those alone that stand above the
    background and the query's lowest score, which most have that nothing found: of many positives one is there nearly
    always, and would leave no margin to any. Where none stands above, p is the best one's. So it is where the query has
    a class: its documents merely share a name, and the weakest says nothing.
    """
    scores_C, starts_Q, rows_C = candidates.scores, candidates.starts, np.arange(len(candidates.scores))
    floor_Q = np.maximum(background_Q, segments.lowest(scores_C, starts_Q))
    is_clear_C = scores_C > candidates.spread(floor_Q)
    first_Q = np.minimum.reduceat(np.where(candidates.is_positive, rows_C, len(rows_C)), starts_Q)
    last_Q = np.maximum.reduceat(np.where(candidates.is_positive & is_clear_C, rows_C, -1), starts_Q)
    return first_Q, is_clear_C, scores_C[np.where(candidates.has_class | (last_Q < 0), first_Q, last_Q)]


def _background(rule: Rule, scores_C: Float, starts_Q: Int, share: float) -> Float:
    """Return b: the score that p must exceed for the rule to have any margin, (Q,)."""
    if rule == "adaptive":
        return segments.quantile(scores_C, starts_Q, share)
    if rule == "percent":
        return segments.lowest(scores_C, starts_Q)
    return np.full(len(starts_Q), -np.inf)


def _first_that_holds(*cases: tuple[Bool, Verdict]) -> NDArray[np.int8]:
    """Return for each row the verdict of the first case that is true there, else KEPT."""
    conditions, verdicts = zip(*cases, strict=True)
    return np.select(list(conditions), [int(verdict) for verdict in verdicts], int(Verdict.KEPT)).astype(np.int8)
