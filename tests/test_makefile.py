"""`make repro` runs what was meant, and takes no one's edits away."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.test_contracts import REPO

COMMITTED, ONE, OTHER = "train: {epochs: 1}\n", "train: {epochs: 2}\n", "train: {epochs: 3}\n"


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@t")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Lay out a project with two presets, everything committed."""
    shutil.copy(REPO / "Makefile", tmp_path)
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets/one.yaml").write_text(ONE)
    (tmp_path / "presets/other.yaml").write_text(OTHER)
    (tmp_path / "params.yaml").write_text(COMMITTED)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "all")
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Not those of a `make test` that this runs under: its flags, its preset and its lines about folders.
    own = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "PRESET")}
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True, check=False, env=own)


def test_a_preset_replaces_what_is_committed_or_another_preset(project: Path) -> None:
    done = make(project, "preset", "PRESET=one")
    assert (done.returncode, done.stdout) == (0, "params.yaml is now presets/one.yaml\n")
    assert (project / "params.yaml").read_text() == ONE
    again = make(project, "preset", "PRESET=one")
    assert (again.returncode, again.stdout) == (0, "")
    assert make(project, "preset", "PRESET=other").returncode == 0
    assert (project / "params.yaml").read_text() == OTHER


@pytest.mark.parametrize("base", [COMMITTED, ONE])
def test_edits_are_not_overwritten(project: Path, base: str) -> None:
    edited = base + "# mine\n"
    (project / "params.yaml").write_text(edited)
    refused = make(project, "preset", "PRESET=one")
    assert refused.returncode != 0
    assert refused.stderr.startswith(
        "params.yaml has edits that presets/one.yaml would replace: commit them first (git commit params.yaml), "
        "or, to run with them, leave PRESET out: make repro\n"
    )
    assert (project / "params.yaml").read_text() == edited
    git(project, "commit", "-q", "-m", "edits", "params.yaml")
    assert make(project, "preset", "PRESET=one").returncode == 0


def test_without_a_commit_a_preset_replaces_nothing(project: Path) -> None:
    shutil.rmtree(project / ".git")
    refused = make(project, "preset", "PRESET=one")
    assert refused.returncode != 0
    assert refused.stderr.startswith("presets/one.yaml would replace params.yaml, which no commit keeps: run git init")
    assert (project / "params.yaml").read_text() == COMMITTED


def test_params_stay_without_a_preset(project: Path) -> None:
    (project / "params.yaml").write_text("# mine\n")
    asked = make(project, "preset")
    assert asked.returncode != 0
    assert asked.stderr.startswith("name one: make preset PRESET=<name>, of: one other\n")
    (project / "Makefile").write_text((project / "Makefile").read_text() + "alone: preset\n")
    assert make(project, "alone").returncode == 0, "what merely begins with it needs none"
    assert (project / "params.yaml").read_text() == "# mine\n"


def test_an_unknown_preset_is_named(project: Path) -> None:
    refused = make(project, "preset", "PRESET=nine")
    assert refused.stderr.startswith("presets/nine.yaml does not exist; choose of: one other\n")


def test_params_are_checked_before_anything_runs() -> None:
    commands = make(REPO, "-n", "repro").stdout.splitlines()
    assert commands.index("anna check") < commands.index("dvc repro")
