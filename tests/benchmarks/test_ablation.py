"""The ablation's care for what is not committed."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import ablation


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of nothing but params.yaml, committed, as the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ablation", "--seeds", "1", "--only", "full"])
    path = tmp_path / "params.yaml"
    path.write_text("filter: {margin: 0.05}\n", encoding="utf-8")
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "params"]):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *command], check=True)
    return path


@pytest.mark.parametrize("is_staged", [False, True])
def test_edits_of_params_are_not_thrown_away(params: Path, monkeypatch: pytest.MonkeyPatch, is_staged: bool) -> None:
    monkeypatch.setattr(ablation, "run", lambda _: pytest.fail("an experiment was started"))
    params.write_text("filter: {margin: 0.2}\n", encoding="utf-8")
    if is_staged:
        subprocess.run(["git", "add", "."], check=True)
    with pytest.raises(SystemExit, match=r"^params\.yaml has uncommitted changes; commit them, or: git "):
        ablation.main()
    assert "0.2" in params.read_text(encoding="utf-8")


def test_committed_params_are_run(
    params: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ablation, "run", lambda settings: {"mean": 0.5} if settings == ["train.seed=1"] else {})
    ablation.main()
    assert "| full | 0.500 |" in capsys.readouterr().out
