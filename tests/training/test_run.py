"""What a run refuses to save, which step it keeps, and how it is started."""

import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from anna import ranks
from anna.errors import InputError
from anna.machine import num_cpus
from anna.training import engine as engines
from anna.training import launch, loop, run
from anna.training.batches import Batch
from anna.training.checkpoint import Record
from anna.training.engine import check_moved
from anna.training.loop import best_step
from stages import train
from tests.conftest import tiny_student
from tests.training.worker import prompts, recipe, toy_groups


def forget_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a process that no launcher started."""
    for name in ranks.TOLD:
        monkeypatch.delenv(name, raising=False)


def launched(monkeypatch: pytest.MonkeyPatch, **names: str) -> None:
    """Be the only process that a launcher started, but for `names`."""
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for name, value in (alone | names).items():
        monkeypatch.setenv(name, value)


def test_weights_that_did_not_move_are_refused_by_name() -> None:
    before = {"lora_A": torch.ones(2), "lora_B": torch.zeros(2)}
    with pytest.raises(InputError, match=r"weight lora_B did not move .*\(1 of 2 did not\); nothing is saved"):
        check_moved(before, {"lora_A": torch.ones(2) * 2, "lora_B": torch.zeros(2)}, 2)


def test_an_update_that_is_none_is_refused_on_every_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first rank alone holds weights; what it finds is sent to the others, which would wait for it."""
    sent: list[object] = []

    def send(value: object) -> object:
        sent.append(value)
        return value or "weight w did not move"

    monkeypatch.setattr(run, "from_first", send)
    with pytest.raises(InputError, match="weight w did not move"):
        run._check_update({}, {}, recipe(1, "full"), kept=2, steps=3)
    assert sent == [None], "of a rank that holds nothing"
    still = {"w": torch.ones(2)}
    with pytest.raises(InputError, match="weight w did not move"):
        run._check_update(still, still, recipe(1, "full"), kept=2, steps=3)
    assert str(sent[1]).startswith("weight w did not move in training")


def test_tasks_that_never_show_an_example_are_named(caplog: pytest.LogCaptureFixture) -> None:
    group = toy_groups()[0]
    batches = [Batch(task, (group,), (group,) * shown) for task, shown in [("A", 0)] * 8 + [("B", 0)] * 7]
    run._warn_of_no_example([*batches, Batch("C", (group,), (group,)), *(Batch("C", (group,), ()) for _ in range(8))])
    assert [message.split(" batches")[0] for message in caplog.messages] == ["task A: none of its 8"]


def test_weight_decay_is_no_movement() -> None:
    """AdamW shrinks a weight without a gradient, too; each step rounds in float32."""
    before = {"read": torch.linspace(-1, 1, 50), "unread": torch.linspace(-1, 1, 50)}
    after = {name: weight.clone() for name, weight in before.items()}
    for rate in (3e-4, 2e-4, 1e-4):
        for weight in after.values():
            weight.mul_(1 - rate * 0.01)
    after["read"][7] += 1e-4
    decay = (1 - 3e-6) * (1 - 2e-6) * (1 - 1e-6)
    with pytest.raises(InputError, match=r"weight unread did not move in training \(1 of 2 did not\)"):
        check_moved(before, after, 3, decay)
    after["unread"][0] += 1e-4
    assert check_moved(before, after, 3, decay) > 0


def test_half_of_an_adapter_moves_at_the_first_step() -> None:
    before = {"lora_A": torch.ones(2), "lora_B": torch.zeros(2)}
    assert check_moved(before, {"lora_A": torch.ones(2), "lora_B": torch.ones(2)}, 1) == 1.0
    with pytest.raises(InputError, match=r"weight lora_A did not move .*\(2 of 2 did not\); nothing is saved"):
        check_moved(before, before, 1)


def test_weights_that_bfloat16_cannot_show_to_have_moved_are_named(caplog: pytest.LogCaptureFixture) -> None:
    before = {name: torch.ones(2, dtype=torch.bfloat16) for name in ("norm", "matrix")}
    assert check_moved(before, before | {"matrix": torch.tensor([1.0, 1.5], dtype=torch.bfloat16)}, 2) == 0.25
    assert "1 of 2 trained weights did not move, or by less than bfloat16 can show, norm first" in caplog.text
    with pytest.raises(InputError, match=r"weight norm did not move in training \(2 of 2 did not\)"):
        check_moved(before, before, 2)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(value: float) -> None:
    with pytest.raises(InputError, match="weight w has NaN or infinite values"):
        check_moved({"w": torch.ones(2)}, {"w": torch.tensor([1.0, value])}, 2)


def test_the_update_is_relative_to_the_weights() -> None:
    before = {"a": torch.tensor([3.0]), "b": torch.tensor([4.0])}
    assert check_moved(before, {"a": torch.tensor([3.3]), "b": torch.tensor([4.4])}, 2) == pytest.approx(0.1, rel=1e-5)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [({2: 0.5, 4: 0.9, 6: 0.9, 8: 0.1}, 6), ({8: 0.2}, 8), ({}, None)],
)
def test_the_best_step_is_the_last_of_the_highest(scores: dict[int, float], expected: int | None) -> None:
    taken: list[Record] = [{"step": n} | ({"ndcg_at_10": scores[n]} if n in scores else {}) for n in range(1, 9)]
    assert best_step(taken) == expected


@pytest.mark.parametrize(("after", "is_said"), [(0.29, True), (0.31, False), (None, False)])
def test_a_run_that_ends_far_below_its_start_is_warned_of(
    after: float | None, is_said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    last: Record = {} if after is None else {"ndcg_at_10": after}
    loop._warn_of_fall([{"ndcg_at_10_before": 0.4}, last], recipe(1, "full"))
    assert ("lower train.learning_rate" in caplog.text) == is_said


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ((0.776, 0.1), "was 0.8260 before training and is 0.7760 after step 1, whose weights are kept"),
        ((0.1, 0.82599), "is 0.8260 after step 2, whose weights are kept"),
        ((0.826, 0.1), None),
        ((0.1, 0.9), None),
    ],
)
def test_the_best_weights_are_warned_of_where_they_are_below_the_start(
    scores: tuple[float, float], said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = recipe(1, "full").model_copy(update={"keep": "best"})
    first, second = scores
    records: list[Record] = [
        {"step": 1, "ndcg_at_10_before": 0.826, "ndcg_at_10": first},
        {"step": 2, "ndcg_at_10": second},
    ]
    loop._warn_of_fall(records, chosen)
    assert (said or "") in caplog.text
    assert bool(caplog.text) == bool(said)


def test_one_process_or_a_launcher_of_the_users_own_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("started something"))
    forget_launcher(monkeypatch)
    assert launch.relaunch("stages.train", 1) is False
    launched(monkeypatch)
    assert launch.relaunch("stages.train", 2) is False


def test_processes_of_slurm_that_do_not_know_of_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_launcher(monkeypatch)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    with pytest.raises(InputError, match=r"srun has started stages\.train 8 times"):
        launch.relaunch("stages.train", 1)
    launched(monkeypatch)
    assert launch.relaunch("stages.train", 1) is False


def test_machines_of_a_cluster_that_do_not_know_of_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_launcher(monkeypatch)
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "pod-0", "MASTER_PORT": "23456"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"WORLD_SIZE is 2, but no launcher has started stages\.train"):
        launch.relaunch("stages.train", 1)


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_launcher(monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(InputError, match=r"train\.processes is 8, but this machine has 4 GPU\(s\); set it to 4"):
        launch.relaunch("stages.train", 8)
    launched(monkeypatch, RANK="12", LOCAL_RANK="4")  # as another launcher does
    with pytest.raises(InputError, match="process 5 of this machine has no GPU, there are 4"):
        engines.init_distributed()


def test_ranks_that_do_not_meet_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    launched(monkeypatch, WORLD_SIZE="2")

    def wait(**_: object) -> None:
        raise torch.distributed.DistStoreError("timed out after 1800 seconds")

    monkeypatch.setattr(engines.dist, "is_initialized", lambda: False)
    monkeypatch.setattr(engines.deepspeed, "init_distributed", wait)
    with pytest.raises(
        InputError, match=r"rank 0 of 2 did not meet the others at localhost:1 \(timed out .*unset RANK"
    ):
        engines.init_distributed()


@pytest.mark.parametrize("zero_stage", [0, 1, 3])
def test_ranks_wait_for_one_at_work_alone_in_every_group(zero_stage: int, tiny_checkpoint: Path, alone: None) -> None:
    chosen = recipe(zero_stage, "lora")
    engines.start_engine(run.new_encoder(tiny_student(tiny_checkpoint), prompts(), {}, chosen), chosen)
    groups = list(torch.distributed.distributed_c10d._world.pg_map)
    waits = [group._get_backend(torch.device("cpu")).options._timeout for group in groups]
    assert len(waits) > 1
    assert set(waits) == {engines.PATIENCE}


@pytest.mark.parametrize("has_gpu", [False, True])
def test_weights_that_move_to_a_gpu_leave_their_memory_to_the_machine(
    has_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[bool] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(train.TrainParams, "load", lambda: recipe(1, "full"))
    monkeypatch.setattr(train, "keep_freed_memory", lambda *, even_large: kept.append(even_large))
    for name in ("read_data", "StudentParams", "PromptParams", "run"):
        monkeypatch.setattr(train, name, Mock())
    train.main()
    assert kept == [not has_gpu]


def test_relaunch_runs_every_rank_and_reports_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_launcher(monkeypatch)
    (tmp_path / "good.py").write_text(
        "import os, pathlib; from anna import ranks; "
        "told = ('WORLD_SIZE', ranks.STARTER, 'RAYON_NUM_THREADS'); "
        "pathlib.Path(f'{ranks.rank()}.txt').write_text(' '.join(map(os.environ.get, told)))"
    )
    (tmp_path / "bad.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    monkeypatch.delenv("RAYON_NUM_THREADS", raising=False)
    assert launch.relaunch("good", 2) is True
    told = f"2 {os.getpid()} {max(1, num_cpus() // 2)}"
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)] == [told] * 2
    with pytest.raises(InputError, match="bad failed on 2 processes"):
        launch.relaunch("bad", 2)
