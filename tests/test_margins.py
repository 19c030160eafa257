"""Every margin at once counts what judging each margin counts."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anna import margins, negatives, segments
from anna.margins import Kept
from anna.negatives import Rules, Verdict
from tests.test_negatives import QUERY, SETTINGS, Candidate, Query, arrays

MARGINS = [0.0, 0.05, 0.3, 0.3125, 1.0]


@given(st.lists(QUERY, min_size=1, max_size=5), SETTINGS)
def test_equal_to_judging_each_margin(queries: list[Query], settings: dict[str, Any]) -> None:
    candidates = arrays(queries)
    rules = Rules(**{name: value for name, value in settings.items() if name != "margin"})
    swept = margins.sweep(candidates, rules, MARGINS)
    for place, margin in enumerate(MARGINS):
        judgement = negatives.judge_candidates(candidates, rules, margin)
        for verdict in Verdict:
            counted = segments.total(judgement.verdicts == verdict, candidates.starts)
            assert swept.counts[place, :, verdict].tolist() == counted.tolist(), (margin, verdict)
        assert swept.query_verdicts[place].tolist() == judgement.query_verdicts.tolist()
        is_kept = judgement.verdicts == Verdict.KEPT
        hardest = segments.highest(np.where(is_kept, candidates.scores, -np.inf), candidates.starts)
        gaps = np.where(np.isfinite(hardest), judgement.standing.references - hardest, np.nan)
        np.testing.assert_array_equal(swept.gaps[place], gaps)


def test_by_hand() -> None:
    # p = 2 and b = 0: the margins end at 2, 1 and 0.
    rows = [Candidate(score, score == 2.0, False) for score in (3.0, 2.0, 1.5, 1.0, 0.0)]
    rules = Rules(
        rule="adaptive", background_quantile=0.0, negatives_per_query=1, min_negatives=1, max_positive_rank=None
    )
    swept = margins.sweep(arrays([(rows, False)]), rules, [0.0, 0.5, 1.0])
    told = [(row[Verdict.KEPT], row[Verdict.INSIDE_MARGIN], row[Verdict.BEYOND_QUOTA]) for row in swept.counts[:, 0]]
    assert told == [(1, 0, 2), (1, 1, 1), (1, 2, 0)]
    assert swept.gaps[:, 0].tolist() == [0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    ("rule", "margin", "ends", "count"),
    [("adaptive", 0.05, (0.0, 1.0), 21), ("percent", 0.07, (0.0, 1.0), 22), ("absolute", 9.5, (0.0, 9.5), 26)],
)
def test_the_grid_holds_the_margin_that_is_set(rule: Any, margin: float, ends: tuple[float, float], count: int) -> None:
    tried = margins.grid(rule, margin)
    assert margin in tried
    assert (tried[0], tried[-1]) == ends
    assert tried == sorted(tried)
    assert len(tried) == count
    assert len(margins.grid(rule, None)) == len(margins.SHARES if rule != "absolute" else margins.DISTANCES)


def test_rule_none_has_no_margin() -> None:
    assert margins.grid("none", 0.05) == []


def test_passing_is_all_that_the_margin_lets_through() -> None:
    reasons = {verdict.reason: 1 for verdict in Verdict if verdict}
    row = Kept("A", 0.1, 5, 4, 20, 3, 0.5, reasons | {"beyond_quota": 7, "too_few_negatives": 2}, {})
    assert row.passing == 3 + 7 + 2 + 1
