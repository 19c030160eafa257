"""What every margin of a grid would keep, counted at once: the arithmetic that `negatives` does for one.

Legend: C candidates of all queries together, flat, one query after another, best first; Q queries; M margins; V
verdicts.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anna import negatives, segments
from anna.negatives import Candidates, Rule, Rules, Verdict
from anna.segments import Float, Int

SHARES = tuple(step / 20 for step in range(21))
"""Margins tried of the rules adaptive and percent: all shares, by twentieths."""

DISTANCES = tuple(step / 4 for step in range(25))
"""Margins tried of the rule absolute, in fused score: 0 to 6, and few candidates lie farther below."""

ALL = "all"
"""Name of the rows that add up all tasks."""


class Kept(NamedTuple):
    """What one margin keeps of one task."""

    task: str
    margin: float
    queries: int
    groups: int
    """Queries that give a training group."""
    candidates: int
    negatives: int
    """Candidates that become hard negatives."""
    gap: float | None
    """How far the hardest negative of a group lies below p, in fused score, mean over groups; None: no negative."""
    drops: Mapping[str, int]
    """Candidates by the reason for which they are no negative."""
    query_drops: Mapping[str, int]
    """Queries by the reason for which they give no group."""

    @property
    def passing(self) -> int:
        """Candidates that the margin lets through, before the quota and before queries are dropped."""
        reasons = (Verdict.BEYOND_QUOTA, *negatives.QUERY_VERDICTS)
        return self.negatives + sum(self.drops[verdict.reason] for verdict in reasons)


class Calibration(NamedTuple):
    """What each margin would keep, and which one is set."""

    rule: Rule
    margin: float | None
    """That of params.yaml, which is then among those tried; None: params.yaml sets another rule."""
    kept: Sequence[Kept]
    """By task, then margin; those of all tasks together come last."""

    def of(self, task: str) -> list[Kept]:
        """Return the rows of one task, by margin."""
        return [row for row in self.kept if row.task == task]

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks, `ALL` the last."""
        return list(dict.fromkeys(row.task for row in self.kept))


class Sweep(NamedTuple):
    """Counts of each query at each margin."""

    counts: NDArray[np.int32]
    """Candidates by `Verdict`, (M, Q, V)."""
    query_verdicts: NDArray[np.int8]
    """`Verdict` of each query, as `negatives.Judgement` has it, (M, Q)."""
    gaps: Float
    """p minus the score of the hardest negative; NaN where the query keeps none, (M, Q)."""


def grid(rule: Rule, margin: float | None) -> list[float]:
    """Return the margins to try for a rule, rising, `margin` among them if there is one; none for rule none."""
    if rule == "none":
        return []
    return sorted({*(DISTANCES if rule == "absolute" else SHARES), *([] if margin is None else [margin])})


def sweep(candidates: Candidates, rules: Rules, margins: Sequence[float]) -> Sweep:
    """Return what `negatives.judge_candidates` would count at every margin, with one comparison of scores for each.

    A larger margin removes only the best of the candidates that nobody has judged, so their number says which ones are
    left.
    """
    standing = negatives.stand(candidates, rules)
    fixed_QV = _count(standing.verdicts, candidates.starts)
    is_open_C = standing.verdicts == Verdict.KEPT
    open_C = np.flatnonzero(is_open_C)
    # Of each query the candidates that are open, if any: a run of them, best first.
    open_Q = fixed_QV[:, Verdict.KEPT]
    ends_Q = np.cumsum(open_Q)
    is_judged_C = candidates.is_judged_negative[open_C]
    s_C, p_C, b_C = (
        values_C[open_C]
        for values_C in (candidates.scores, *map(candidates.spread, (standing.references, standing.backgrounds)))
    )
    counts, query_verdicts, gaps = [], [], []
    for margin in margins:
        is_clear_C = negatives.clears(rules.rule, s_C, p_C, b_C, margin) | is_judged_C
        passed_C = np.concatenate([[0], np.cumsum(is_clear_C)])
        before_Q = passed_C[ends_Q - open_Q]
        passing_Q = passed_C[ends_Q] - before_Q
        kept_Q = np.minimum(passing_Q, rules.negatives_per_query)
        verdict_Q = np.where(kept_Q < rules.min_negatives, Verdict.TOO_FEW_NEGATIVES, Verdict.KEPT)
        verdict_Q = np.where(standing.is_weak, Verdict.WEAK_POSITIVE, verdict_Q)
        gives_Q = verdict_Q == Verdict.KEPT
        counts_QV = fixed_QV.copy()
        counts_QV[:, Verdict.KEPT] = np.where(gives_Q, kept_Q, 0)
        counts_QV[:, Verdict.INSIDE_MARGIN] = open_Q - passing_Q
        counts_QV[:, Verdict.BEYOND_QUOTA] = np.where(gives_Q, passing_Q - kept_Q, 0)
        for verdict in negatives.QUERY_VERDICTS:
            counts_QV[:, verdict] = np.where(verdict_Q == verdict, passing_Q, 0)
        counts.append(counts_QV)
        query_verdicts.append(verdict_Q.astype(np.int8))
        has_Q = counts_QV[:, Verdict.KEPT] > 0
        hardest = np.searchsorted(passed_C, before_Q[has_Q] + 1) - 1
        gaps.append(_gap(s_C, hardest, standing.references, has_Q))
    return Sweep(np.stack(counts), np.stack(query_verdicts), np.stack(gaps))


def _gap(s_C: Float, hardest: Int, reference_Q: Float, has_Q: NDArray[np.bool_]) -> Float:
    """Return p minus the score in row `hardest` for each query that has a negative, NaN for the others, (Q,)."""
    gap_Q = np.full(len(has_Q), np.nan)
    gap_Q[has_Q] = reference_Q[has_Q] - s_C[hardest]
    return gap_Q


def _count(verdicts_C: NDArray[np.int8], starts_Q: Int) -> NDArray[np.int32]:
    """Return how many candidates of each query have each verdict, (Q, V)."""
    query_C = segments.spread(np.arange(len(starts_Q)), starts_Q, len(verdicts_C))
    flat = np.bincount(query_C * len(Verdict) + verdicts_C, minlength=len(starts_Q) * len(Verdict))
    return flat.reshape(len(starts_Q), len(Verdict)).astype(np.int32)
