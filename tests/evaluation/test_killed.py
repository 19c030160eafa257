"""A killed evaluation goes on with the tasks that are left, and ends with the bytes of one that nobody disturbed."""

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from anna.evaluation import run
from anna.evaluation.tasks import held_out_tasks
from tests.evaluation.killed import contender

REPO = Path(__file__).parents[2]


@pytest.mark.parametrize("done", [0, 3, 8])
def test_a_killed_run_goes_on_task_by_task(tmp_path, tables, monkeypatch, done):
    (tmp_path / "tables.pickle").write_bytes(pickle.dumps(tables))
    killed = subprocess.run(
        [sys.executable, "-m", "tests.evaluation.killed", str(tmp_path), str(done)],
        cwd=REPO,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(list((tmp_path / "store").rglob("*.json"))) == done
    assert not (tmp_path / "results").exists()
    computed = []
    original = run._run
    monkeypatch.setattr(run, "_run", lambda *arguments: computed.append(1) or original(*arguments))
    tasks = held_out_tasks(tables)
    resumed = run.evaluate_all([contender()], tasks, tmp_path / "store", tmp_path / "results")
    assert len(computed) == 14 - done
    undisturbed = run.evaluate_all([contender()], tasks, tmp_path / "other", tmp_path / "expected")
    assert resumed == undisturbed
    files = [path.relative_to(tmp_path / "expected") for path in (tmp_path / "expected").rglob("*.json")]
    assert len(files) == 16
    assert all((tmp_path / "results" / f).read_bytes() == (tmp_path / "expected" / f).read_bytes() for f in files)
