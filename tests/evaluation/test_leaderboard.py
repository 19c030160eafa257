"""Borda ranks against a count by hand, mteb's own function, and the published places of public models."""

import csv

import polars as pl
import pytest
from mteb.benchmarks._create_table import _get_borda_rank

from anna.errors import InputError
from anna.evaluation import leaderboard, result_files
from anna.evaluation.leaderboard import REFERENCE
from anna.scores import Score

PUBLISHED = {
    "Classification": 89.97,
    "Clustering": 59.25,
    "PairClassification": 88.67,
    "Reranking": 49.13,
    "Retrieval": 66.18,
    "STS": 86.69,
    "Summarization": 38.93,
}

TYPES = {"A": "Retrieval", "B": "Retrieval", "C": "STS"}


@pytest.fixture(scope="module")
def types() -> dict[str, str]:
    return {name: task.metadata.type for name, task in result_files.benchmark_tasks().items()}


@pytest.fixture(scope="module")
def public() -> pl.DataFrame:
    return leaderboard.public_scores()


def toy(**models: tuple[float, ...]) -> pl.DataFrame:
    rows = [{"model": name, **dict(zip("ABC", scores, strict=True))} for name, scores in models.items()]
    return pl.DataFrame(rows, schema={"model": pl.String, "A": pl.Float64, "B": pl.Float64, "C": pl.Float64})


def test_points_ties_and_means_by_hand() -> None:
    # Ranks by task: A: x 1, y 2.5, z 2.5, w 4. B: y 1, x 2, z 3, w 4. C: z 1, y 2, x 3, w 4.
    # Points of 4 models: x 3+2+1 = 6, y 1.5+3+2 = 6.5, z 1.5+1+3 = 5.5, w 0.
    board = leaderboard.rank(toy(x=(0.9, 0.5, 0.2), y=(0.8, 0.6, 0.3), z=(0.8, 0.4, 0.5), w=(0.1, 0.1, -0.1)), TYPES)
    assert board["model"].to_list() == ["y", "x", "z", "w"]
    assert board["rank"].to_list() == [1, 2, 3, 4]
    x = leaderboard.standing(board, "x")
    assert x == {"rank": 2, "of": 4, "mean_by_task": 0.53333, "mean_by_type": 0.45, "Retrieval": 0.7, "STS": 0.2}


def test_equal_points_share_the_better_rank() -> None:
    board = leaderboard.rank(toy(x=(0.9, 0.5, 0.2), y=(0.5, 0.9, 0.2), z=(0.1, 0.1, 0.1)), TYPES)
    assert dict(board.select("model", "rank").iter_rows()) == {"x": 1, "y": 1, "z": 3}


@pytest.mark.parametrize("types", [{}, {"STS12": "STS", "NoTask": "STS"}])
def test_tasks_that_nobody_has_are_refused(types: dict[str, str]) -> None:
    with pytest.raises(InputError, match=r"^(\['NoTask'\]|no tasks): cannot be ranked on MTEB\(eng, v2\); name some"):
        leaderboard.compare({"student": dict.fromkeys(types, 0.5)}, types)


def test_the_shipped_table_is_whole(public: pl.DataFrame, types: dict[str, str]) -> None:
    assert leaderboard.SCORES_FILE.read_text(encoding="utf-8").startswith("# Main scores, 0 to 1, of the 183 public")
    assert sorted(leaderboard.public_tasks(public)) == sorted(types)
    assert len(types) == 41
    scores = public.select(list(types))
    assert scores.null_count().sum_horizontal().item() == 0
    assert public["model"].n_unique() == len(public) == 183
    assert -0.1 < scores.min().min_horizontal().item() < 0 < scores.max().max_horizontal().item() <= 1


def test_the_published_model_has_its_published_numbers(public: pl.DataFrame, types: dict[str, str]) -> None:
    found = leaderboard.standing(leaderboard.rank(public, types), REFERENCE)
    assert (found["rank"], found["of"]) == (6, 183)
    assert round(100 * found["mean_by_task"], 2) == 74.12
    assert round(100 * found["mean_by_type"], 2) == 68.40
    assert {name: round(100 * found[name], 2) for name in PUBLISHED} == PUBLISHED
    then = public.filter(pl.col("release_date") <= "2025-06-17")
    assert leaderboard.standing(leaderboard.rank(then, types), REFERENCE)["rank"] == 1
    assert len(then) == 142


@pytest.mark.parametrize("part", [slice(None), slice(0, 7), slice(5, 6)])
def test_ranks_are_those_of_mteb(public: pl.DataFrame, types: dict[str, str], part: slice) -> None:
    names = sorted(types)[part]
    theirs = public.select("model", _get_borda_rank(names).alias("rank"))
    ours = leaderboard.rank(public, {name: types[name] for name in names}).select("model", "rank")
    assert ours.sort("model").equals(theirs.sort("model"))


def test_ours_is_one_more_among_the_public_models(public: pl.DataFrame, types: dict[str, str]) -> None:
    own = public.filter(pl.col("model") == REFERENCE).row(0, named=True)
    better = {task: own[task] + 1e-9 for task in types}
    said = leaderboard.compare({"student": better, "student_with_examples": dict.fromkeys(types, -1.0)}, types)
    assert said["standings"]["student"]["rank"] == 6
    assert said["standings"]["student"]["of"] == 184
    assert said["standings"]["student_with_examples"]["rank"] == 184
    assert said["reference"]["rank"] == 6, "of the public models alone"
    assert said["missing"] == []
    assert said["notes"] == ["ranked on all 41 tasks of MTEB(eng, v2), among 183 public models"]
    assert [row["rank"] for row in said["around"]] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [row["model"] for row in said["around"] if row["is_ours"]] == ["student"]
    assert REFERENCE in [row["model"] for row in said["around"][6:]]


def evaluated(tasks: dict[str, str], *models: tuple[str, str], value: float = 0.5) -> list[Score]:
    return [Score(model, mode, task, kind, "x", value) for model, mode in models for task, kind in tasks.items()]


def test_a_part_of_the_tasks_is_ranked_on_that_part_and_says_so(types: dict[str, str]) -> None:
    some = {"STS12": "STS", "STS13": "STS"}
    scores = evaluated(some, ("student", "zero_shot"), ("student", "with_examples"), ("teacher", "zero_shot"))
    scores += evaluated({"STS12": "STS"}, ("bm25", "zero_shot"), value=0.9)
    said = leaderboard.summary("MTEB(eng, v2)", scores)
    assert list(said["standings"]) == ["student", "student_with_examples", "teacher"], "bm25 has not all of them"
    assert said["notes"][0] == (
        "ranked on 2 of the 41 tasks of MTEB(eng, v2), among 183 public models: not a rank on the benchmark"
    )
    assert said["missing"] == sorted(set(types) - set(some))
    assert said["notes"][1] == "ranked on: STS12, STS13"
    assert said["standings"]["student"]["mean_by_task"] == 0.5
    assert set(said["reference"]) == {"model", "rank", "of", "mean_by_task", "mean_by_type", "STS"}
    most = {task: kind for task, kind in types.items() if task not in ("STS12", "BIOSSES")}
    said = leaderboard.summary("MTEB(eng, v2)", evaluated(most, ("student", "zero_shot")))
    assert said["notes"][1] == "without a score: BIOSSES, STS12"


def test_held_out_samples_are_not_ranked_even_where_they_share_a_name() -> None:
    said = leaderboard.summary("held_out", evaluated({"STSBenchmark": "STS"}, ("student", "zero_shot")))
    assert said["notes"] == ["not ranked: held_out is not MTEB(eng, v2), whose public scores come with the project"]
    assert said["standings"] == {}
    assert "reference" not in said


def test_the_table_has_no_cell_that_is_not_a_number() -> None:
    rows = list(csv.reader(leaderboard.SCORES_FILE.open(encoding="utf-8")))[2:]
    assert all(len(row) == 44 and all(float(cell) == float(cell) for cell in row[3:]) for row in rows[1:])
