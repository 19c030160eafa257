"""What DVCLive's files hold after a run that was killed in between."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from anna.training.checkpoint import Record
from anna.training.live import Monitor, start


def record(step: int) -> Record:
    return {"step": step, "queries": step * 4, "loss": 1 / step, "similarity_gap": float("nan"), "task": f"T{step % 2}"}


def rows(folder: Path, name: str) -> list[list[str]]:
    with (folder / "plots" / "metrics" / f"{name}.tsv").open(newline="") as file:
        return list(csv.reader(file, delimiter="\t"))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_each_step_is_there_as_soon_as_it_is_taken(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path / "live", [])
    for step in (1, 2):
        monitor.write(record(step))
        assert rows(tmp_path / "live", "loss")[-1] == [str(step), str(1 / step)]
        assert json.loads((tmp_path / "live" / "metrics.json").read_text())["task"] == f"T{step % 2}"
    monitor.close()
    assert rows(tmp_path / "live", "task") == [["step", "task"], ["1", "T1"], ["2", "T0"]]


def test_a_continued_run_has_no_gap_and_no_step_twice(tmp_path: Path) -> None:
    whole, cut = Monitor(tmp_path / "whole", []), Monitor(tmp_path / "cut", [])
    for step in range(1, 7):
        whole.write(record(step))
    for step in range(1, 5):
        cut.write(record(step))
    again = Monitor(tmp_path / "cut", [record(1), record(2)])  # the checkpoint was two steps behind
    for step in range(3, 7):
        again.write(record(step))
    files = sorted(path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*.*"))
    assert len(files) == 5
    for path in files:
        assert (tmp_path / "cut" / path).read_bytes() == (tmp_path / "whole" / path).read_bytes()


def test_git_and_the_pipeline_are_left_alone(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], check=True, capture_output=True, text=True).stdout

    git("init", "--quiet")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
    (tmp_path / ".dvc" / "config").touch()
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "first")
    monitor = Monitor(tmp_path / "live", [])
    monitor.write(record(1))
    monitor.close()
    assert git("status", "--porcelain") == "?? live/\n"
    assert git("for-each-ref", "--format=%(refname)").split() == [
        f"refs/heads/{git('branch', '--show-current').strip()}"
    ]


def test_a_repository_without_a_commit_has_no_live_metrics_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], cwd=tmp_path, check=True)
    assert start(tmp_path / "live", []) is None
    assert "make a first commit" in caplog.text
