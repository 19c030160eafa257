"""Whether dvc.lock is of these files: `python -m tests.lock` names each dependency or result in git that is another.

A commit whose code is newer than its lock has metrics that nobody has computed with it.
"""

import hashlib
import sys
from pathlib import Path
from typing import Any

import yaml

from benchmarks.workspace import REPO


def changed(lock: dict[str, Any]) -> list[str]:
    """Return each file, as `stage: path`, that is here and is not as the lock says; folders are not looked at."""
    listed = (
        (stage, entry)
        for stage, own in lock["stages"].items()
        for entry in (*own.get("deps", []), *own.get("outs", []))
        if (REPO / entry["path"]).is_file()
    )
    return [f"{stage}: {entry['path']}" for stage, entry in listed if _md5(REPO / entry["path"]) != entry["md5"]]


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def main() -> int:
    """Say what is other than the lock says; return 1 if anything is."""
    found = changed(yaml.safe_load((REPO / "dvc.lock").read_text(encoding="utf-8")))
    for name in found:
        sys.stdout.write(f"{name} is not what dvc.lock says\n")
    if found:
        sys.stdout.write("run: dvc repro; or, where results cannot change, dvc commit (CONTRIBUTING.md)\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
