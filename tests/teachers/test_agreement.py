"""Whether candidates keep their order in a shorter number format: by hand, and what is refused."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from anna import schemas
from anna.engine import Items
from anna.errors import InputError
from anna.modeling.hardware import Dtype
from anna.teachers import agreement
from tests.teachers.conftest import Toy, table

EXACT = {
    "The river Seine flows through Paris.": 4.0,
    "the river SEINE flows, through Paris": 3.0,
    "Mountains are high.": 2.0,
    "Paris is the capital of France.": 1.0,
    "Who wrote this book?": 1.0,
    "Who painted that wall?": 2.0,
}
RUN = [("A:q:1", 1, "A:d:1", 9.0), ("A:q:1", 2, "A:d:3", 8.0), ("A:q:1", 3, "A:d:2", 7.0), ("A:q:1", 4, "A:d:4", 6.0)]
RUN += [("A:q:2", 1, "A:d:4", 5.0), ("B:q:1", 1, "B:d:2", 5.0), ("B:q:1", 2, "B:d:1", 4.0)]


def scores(pairs: Items) -> NDArray[np.float32]:
    """What the documents of the toy collection are given in float32."""
    return np.array([EXACT[text] for _, text in pairs], dtype=np.float32)


@dataclass(frozen=True)
class Params:
    """What of a teacher's params the comparison reads."""

    section: ClassVar[str] = "rerank"
    dtype: Dtype = "bfloat16"
    check_queries: int = 2
    min_spearman: float = 0.5


def check(toy: Toy, score: agreement.Score = scores, **changed: Any) -> dict[str, object]:
    return agreement.check(table(schemas.RUN, RUN), toy.corpus, toy.queries, score, Params(**changed))


def correlate(*queries: tuple[list[float], list[float]]) -> dict[str, object]:
    """Return the correlations of queries, each with its scores and its exact ones."""
    names = [f"q{place}" for place, (own, _) in enumerate(queries) for _ in own]
    rows = pl.DataFrame({"query_id": names, "score": [score for own, _ in queries for score in own]})
    return agreement.correlations(rows, np.array([score for _, own in queries for score in own], dtype=np.float32))


def test_the_correlation_is_that_of_ranks_within_each_query(toy: Toy) -> None:
    # A:q:1 ranks 1, 3, 2, 4 of float32: 1 - 6 * (0 + 1 + 1 + 0) / (4 * 15) = 0.8. A:q:2 has one candidate, no order.
    assert check(toy) == {"spearman_float32": {"mean": pytest.approx(0.9), "lowest": pytest.approx(0.8), "queries": 2}}


def test_by_hand_with_ties_reversals_and_scores_that_say_nothing() -> None:
    # Ranks 1.5, 1.5, 3 against 1, 2, 3: covariance 1.5, variances 1.5 and 2 (times 2): 1.5 / sqrt(1.5 * 2).
    tied = ([1.0, 1.0, 2.0], [0.1, 0.2, 0.3])
    assert correlate(tied)["mean"] == pytest.approx(1.5 / 3.0**0.5)
    assert correlate(([3.0, 2.0, 1.0], [1.0, 2.0, 3.0]))["lowest"] == pytest.approx(-1.0)
    assert correlate(([7.0, 7.0], [1.0, 2.0]), ([1.0, 2.0], [5.0, 5.0])) == {"mean": 0.0, "lowest": 0.0, "queries": 1}
    assert correlate(([7.0], [1.0])) == {"mean": None, "lowest": None, "queries": 0}


def test_other_scales_do_not_matter() -> None:
    assert correlate(([-3.0, 0.0, 9.0], [0.1, 0.2, 0.3]))["mean"] == pytest.approx(1.0)


@pytest.mark.parametrize("changed", [{"dtype": "float32"}, {"check_queries": 0}])
def test_nothing_is_scored_where_nothing_is_compared(toy: Toy, changed: dict[str, Any]) -> None:
    assert check(toy, pytest.fail, **changed) == {}


def test_so_many_queries_of_each_task_the_first_by_hash(toy: Toy) -> None:
    asked: list[str] = []

    def seen(pairs: Items) -> NDArray[np.float32]:
        asked.extend(query for query, _ in pairs)
        return scores(pairs)

    check(toy, seen, check_queries=1, min_spearman=-1.0)
    assert set(asked) == {"capital of France", "Who wrote that book?"}  # BLAKE2b of A:q:2: cdce..., of A:q:1: d413...


def test_another_order_than_in_float32_is_refused_with_the_remedy(toy: Toy) -> None:
    expected = (
        r"^rerank.min_spearman is 0.95, but over 2 queries the order of candidates in bfloat16 has a mean rank "
        r"correlation of 0.9000 with that in float32; set rerank.dtype: float32"
    )
    with pytest.raises(InputError, match=expected):
        check(toy, min_spearman=0.95)
