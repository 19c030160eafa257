"""What params that are right still meet on a machine or in a project is told before anything runs."""

import os
import time
from pathlib import Path

import pytest
import yaml

from anna import check, io, log, readiness
from anna.errors import InputError
from anna.modeling import checkpoint
from anna.training import memory
from tests.conftest import save_tiny
from tests.test_check import write
from tests.test_contracts import REPO


def test_what_this_machine_cannot_train_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert readiness.refused_here(check.check(REPO / "params.yaml")) == []
    monkeypatch.setattr(memory, "available_memory", lambda _: 2.0**30)
    monkeypatch.setattr(checkpoint, "find_spec", lambda _: None)
    large = check.check(write(tmp_path, {"train.quantize": "nf4"}, "presets/mistral-7b.yaml"))
    told = readiness.refused_here(large)
    assert len(told) == 2
    assert "needs at least" in told[0]
    assert "bitsandbytes is not installed" in told[1]


def test_what_was_changed_after_its_stage_had_run_is_told(tmp_path: Path) -> None:
    model, cost = tmp_path / "model", tmp_path / log.COST_DIR / "train.json"
    save_tiny(model)
    (model / "gone").symlink_to(tmp_path / "nowhere")
    changes = {
        "student.model": {"kind": "files", "path": str(model)},
        "student.layers": 3,
        "prompts.max_tokens": 128,
        "evaluate.max_tokens": 64,
    }
    found = check.check(write(tmp_path, changes))
    assert readiness.changed_since(found, tmp_path) == [], "nothing has run"
    later = time.time() + 60
    os.utime(model / "config.json", (later, later))
    cost.parent.mkdir(parents=True)
    io.write_json(cost, {"seconds": 1})
    for read, is_told in (("elsewhere", False), (str(model), True)):
        lock = {"stages": {"train": {"params": {"params.yaml": {"student": {"model": {"path": read}}}}}}}
        (tmp_path / "dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")
        assert bool(readiness.changed_since(found, tmp_path)) == is_told, read
    (warning,) = readiness.changed_since(found, tmp_path)
    assert warning.startswith(f"{model} was changed after train had run")
    assert warning.endswith("run: dvc repro -f -s train")
    os.utime(cost, (later + 1, later + 1))
    assert readiness.changed_since(found, tmp_path) == [], "it has run since"


def test_a_project_that_dvc_would_not_run_is_refused(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    readiness.check_project(project)
    (project / "dvc.yaml").write_text("stages: {}")
    with pytest.raises(InputError, match=r"project is in no git repository, which DVC needs; run: git init$"):
        readiness.check_project(project)
    (project / ".git").mkdir()
    readiness.check_project(project)
    (tmp_path / "large").mkdir()
    (project / "models").symlink_to(tmp_path / "large")
    with pytest.raises(InputError, match=rf"models is a link to {tmp_path}/large, outside of .*dvc cache dir --local"):
        readiness.check_project(project)
