"""Where a model stands among the public models of MTEB(eng, v2): means, and the Borda rank by mteb's rule.

Each task is a ballot: it ranks the models by main score, equal scores share the mean of their ranks, and a model earns
as many points as there are models minus its rank. Points are summed over tasks, the most points are rank 1, and models
with equal points share the better rank. A task's main score is the mean over its parts (subsets and splits).

Every public model of the shipped table has a score on every task. A model of ours with fewer tasks is ranked on those
tasks alone: mteb would give it no points for the others, and a rank by what somebody has not run says nothing.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from anna.errors import InputError
from anna.scores import Score, column

BENCHMARK = "MTEB(eng, v2)"
"""The one benchmark whose public scores are shipped."""

REFERENCE = "annamodels/LGAI-Embedding-Preview"
"""The published model of the recipe that this project rebuilds."""

SCORES_FILE = Path(__file__).with_name("mteb_eng_v2_scores.csv")

_FACTS = ("model", "release_date", "n_parameters")
_NEIGHBOURS = 2


def public_scores() -> pl.DataFrame:
    """Return the public table: `model`, `release_date`, `n_parameters`, and main scores (0 to 1), a column per task."""
    return pl.read_csv(SCORES_FILE, comment_prefix="#")


def public_tasks(public: pl.DataFrame) -> list[str]:
    """Return the tasks of the public table."""
    return [name for name in public.columns if name not in _FACTS]


def check_tasks(names: Collection[str], public: pl.DataFrame) -> None:
    """Refuse tasks that the public table lacks, or none at all.

    Raises:
        InputError: Then.
    """
    unknown = sorted(set(names) - set(public_tasks(public)))
    if unknown or not names:
        raise InputError(
            f"{unknown or 'no tasks'}: cannot be ranked on {BENCHMARK}; name some of {public_tasks(public)}"
        )


def rank(scores: pl.DataFrame, types: Mapping[str, str]) -> pl.DataFrame:
    """Return `model`, `rank`, `mean_by_task`, `mean_by_type` and the mean of each type (0 to 1); best first.

    Args:
        scores: `model`, and one column of main scores per task.
        types: Task -> its mteb type. These tasks count, no others.
    """
    # The most points are the smallest sum of ranks. Ranks are multiples of a half, so their sums are exact.
    rank_sum = pl.sum_horizontal(pl.col(task).rank("average", descending=True) for task in types)
    groups: dict[str, list[str]] = {}
    for task in sorted(types):
        groups.setdefault(types[task], []).append(task)
    means = {name: pl.mean_horizontal(groups[name]) for name in sorted(groups)}
    ranked = scores.select(
        "model",
        rank_sum.rank("min").cast(pl.Int64).alias("rank"),
        pl.mean_horizontal(list(types)).alias("mean_by_task"),
        pl.mean_horizontal(list(means.values())).alias("mean_by_type"),
        **means,
    )
    return ranked.sort("rank", "model")


def place(public: pl.DataFrame, own: Mapping[str, float], types: Mapping[str, str], name: str) -> pl.DataFrame:
    """Rank the public models and one of ours, called `name`, on all tasks of `own` (task -> main score, 0 to 1)."""
    row = pl.DataFrame({"model": [name], **{task: [float(score)] for task, score in own.items()}})
    known = public.select("model", *(pl.col(task).cast(pl.Float64) for task in own))
    return rank(pl.concat([known, row]), {task: types[task] for task in own})


def standing(board: pl.DataFrame, model: str) -> dict[str, Any]:
    """Return the numbers of one model that `rank` ranked: rank, of how many, and means to 5 decimals."""
    found = board.row(by_predicate=pl.col("model") == model, named=True)
    means = {name: round(value, 5) for name, value in found.items() if name not in ("model", "rank")}
    return {"rank": found["rank"], "of": len(board), **means}


def around(board: pl.DataFrame, name: str) -> list[dict[str, Any]]:
    """Return the best three, the reference, and the neighbours of model `name`, best first."""
    at = board["model"].to_list().index(name)
    near = pl.int_range(pl.len()).is_between(at - _NEIGHBOURS, at + _NEIGHBOURS)
    shown = board.filter(near | (pl.int_range(pl.len()) < 3) | (pl.col("model") == REFERENCE))
    means = shown.select("rank", "model", pl.col("mean_by_task", "mean_by_type").round(5))
    return [{**row, "is_ours": row["model"] == name} for row in means.to_dicts()]


def summary(benchmark: str, scores: Sequence[Score]) -> dict[str, Any]:
    """Return what `metrics/leaderboard.json` holds, ranked or not.

    The student counts: in each of its modes, and every other model that has all its tasks, it is put among the public
    models alone, so that no model of ours moves another.

    Args:
        benchmark: What was evaluated. Held-out samples are never ranked, whatever their names: they are other rows.
        scores: Of all models and modes.
    """
    if benchmark != BENCHMARK:
        note = f"not ranked: {benchmark} is not {BENCHMARK}, whose public scores come with the project"
        return {"benchmark": benchmark, "notes": [note], "standings": {}, "around": []}
    types = {score.task: score.type for score in scores if score.model == "student"}
    own: dict[str, dict[str, float]] = {}
    for score in scores:
        if score.task in types:
            own.setdefault(column(score.model, score.mode), {})[score.task] = score.value
    return compare({name: of for name, of in own.items() if set(of) == set(types)}, types)


def compare(own: Mapping[str, Mapping[str, float]], types: Mapping[str, str]) -> dict[str, Any]:
    """Return the standing of models of ours, each alone among the public ones.

    Args:
        own: Model -> task -> main score, 0 to 1; all on the same tasks. The first is shown among its neighbours.
        types: Task -> mteb type, of these tasks.

    Raises:
        InputError: As `check_tasks`.
    """
    public = public_scores()
    check_tasks(types, public)
    boards = {name: place(public, scores, types, name) for name, scores in own.items()}
    first = next(iter(boards))
    alone = rank(public, types)
    missing = sorted(set(public_tasks(public)) - set(own[first]))
    return {
        "benchmark": BENCHMARK,
        "notes": _notes(list(own[first]), missing, len(public)),
        "missing": missing,
        "reference": {"model": REFERENCE, **standing(alone, REFERENCE)},
        "standings": {name: standing(board, name) for name, board in boards.items()},
        "around": around(boards[first], first),
    }


def _notes(ranked: Sequence[str], missing: Sequence[str], num_public: int) -> list[str]:
    """Return in words what was ranked among what; of the tasks with and without a score, the shorter list is named."""
    among = f"among {num_public} public models"
    if not missing:
        return [f"ranked on all {len(ranked)} tasks of {BENCHMARK}, {among}"]
    total = len(ranked) + len(missing)
    part = f"ranked on {len(ranked)} of the {total} tasks of {BENCHMARK}, {among}: not a rank on the benchmark"
    if len(ranked) < len(missing):
        return [part, f"ranked on: {', '.join(sorted(ranked))}"]
    return [part, f"without a score: {', '.join(missing)}"]
