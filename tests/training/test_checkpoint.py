"""What a killed process leaves on disk, and which of it is continued."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from anna.errors import InputError
from anna.training.checkpoint import LATEST, Checkpoints, Record, Start

IDENTITY = {"train.seed": 1, "data.groups": "abc"}
CONDITIONS = {"train.processes": 1, "threads per process": 2}

pytestmark = pytest.mark.usefixtures("alone")


class Engine:
    """Writes and reads one file where DeepSpeed has many."""

    def __init__(self, state: int = 0) -> None:
        self.state = state

    def save_checkpoint(self, folder: str, *, tag: str, **_: Any) -> None:
        (Path(folder) / tag).mkdir(parents=True)
        (Path(folder) / tag / "state").write_text(str(self.state))

    def load_checkpoint(self, folder: str, *, tag: str, **_: Any) -> None:
        self.state = int((Path(folder) / tag / "state").read_text())


class ReadsBytes(Engine):
    """Its file is one of torch's, as DeepSpeed's are."""

    def save_checkpoint(self, folder: str, *, tag: str, **_: Any) -> None:
        super().save_checkpoint(folder, tag=tag)
        torch.save({"state": self.state}, Path(folder) / tag / "state")

    def load_checkpoint(self, folder: str, *, tag: str, **_: Any) -> None:
        self.state = torch.load(Path(folder) / tag / "state", weights_only=True)["state"]


def records(count: int) -> list[Record]:
    return [{"step": n + 1, "loss": 1 / (n + 3), "gap": float("nan"), "task": "A"} for n in range(count)]


def opened(root: Path, **changes: Any) -> Checkpoints:
    return Checkpoints(root, IDENTITY | changes, CONDITIONS)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_engine_records_and_random_numbers_come_back(tmp_path: Path) -> None:
    torch.manual_seed(7)
    opened(tmp_path).save(Engine(41), records(3))
    expected = torch.rand(4)
    torch.manual_seed(8)
    engine, again = Engine(), opened(tmp_path)
    got = again.resume(engine)
    assert str(got) == str(records(3))
    assert engine.state == 41
    assert torch.equal(torch.rand(4), expected)


def test_nothing_to_continue_gives_no_records(tmp_path: Path) -> None:
    assert opened(tmp_path).resume(Engine()) == []
    assert not list(tmp_path.iterdir())


def test_only_the_newest_checkpoint_is_kept(tmp_path: Path) -> None:
    checkpoints = opened(tmp_path)
    for count in (2, 4):
        checkpoints.save(Engine(count), records(count))
    assert names(checkpoints.folder) == {"run.json", LATEST, "step-4"}


class Killed(BaseException):
    """Stands for a process that is gone: nothing after it runs."""


class DyingEngine(Engine):
    def save_checkpoint(self, folder: str, *, tag: str, **others: Any) -> None:
        super().save_checkpoint(folder, tag=tag, **others)
        raise Killed


def test_killed_while_writing_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    checkpoints = opened(tmp_path)
    checkpoints.save(Engine(2), records(2))
    with pytest.raises(Killed):
        checkpoints.save(DyingEngine(4), records(4))
    assert "step-4" in names(checkpoints.folder)
    engine, again = Engine(), opened(tmp_path)
    assert len(again.resume(engine)) == engine.state == 2
    again.save(Engine(4), records(4))
    assert names(again.folder) == {"run.json", LATEST, "step-4"}
    assert len(opened(tmp_path).resume(engine)) == engine.state == 4


@pytest.mark.parametrize(("name", "value"), [("train.processes", 2), ("threads per process", 1)])
def test_other_conditions_are_refused(tmp_path: Path, name: str, value: int) -> None:
    opened(tmp_path).save(Engine(), records(1))
    other = Checkpoints(tmp_path, IDENTITY, CONDITIONS | {name: value})
    message = rf"{other.folder} is an unfinished run with {name} {CONDITIONS[name]}; {value} would not continue it exa"
    with pytest.raises(InputError, match=message):
        other.resume(Engine())


def test_a_run_that_ended_under_other_conditions_is_no_obstacle(tmp_path: Path) -> None:
    ended = opened(tmp_path)
    ended.keep_start(Start({"w": torch.zeros(2)}, {}))
    ended.save(Engine(), records(3), is_last=True)
    assert len(opened(tmp_path).resume(Engine())) == 3
    other = Checkpoints(tmp_path, IDENTITY, CONDITIONS | {"train.processes": 2})
    assert other.start() is None
    assert other.resume(Engine()) == []


def test_an_incomplete_checkpoint_is_refused(tmp_path: Path) -> None:
    checkpoints = opened(tmp_path)
    checkpoints.save(Engine(), records(1))
    (checkpoints.folder / "step-1" / "rank-0.pt").unlink()
    with pytest.raises(InputError, match=r"rank-0.pt is missing, .* delete .* to begin again"):
        opened(tmp_path).resume(Engine())


@pytest.mark.parametrize("name", ["step-2/state", "step-2/rank-0.pt", "best-2.safetensors"])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_damaged_checkpoint_is_refused_before_a_step_is_taken(name: str, is_there: bool, tmp_path: Path) -> None:
    checkpoints = opened(tmp_path)
    checkpoints.keep_best({"w": torch.ones(2)}, 2)
    checkpoints.save(ReadsBytes(), records(2))
    path = checkpoints.folder / name
    path.write_bytes(b"") if is_there else path.unlink()
    with pytest.raises(InputError, match=rf"delete {checkpoints.folder} to begin again$"):
        opened(tmp_path).resume(ReadsBytes())


def test_another_run_begins_anew_and_names_what_is_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    left = opened(tmp_path)
    left.save(Engine(), records(5))
    other = Checkpoints(tmp_path, IDENTITY | {"train.seed": 2, "code": "x"}, CONDITIONS)
    with caplog.at_level(logging.WARNING, logger="anna"):
        assert other.resume(Engine()) == []
    (warning,) = caplog.messages
    assert f"{left.folder} is a run left unfinished after step 5, which differs in code, train.seed" in warning
    other.save(Engine(), records(1))
    other.remove()
    assert names(tmp_path) == {left.folder.name}, "another run's state is not ours to delete"


def test_a_run_that_was_left_before_its_first_checkpoint_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened(tmp_path).keep_best({"w": torch.zeros(2)}, 3)
    with caplog.at_level(logging.WARNING, logger="anna"):
        Checkpoints(tmp_path, IDENTITY | {"train.seed": 2}, CONDITIONS).resume(Engine())
    assert "is a run left unfinished after step 0, which differs in train.seed" in caplog.text


def test_the_best_weights_outlive_what_replaces_them_until_a_checkpoint_knows(tmp_path: Path) -> None:
    checkpoints = opened(tmp_path)
    checkpoints.keep_best({"w": torch.ones(2)}, 2)
    checkpoints.save(Engine(), records(2))
    checkpoints.keep_best({"w": torch.ones(2) * 3}, 3)
    both = {"best-2.safetensors", "best-3.safetensors"}
    assert both <= names(checkpoints.folder), (
        "a process killed now continues after step 2, whose best is that of step 2"
    )
    again = opened(tmp_path)
    again.resume(Engine())
    assert torch.equal(again.best(2)["w"], torch.ones(2))
    again.keep_best({"w": torch.ones(2) * 3}, 3)
    again.save(Engine(), records(4))
    assert names(again.folder) == {"run.json", LATEST, "step-4", "best-3.safetensors"}


def test_what_came_before_the_first_step_is_kept_until_the_end(tmp_path: Path) -> None:
    checkpoints = opened(tmp_path)
    assert checkpoints.start() is None
    checkpoints.keep_start(Start({"w": torch.arange(3.0)}, {"steps": 2}))
    checkpoints.save(Engine(), records(2))
    kept = opened(tmp_path).start()
    assert kept is not None
    assert torch.equal(kept.weights["w"], torch.arange(3.0))
    assert kept.told == {"steps": 2}
    checkpoints.remove()
    assert not list(tmp_path.iterdir())


def test_what_came_before_the_first_step_is_of_one_run_and_refused_under_other_conditions(tmp_path: Path) -> None:
    opened(tmp_path).keep_start(Start({"w": torch.arange(3.0)}, {"steps": 2}))
    assert opened(tmp_path, code="other").start() is None
    with pytest.raises(InputError, match=r"unfinished run with threads per process 2; 1 would not continue it exactly"):
        Checkpoints(tmp_path, IDENTITY, CONDITIONS | {"threads per process": 1}).start()


def test_without_checkpoints_only_the_best_weights_are_kept(tmp_path: Path) -> None:
    checkpoints = opened(tmp_path)
    for step in (1, 2):
        checkpoints.keep_best({"w": torch.ones(2) * step}, step)
    assert names(checkpoints.folder) == {"run.json", "best-2.safetensors"}
    assert opened(tmp_path).resume(Engine()) == []


def test_a_run_that_ended_leaves_nothing(tmp_path: Path) -> None:
    checkpoints = opened(tmp_path)
    checkpoints.save(Engine(), records(1))
    checkpoints.remove()
    checkpoints.remove()
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("alone")
def test_a_start_that_cannot_be_read_is_named_with_its_folder(tmp_path: Path) -> None:
    checkpoints = opened(tmp_path)
    checkpoints.keep_start(Start({"w": torch.arange(3.0)}, {"steps": 2}))
    path = next(tmp_path.rglob("start.safetensors"))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match=r"start\.safetensors cannot be read \(SafetensorError: .*; if .* delete "):
        opened(tmp_path).start()
