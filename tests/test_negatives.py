"""The margin rules against a literal loop, on scores of any sign, with ties and without spread."""

from typing import Any, NamedTuple, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anna import fusion, negatives, segments
from anna.negatives import Rule, Rules, Verdict

RULE_NAMES: tuple[Rule, ...] = get_args(Rule)


class Candidate(NamedTuple):
    score: float
    is_positive: bool
    is_duplicate: bool
    is_relabelled: bool = False
    is_judged_negative: bool = False


Query = tuple[list[Candidate], bool]

CANDIDATE = st.builds(
    Candidate,
    st.one_of(st.floats(-4, 4, width=32), st.sampled_from([-1.0, 0.0, 0.5, 1.0])),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)


def ranked(candidates: list[Candidate]) -> list[Candidate]:
    return sorted(candidates, key=lambda candidate: -candidate.score)


QUERY = st.tuples(
    st.lists(CANDIDATE, min_size=1, max_size=9)
    .filter(lambda candidates: any(candidate.is_positive for candidate in candidates))
    .map(ranked),
    st.booleans(),
)
SETTINGS = st.fixed_dictionaries(
    {
        "rule": st.sampled_from(RULE_NAMES),
        "margin": st.floats(0, 1),
        "background_quantile": st.sampled_from([0.0, 0.1, 0.5]),
        "negatives_per_query": st.integers(0, 4),
        "min_negatives": st.integers(0, 2),
        "max_positive_rank": st.one_of(st.none(), st.integers(1, 5)),
    }
)


def arrays(queries: list[Query]) -> negatives.Candidates:
    rows = [candidate for candidates, _ in queries for candidate in candidates]
    return negatives.Candidates(
        scores=np.array([row.score for row in rows], dtype=np.float64),
        is_positive=np.array([row.is_positive for row in rows]),
        is_duplicate=np.array([row.is_duplicate for row in rows]),
        is_relabelled=np.array([row.is_relabelled for row in rows]),
        is_judged_negative=np.array([row.is_judged_negative for row in rows]),
        has_class=np.array([has_class for _, has_class in queries]),
        starts=np.cumsum([0, *(len(candidates) for candidates, _ in queries)])[:-1].astype(np.int64),
    )


def judge(queries: list[Query], margin: float = 0.05, **settings: Any) -> negatives.Judgement:
    defaults: dict[str, Any] = {
        "background_quantile": 0.1,
        "negatives_per_query": 9,
        "min_negatives": 0,
        "max_positive_rank": None,
    }
    rules = Rules(**(defaults | settings))
    return negatives.judge_candidates(arrays(queries), rules, margin)


def one(scores: list[float], positives: list[int], duplicates: tuple[int, ...] = (), **settings: Any) -> list[str]:
    """Return the reasons of one query's candidates, given best first."""
    rows = [Candidate(score, i in positives, i in duplicates) for i, score in enumerate(scores)]
    return [Verdict(code).reason for code in judge([(rows, False)], **settings).verdicts]


def literal(query: Query, settings: dict[str, Any]) -> tuple[list[Verdict], Verdict]:
    """Return the verdicts of one query by a loop."""
    rows, has_class = query
    scores = [row.score for row in rows]
    of_positives = [row.score for row in rows if row.is_positive]
    rule, margin = settings["rule"], settings["margin"]
    background = float(np.quantile(scores, settings["background_quantile"]))
    clear = [score for score in of_positives if score > (background if rule == "adaptive" else min(scores))]
    p = max(of_positives) if has_class or not clear else min(clear)
    verdicts: list[Verdict] = []
    for row in rows:
        keeps = {
            "adaptive": row.score <= p - margin * (p - background),
            "percent": row.score - min(scores) < (1 - margin) * (p - min(scores)),
            "absolute": row.score <= p - margin,
            "none": True,
        }[rule]
        if row.is_positive:
            verdicts.append(Verdict.LABELLED_POSITIVE)
        elif row.is_duplicate:
            verdicts.append(Verdict.DUPLICATE_OF_POSITIVE)
        elif row.is_relabelled:
            verdicts.append(Verdict.RELABELLED)
        elif row.score > p and rule != "none" and not row.is_judged_negative:
            verdicts.append(Verdict.ABOVE_POSITIVE)
        elif not keeps and not row.is_judged_negative:
            verdicts.append(Verdict.INSIDE_MARGIN)
        elif verdicts.count(Verdict.KEPT) == settings["negatives_per_query"]:
            verdicts.append(Verdict.BEYOND_QUOTA)
        else:
            verdicts.append(Verdict.KEPT)
    first = next(place for place, row in enumerate(rows) if row.is_positive)
    most = settings["max_positive_rank"]
    no_margin = {"adaptive": p <= background, "percent": p <= min(scores)}.get(rule, False)
    verdict = Verdict.KEPT
    if (no_margin and not has_class) or (most is not None and first + 1 > most):
        verdict = Verdict.WEAK_POSITIVE
    elif verdicts.count(Verdict.KEPT) < settings["min_negatives"]:
        verdict = Verdict.TOO_FEW_NEGATIVES
    if verdict:
        verdicts = [verdict if own in (Verdict.KEPT, Verdict.BEYOND_QUOTA) else own for own in verdicts]
    return verdicts, verdict


@given(st.lists(QUERY, min_size=1, max_size=4), SETTINGS)
def test_equal_to_a_loop(queries: list[Query], settings: dict[str, Any]) -> None:
    judgement = judge(queries, **settings)
    expected = [literal(query, settings) for query in queries]
    assert judgement.verdicts.tolist() == [verdict for verdicts, _ in expected for verdict in verdicts]
    assert judgement.query_verdicts.tolist() == [verdict for _, verdict in expected]


@given(st.lists(QUERY, min_size=1, max_size=4), SETTINGS, st.one_of(st.none(), st.integers(1, 4)))
def test_positives_of_groups_equal_a_loop(queries: list[Query], settings: dict[str, Any], most: int | None) -> None:
    expected: list[bool] = []
    for query in queries:
        rows, verdicts, verdict = query[0], *literal(query, settings)
        scores = [row.score for row in rows]
        background = np.quantile(scores, settings["background_quantile"]) if settings["rule"] == "adaptive" else -9.0
        first, *others = (place for place, row in enumerate(rows) if row.is_positive)
        others = [place for place in others if scores[place] > max(background, min(scores))]
        clear = [scores[place] for place in (first, *others) if scores[place] > max(background, min(scores))]
        p = scores[first] if query[1] or not clear else min(clear)
        relabelled = [n for n, own in enumerate(verdicts) if own == Verdict.RELABELLED and scores[n] >= p]
        chosen = [first, *others, *relabelled][:most] if verdict == Verdict.KEPT else []
        expected += [place in chosen for place in range(len(rows))]
    assert negatives.find_positives(judge(queries, **settings), arrays(queries), most).tolist() == expected


@given(st.lists(QUERY, min_size=1, max_size=4), SETTINGS)
def test_nothing_above_the_positive_is_ever_kept_that_nobody_has_judged(
    queries: list[Query], settings: dict[str, Any]
) -> None:
    if settings["rule"] == "none":
        return
    judgement = judge(queries, **settings)
    scores = np.array([row.score for rows, _ in queries for row in rows])
    starts = np.cumsum([0, *(len(rows) for rows, _ in queries)])[:-1]
    reference = segments.spread(judgement.standing.references, starts, len(scores))
    is_judged = np.array([row.is_judged_negative for rows, _ in queries for row in rows])
    assert (is_judged | (scores <= reference))[judgement.verdicts == Verdict.KEPT].all()


@given(QUERY, st.sampled_from(RULE_NAMES), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_margin_keeps_a_subset(query: Query, rule: Rule, one_margin: float, other: float) -> None:
    small, large = sorted([one_margin, other])
    kept = [judge([query], rule=rule, margin=margin).verdicts == Verdict.KEPT for margin in (small, large)]
    assert not (kept[1] & ~kept[0]).any()


@given(QUERY, st.floats(-100, 100), st.floats(0.125, 8), st.sampled_from(["adaptive", "percent"]))
def test_shift_and_scale_change_no_verdict(query: Query, shift: float, scale: float, rule: Rule) -> None:
    # Scores on a grid and the margin off it, so that no candidate lies on the threshold, where rounding decides.
    rows = [row._replace(score=round(row.score * 4) / 4) for row in query[0]]
    moved = [row._replace(score=row.score * scale + shift) for row in rows]
    settings: dict[str, Any] = {"rule": rule, "margin": 0.0937, "background_quantile": 0.0}
    assert (
        judge([(moved, query[1])], **settings).verdicts.tolist()
        == judge([(rows, query[1])], **settings).verdicts.tolist()
    )


def test_adaptive_by_hand_on_negative_scores() -> None:
    # p = -1, background = -3: with margin 0.25 the threshold is -1 - 0.25 * 2 = -1.5.
    reasons = one([-0.5, -1.0, -1.4, -1.5, -3.0], [1], rule="adaptive", margin=0.25, background_quantile=0.0)
    assert reasons == ["above_positive", "labelled_positive", "inside_margin", "kept", "kept"]


def test_percent_by_hand_on_negative_scores() -> None:
    # From the lowest, -3: p is 2, the bound 0.75 * 2 = 1.5. NV-Retriever's own 0.75 * -1 would be above p.
    reasons = one([-0.8, -1.0, -1.5, -1.6, -3.0], [1], rule="percent", margin=0.25)
    assert reasons == ["above_positive", "labelled_positive", "inside_margin", "kept", "kept"]


def test_absolute_by_hand() -> None:
    reasons = one([2.0, 1.75, 1.5, 0.0], [0], rule="absolute", margin=0.5)
    assert reasons == ["labelled_positive", "inside_margin", "kept", "kept"]


def test_none_keeps_all_but_positives_and_duplicates() -> None:
    reasons = one([3.0, 2.0, 1.0, 0.0], [1], (2,), rule="none")
    assert reasons == ["kept", "labelled_positive", "duplicate_of_positive", "kept"]


def test_what_is_judged_a_negative_stands_at_any_score() -> None:
    scores = (3.0, 2.5, 2.0, 1.9, 0.0)
    rows = [Candidate(s, s == 2.0, False, is_judged_negative=s in (3.0, 1.9)) for s in scores]
    judgement = judge([(rows, True)], rule="absolute", margin=0.5)
    reasons = [Verdict(code).reason for code in judgement.verdicts]
    assert reasons == ["kept", "above_positive", "labelled_positive", "kept", "kept"]


def test_the_relabelled_are_no_negatives_and_no_reference() -> None:
    rows = [Candidate(score, score == 2.0, False, score in (3.0, 1.0)) for score in (3.0, 2.0, 1.0, 0.0)]
    judgement = judge([(rows, False)], rule="none")
    assert [Verdict(code).reason for code in judgement.verdicts] == [
        "relabelled",
        "labelled_positive",
        "relabelled",
        "kept",
    ]
    assert (judgement.standing.references.tolist(), judgement.standing.positives.tolist()) == ([2.0], [1])


def test_the_weakest_positive_is_the_reference() -> None:
    reasons = one([3.0, 2.0, 1.0, 0.0], [0, 2], rule="absolute", margin=0.0)
    assert reasons == ["labelled_positive", "above_positive", "labelled_positive", "kept"]


@pytest.mark.parametrize("rule", ["adaptive", "percent", "absolute"])
def test_positives_that_no_retriever_found_do_not_cost_the_query(rule: str) -> None:
    # Two positives have the lowest score of all, as what was not found gets; one stands above nothing, and is weak.
    reasons = one([3.0, 2.0, 1.0, 0.0, 0.0], [0, 3, 4], rule=rule, margin=0.1, background_quantile=0.1)
    assert reasons == ["labelled_positive", "kept", "kept", "labelled_positive", "labelled_positive"]


def test_a_query_with_a_class_needs_no_positive_that_stands_out() -> None:
    rows = [Candidate(s, s == 0.0, False, is_judged_negative=s > 0) for s in (2.0, 1.0, 0.0)]
    for has_class, reason in ((True, "kept"), (False, "weak_positive")):
        judgement = judge([(rows, has_class)], rule="adaptive", margin=0.1, background_quantile=0.1)
        assert [Verdict(code).reason for code in judgement.verdicts] == [reason, reason, "labelled_positive"]


def test_of_a_class_the_best_positive_is_the_reference() -> None:
    rows = [Candidate(score, score in (3.0, 1.0), False) for score in (3.0, 2.0, 1.0, 0.0)]
    judgement = judge([(rows, True)], rule="absolute", margin=0.0)
    assert [Verdict(code).reason for code in judgement.verdicts] == ["labelled_positive", "kept"] * 2
    assert judgement.standing.positives.tolist() == [0]


def test_hardest_are_kept_first() -> None:
    reasons = one([3.0, 2.0, 1.0, 0.0], [0], rule="none", negatives_per_query=2)
    assert reasons == ["labelled_positive", "kept", "kept", "beyond_quota"]


@pytest.mark.parametrize(
    ("scores", "settings", "reason"),
    [
        ([1.0, 1.0, 1.0], {"rule": "adaptive"}, "weak_positive"),  # no spread: no margin exists
        ([1.0, 1.0, 1.0], {"rule": "percent"}, "weak_positive"),
        ([1.0, 0.9, 0.0], {"rule": "adaptive", "max_positive_rank": 1}, "weak_positive"),
        ([1.0, 0.9, 0.0], {"rule": "adaptive", "min_negatives": 2}, "too_few_negatives"),
    ],
)
def test_a_query_is_dropped_for_a_reason(scores: list[float], settings: dict[str, Any], reason: str) -> None:
    rows = [Candidate(score, place == 1, False) for place, score in enumerate(scores)]
    assert [Verdict(code).reason for code in judge([(rows, False)], **settings).query_verdicts] == [reason]


def test_no_negatives_at_all_still_makes_a_group() -> None:
    judgement = judge(
        [([Candidate(1.0, True, False), Candidate(0.0, False, False)], False)], rule="adaptive", negatives_per_query=0
    )
    assert [Verdict(code).reason for code in judgement.verdicts] == ["labelled_positive", "beyond_quota"]
    assert judgement.query_verdicts.tolist() == [Verdict.KEPT]


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=9), st.floats(0.1, 5), st.data())
def test_renormalised_soft_labels_are_the_softmax_over_the_group(
    scores: list[float], temperature: float, data: st.DataObject
) -> None:
    starts = np.zeros(1, dtype=np.int64)
    soft = fusion.soften(np.array(scores), temperature, starts)
    group = data.draw(st.lists(st.sampled_from(range(len(scores))), min_size=1, unique=True))
    np.testing.assert_allclose(
        fusion.share(soft[group], starts),
        fusion.soften(np.array(scores)[group], temperature, starts),
        rtol=1e-9,
    )
