"""A run that was killed ends as if it had not been: the same weights to the last bit, the same files."""

import random
import shutil
from pathlib import Path

import pytest
import torch

from tests.training.runs import NUM_STEPS, dropping, outcome, train, weights
from tests.training.test_live import rows

SCORES = {0: 0.3, 1: 0.2, 2: 0.5, 3: 0.9, 4: 0.4, 5: 0.9, 6: 0.1}
"""Best after steps 3 and 5, and worst after the last."""


def assert_equal(got: Path, expected: Path) -> None:
    """Compare everything that a run leaves."""
    ours, theirs = weights(got), weights(expected)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert outcome(got) == outcome(expected)
    for name in ("loss", "similarity_gap", "ndcg_at_10"):
        assert rows(got / "dvclive", name) == rows(expected / "dvclive", name)
    assert [row[0] for row in rows(got / "dvclive", "tokens_per_second")[1:]] == [
        str(step) for step in range(1, NUM_STEPS + 1)
    ]
    assert [path.name for path in got.glob("checkpoints/*/step-*")] == [f"step-{NUM_STEPS}"]


@pytest.fixture(scope="module")
def whole(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with dropout that nothing interrupted."""
    folder = tmp_path_factory.mktemp("resume") / "whole"
    train(tiny_checkpoint, folder, dropping())
    return folder


def test_killed_between_checkpoints(tiny_checkpoint: Path, whole: Path, tmp_path: Path) -> None:
    train(tiny_checkpoint, tmp_path, dropping(), kill=("step", 6))
    assert not (tmp_path / "encoder").exists()
    assert not (tmp_path / "training.csv").exists()
    said = train(tiny_checkpoint, tmp_path, dropping(checkpoint_steps=3))
    assert "continuing after step 4" in said
    assert_equal(tmp_path, whole)


def test_killed_while_a_checkpoint_was_written(tiny_checkpoint: Path, whole: Path, tmp_path: Path) -> None:
    train(tiny_checkpoint, tmp_path, dropping(), kill=("save", 2))
    (folder,) = (tmp_path / "checkpoints").iterdir()
    assert {path.name for path in folder.glob("step-*")} == {"step-2", "step-4"}
    said = train(tiny_checkpoint, tmp_path, dropping())
    assert "continuing after step 2" in said
    assert_equal(tmp_path, whole)


def test_a_run_that_began_with_a_written_last_layer(tiny_checkpoint: Path, tmp_path: Path) -> None:
    first = {"epochs": 2, "batch_queries": 8, "learning_rate": 0.003}
    chosen = dropping(method="full", last_layer_first=first)
    said = train(tiny_checkpoint, tmp_path / "whole", chosen, last_layer="weighted_mean")
    assert "the last layer starts as a mean of the text" in said
    train(tiny_checkpoint, tmp_path / "killed", chosen, last_layer="weighted_mean", kill=("step", 4))
    again = train(tiny_checkpoint, tmp_path / "killed", chosen, last_layer="weighted_mean")
    assert_equal(tmp_path / "killed", tmp_path / "whole")
    assert "continuing after step 2" in again
    assert "the last layer alone, 6 steps" in said
    assert "the last layer alone" not in again, "what it came to was kept"
    train(tiny_checkpoint, tmp_path / "plain", chosen)
    assert outcome(tmp_path / "plain") != outcome(tmp_path / "whole")


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_that_was_killed_between_its_last_layer_and_its_first_checkpoint(
    ranks: int, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    first = {"epochs": 2, "batch_queries": 8, "learning_rate": 0.003}
    chosen = dropping(method="full", last_layer_first=first)
    train(tiny_checkpoint, tmp_path / "whole", chosen, ranks=ranks)
    train(tiny_checkpoint, tmp_path / "killed", chosen, ranks=ranks, kill=("step", 1))
    again = train(tiny_checkpoint, tmp_path / "killed", chosen, ranks=ranks)
    assert "the last layer is as this run left it before all layers" in again
    assert "continuing" not in again
    assert_equal(tmp_path / "killed", tmp_path / "whole")


def test_a_model_that_was_lost_after_the_last_step_is_saved_again(
    tiny_checkpoint: Path, whole: Path, tmp_path: Path
) -> None:
    """As when DVC finds no room to record it: before `train` runs again, DVC deletes what it left."""
    train(tiny_checkpoint, tmp_path, dropping())
    shutil.rmtree(tmp_path / "encoder")
    for name in ("training.csv", "validation.csv", "train.json"):
        (tmp_path / name).unlink()
    said = train(tiny_checkpoint, tmp_path, dropping())
    assert f"continuing after step {NUM_STEPS}" in said
    assert_equal(tmp_path, whole)
    (finished,) = (tmp_path / "checkpoints").iterdir()
    assert "left unfinished" not in train(tiny_checkpoint, tmp_path, dropping(kd_weight=0.5))
    assert not finished.exists(), "the last run that ended is kept"


def test_other_ranks_other_params_and_other_data(tiny_checkpoint: Path, tmp_path: Path) -> None:
    train(tiny_checkpoint, tmp_path, dropping(), kill=("step", 4))
    said = train(tiny_checkpoint, tmp_path, dropping(), ranks=2, code=1)
    assert "is an unfinished run with train.processes 1; 2 would not continue it exactly" in said
    for changes, queries, name in (
        ({"kd_weight": 0.5}, None, "train.kd_weight"),
        ({}, 18, "data.groups, data.texts"),
    ):
        said = train(tiny_checkpoint, tmp_path, dropping(**changes), queries=queries)
        assert f"left unfinished after step 2, which differs in {name}:" in said
        assert "continuing" not in said
    assert "continuing after step 2" in train(tiny_checkpoint, tmp_path, dropping())


def test_dropout_makes_the_runs_above_random(tiny_checkpoint: Path, whole: Path, tmp_path: Path) -> None:
    """Otherwise they could not tell whether random states are restored."""
    train(tiny_checkpoint, tmp_path, dropping(lora={"rank": 4, "alpha": 8, "dropout": 0.0}))
    assert (tmp_path / "training.csv").read_bytes() != (whole / "training.csv").read_bytes()


def test_the_best_weights_are_saved_though_a_kill_came_between(tiny_checkpoint: Path, tmp_path: Path) -> None:
    chosen, scores = dropping(validation_steps=1, checkpoint_steps=3), SCORES | {5: 0.8}
    train(tiny_checkpoint, tmp_path, chosen, scores=scores, kill=("step", 6))
    (states,) = tmp_path.glob("checkpoints/*/step-3/mp_rank_00_model_states.pt")
    module = torch.load(states, weights_only=False)["module"]
    said = train(tiny_checkpoint, tmp_path, chosen, scores=scores)
    assert "saving the weights after step 3 of 6" in said
    after_third = {
        name.removeprefix("backbone.").replace(".default", ""): value
        for name, value in module.items()
        if "lora" in name
    }
    saved = weights(tmp_path)
    assert saved.keys() == after_third.keys()
    assert all(torch.equal(saved[name], value) for name, value in after_third.items())


def test_the_last_weights_are_saved_where_params_say_so(tiny_checkpoint: Path, tmp_path: Path) -> None:
    said = train(tiny_checkpoint, tmp_path, dropping(validation_steps=1, keep="last"), scores=SCORES)
    assert "saving the weights after step 6 of 6" in said
    assert "nDCG@10 was 0.3000 before training and is 0.1000 after step 6, whose weights are kept: lower train" in said
    assert (tmp_path / "validation.csv").read_text().splitlines()[1] == "0,0,0.3"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize(("zero_stage", "ranks"), [(0, 1), (1, 1), (2, 1), (3, 1), (0, 2), (1, 2), (2, 2), (3, 2)])
def test_every_stage_on_one_rank_and_two(
    zero_stage: int, ranks: int, method: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    chosen = dropping(zero_stage=zero_stage, method=method, validation_steps=1, max_micro_step_tokens=80)
    train(tiny_checkpoint, tmp_path / "whole", chosen, ranks=ranks, scores=SCORES)
    step = random.randrange(1, NUM_STEPS + 1)
    train(tiny_checkpoint, tmp_path / "cut", chosen, ranks=ranks, scores=SCORES, kill=("step", step))
    said = train(tiny_checkpoint, tmp_path / "cut", chosen, ranks=ranks, scores=SCORES)
    assert ("continuing" in said) == (step > 2)
    assert "saving the weights after step 5 of 6" in said
    assert_equal(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("zero_stage", [1, 3])
def test_two_ranks_validate_as_one_does(zero_stage: int, tiny_checkpoint: Path, tmp_path: Path) -> None:
    chosen = dropping(zero_stage=zero_stage, lora={"rank": 4, "alpha": 8, "dropout": 0.0}, validation_steps=1)
    for ranks in (1, 2):
        train(tiny_checkpoint, tmp_path / str(ranks), chosen, ranks=ranks)
    one, two = (rows(tmp_path / str(ranks) / "dvclive", "ndcg_at_10")[1:] for ranks in (1, 2))
    assert len(one) == NUM_STEPS
    assert [float(row[1]) for row in two] == pytest.approx([float(row[1]) for row in one], abs=0.05)
