"""Whether this machine and this project are ready for params that are right."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from anna import log
from anna.check import local_origins, refusals, stage_outputs, stage_scripts
from anna.errors import InputError
from anna.modeling.checkpoint import check_quantizer
from anna.params import STAGES, last_read
from anna.training.launch import check_gpus
from anna.training.memory import check_memory

READ_BY = {"ingest": "ingest", "retrieve_dense": "retrieve_dense", "rerank": "rerank", "student": "train"}
"""By section with origins, the stage that reads these."""


def check_project(root: Path) -> None:
    """Refuse a project of which DVC would run no stage, or run them all and then not take their results.

    Args:
        root: Where dvc.yaml lies; without one there is nothing to refuse.

    Raises:
        InputError: If it is in no git repository, or stages would write to folders outside of it.
    """
    if not (root / "dvc.yaml").is_file():
        return
    if not any((folder / ".git").exists() for folder in (root, *root.parents)):
        raise InputError(f"{root} is in no git repository, which DVC needs; run: git init")
    folders = sorted({root / path.parent for path in stage_outputs()})
    linked = next((folder for folder in folders if not folder.resolve().is_relative_to(root.resolve())), None)
    if linked:
        raise InputError(
            f"{linked} is a link to {linked.resolve()}, outside of {root}: DVC would not take what stages write there. "
            "Make it a folder of the project, and put DVC's cache where there is room: dvc cache dir --local <folder>"
        )


def refused_here(found: Mapping[str, Any]) -> list[str]:
    """Return what `train` would refuse on this machine, after all teachers; it may be meant for another one.

    Args:
        found: What `check` returned.
    """
    student, train = found["student"], found["train"]
    checks = [partial(check_memory, student, train, train.processes), partial(check_gpus, train.processes)]
    return refusals([*checks, check_quantizer] if train.quantize else checks)


def changed_since(found: Mapping[str, Any], root: Path) -> list[str]:
    """Return a warning for each file or folder that is newer than the last run of the stage that read it.

    DVC sees that a path in params.yaml is another one, but not what lies there, unless it is in `sources/`.

    Args:
        found: What `check` returned.
        root: Where dvc.lock lies.
    """
    warnings, scripts = [], dict(zip(STAGES, stage_scripts(), strict=True))
    paths = {section: {origin.path for origin in local_origins(found[section])} for section in READ_BY}
    for section, stage in READ_BY.items():
        last, watched = root / log.COST_DIR / f"{stage}.json", getattr(scripts[stage], "WATCHED", ())
        is_asked = paths[section] and last.is_file()
        read = {Path(text) for text in _texts(last_read(stage, root))} if is_asked else set()
        for path in sorted(paths[section] & read):
            if any(path.resolve().is_relative_to(folder.resolve()) for folder in watched):
                continue
            there = (inner for inner in path.rglob("*") if inner.exists())  # a link may lead nowhere
            newest = max(inner.stat().st_mtime for inner in (path, *there))
            if newest > last.stat().st_mtime:
                warnings.append(
                    f"{path} was changed after {stage} had run, which DVC does not see; if what {stage} reads there is "
                    f"another now, run: dvc repro -f -s {stage}"
                )
    return warnings


def _texts(tree: Any) -> Iterator[str]:
    """Yield every text in a tree of mappings and lists."""
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict | list):
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from _texts(part)
