"""Copies of the project in which stages run with other parameters, and the project itself stays as it is."""

import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path

REPO = Path(__file__).parents[1]


def project_files() -> list[Path]:
    """Return what git knows or would know of the project, relative to it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPO,
        check=True,
        capture_output=True,
        text=True,
    )
    names = (Path(name) for name in listed.stdout.split("\0") if name)
    return [name for name in names if (REPO / name).is_file()]


def copy_project(folder: Path, *, without: Collection[str] = (), shared: Collection[str] = ("inputs",)) -> None:
    """Make `folder` a copy of the project's files as they are now, and a repository of its own.

    Args:
        folder: Replaced if it is there.
        without: Top-level names that are left out.
        shared: Folders of `runs` that the copy uses together with the project: what was fetched or computed once need
            not be again.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for file in project_files():
        if file.parts[0] not in without:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPO / file, folder / file)
    (folder / "runs").mkdir()
    for name in shared:
        (REPO / "runs" / name).mkdir(parents=True, exist_ok=True)
        (folder / "runs" / name).symlink_to(REPO / "runs" / name)
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
