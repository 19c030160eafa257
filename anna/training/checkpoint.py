"""The unfinished state of a training run on disk, from which it continues to the weights of an uninterrupted one.

A run has a folder of its own, named by the fingerprint of all that changes its result: `run.json` says what that is,
`latest.json` names the checkpoint that is whole, and each checkpoint is a folder. What `latest.json` does not name is
left over from a process that was killed, and is ignored and deleted. `start.safetensors` holds what was found before
the first step. The state after the last step stays until another run has come to its end: if DVC finds no room for the
model, or the stage is run again for nothing but a comment in its code, the model is saved again without training.
"""

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from anna import io
from anna.errors import InputError, one_line
from anna.fingerprints import fingerprint
from anna.training.gather import from_first
from anna.training.identity import differences

_DAMAGED = (FileNotFoundError, RuntimeError, AssertionError, EOFError, UnpicklingError, SafetensorError)
"""What DeepSpeed and torch raise for a checkpoint of which files are missing, empty or cut."""

RUN, LATEST, START = "run.json", "latest.json", "start.safetensors"

Record = dict[str, float | int | str]
"""What is known of one step, by name."""

_log = logging.getLogger(__name__)


class Start(NamedTuple):
    """What was found before the first step."""

    weights: Mapping[str, Tensor]
    told: Mapping[str, float]
    """For metrics."""


class Checkpoints:
    """The folder of one run. Every rank calls every method, in the same order."""

    def __init__(self, root: Path, identity: Mapping[str, Any], conditions: Mapping[str, Any]) -> None:
        """Find the run's folder; nothing is written yet. What ended there under other conditions is forgotten.

        Args:
            root: Holds the folders of all runs, on a disk that all ranks share.
            identity: Whatever changes the result, by name: another value is another run.
            conditions: What must be as it was for a continued run to be exact, by name: another value is refused, so
                long as there are steps to take. The first rank's values of both count.
        """
        self._identity: dict[str, Any] = from_first(_plain(identity))
        self._conditions: dict[str, Any] = from_first(_plain(conditions))
        self._best: int | None = None
        self.folder = root / fingerprint(self._identity)[:16]
        if dist.get_rank() == 0 and (self.folder / LATEST).is_file():
            latest = io.read_json(self.folder / LATEST)
            if latest.get("is_last") and latest["conditions"] != self._conditions:
                _remove(self.folder)

    def resume(self, engine: Any) -> list[Record]:
        """Give the engine and the random generators the state of the last checkpoint; return its records.

        Returns:
            One record per step taken, none where there is no checkpoint.

        Raises:
            InputError: If the checkpoint is of a run under other conditions, or incomplete.
        """
        latest = from_first(self._find_latest() if dist.get_rank() == 0 else None)
        if latest is None:
            return []
        self._check(latest["conditions"])
        path = self._rank_file(latest["tag"])
        if not path.is_file():
            raise InputError(f"{path} is missing, so the run cannot be continued; delete {self.folder} to begin again")
        try:
            engine.load_checkpoint(str(self.folder), tag=latest["tag"], load_module_strict=False)
            own = torch.load(path, weights_only=True)
            if latest["best"] is not None:  # which is needed after the last step alone
                with safe_open(self._best_file(latest["best"]), framework="pt"):
                    pass
        except _DAMAGED as error:
            raise self._unreadable(self.folder / latest["tag"], error) from None
        torch.set_rng_state(own["cpu"])
        if own["cuda"] is not None:
            torch.cuda.set_rng_state(own["cuda"])
        records: list[Record] = own["records"]
        _log.info("continuing after step %d, from %s", len(records), self.folder / latest["tag"])
        return records

    def save(self, engine: Any, records: Sequence[Record], *, is_last: bool = False) -> None:
        """Write a checkpoint after the last of `records`; the one before counts until this one is whole.

        Args:
            engine: Around what is trained.
            records: One per step taken.
            is_last: Whether there are no more steps.
        """
        tag = f"step-{len(records)}"
        if dist.get_rank() == 0:
            self._begin()
            shutil.rmtree(self.folder / tag, ignore_errors=True)
        dist.barrier()
        engine.save_checkpoint(str(self.folder), tag=tag, save_latest=False, exclude_frozen_parameters=True)
        state = {
            "cpu": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
            "records": list(records),
        }
        torch.save(state, self._rank_file(tag))
        dist.barrier()
        if dist.get_rank() == 0:
            io.sync(self.folder / tag)
            latest = {"tag": tag, "step": len(records), "is_last": is_last, "best": self._best}
            io.write_json(self.folder / LATEST, latest | {"conditions": self._conditions})
            self._sweep()
            if is_last:
                for path, other in self._others():
                    if other.get("is_last"):
                        _remove(path)

    def keep_start(self, start: Start) -> None:
        """Keep what was found before the first step, so that a killed run need not find it again."""
        if dist.get_rank() == 0:
            self._begin()
            with io.atomic(self.folder / START) as temporary:
                known = {"conditions": self._conditions, "told": start.told}
                save_file(
                    dict(start.weights), temporary, metadata={key: json.dumps(value) for key, value in known.items()}
                )

    def start(self) -> Start | None:
        """Return what `keep_start` kept, or None where there is nothing.

        Raises:
            InputError: If they were found under other conditions, or cannot be read.
        """
        path = self.folder / START
        if not from_first(path.is_file()):
            return None
        try:
            with safe_open(path, framework="pt") as file:
                known = {key: json.loads(value) for key, value in file.metadata().items()}
            weights = load_file(path)
        except _DAMAGED as error:
            raise self._unreadable(path, error) from None
        self._check(known["conditions"])
        return Start(weights, known["told"])

    def keep_best(self, weights: Mapping[str, Tensor], step: int) -> None:
        """Keep the weights after `step` as the best so far; those that the last checkpoint knows as best stay too."""
        self._best = step
        if dist.get_rank() == 0:
            self._begin()
            with io.atomic(self._best_file(step)) as temporary:
                save_file(dict(weights), temporary)
            self._sweep()

    def best(self, step: int) -> dict[str, Tensor]:
        """Return the weights kept at `step`, on the first rank; nothing on the others."""
        return load_file(self._best_file(step)) if dist.get_rank() == 0 else {}

    def _unreadable(self, path: Path, error: Exception) -> InputError:
        why = f"{type(error).__name__}: {one_line(error)}"
        return InputError(
            f"{path} cannot be read ({why}); if its files are damaged, delete {self.folder} to begin again"
        )

    def remove(self) -> None:
        """Delete the run's folder."""
        dist.barrier()
        if dist.get_rank() == 0 and self.folder.is_dir():
            _remove(self.folder)

    def _find_latest(self) -> dict[str, Any] | None:
        """Return what `latest.json` says, after saying which other runs are unfinished."""
        for path, latest in self._others():
            if not latest.get("is_last"):
                _log.warning(
                    "%s is a run left unfinished after step %d, which differs in %s: this one is apart from it. To "
                    "continue it, go back to its parameters and data; delete it if you never will",
                    path,
                    latest.get("step", 0),
                    ", ".join(differences(io.read_json(path / RUN), self._identity)),
                )
        if not (self.folder / LATEST).is_file():
            return None
        latest = io.read_json(self.folder / LATEST)
        self._best = latest["best"]
        return latest

    def _others(self) -> list[tuple[Path, dict[str, Any]]]:
        """Return the folders of other runs, and what their `latest.json` say, if anything."""
        folders = [path.parent for path in sorted(self.folder.parent.glob(f"*/{RUN}")) if path.parent != self.folder]
        latest = [folder / LATEST for folder in folders]
        return [(path.parent, io.read_json(path) if path.is_file() else {}) for path in latest]

    def _check(self, conditions: Mapping[str, Any]) -> None:
        for name, value in conditions.items():
            if value != self._conditions.get(name):
                raise InputError(
                    f"{self.folder} is an unfinished run with {name} {value}; {self._conditions.get(name)} would not "
                    "continue it exactly. Go on as it began, or delete that folder to begin again"
                )

    def _begin(self) -> None:
        if not (self.folder / RUN).is_file():
            io.write_json(self.folder / RUN, self._identity)

    def _sweep(self) -> None:
        """Delete what neither this process nor `latest.json` needs."""
        latest = io.read_json(self.folder / LATEST) if (self.folder / LATEST).is_file() else {}
        kept = {RUN, LATEST, START, latest.get("tag")}
        kept |= {self._best_file(step).name for step in (self._best, latest.get("best")) if step is not None}
        for path in self.folder.iterdir():
            if path.name not in kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _rank_file(self, tag: str) -> Path:
        return self.folder / tag / f"rank-{dist.get_rank()}.pt"

    def _best_file(self, step: int) -> Path:
        return self.folder / f"best-{step}.safetensors"


def _remove(folder: Path) -> None:
    (folder / LATEST).unlink(missing_ok=True)  # first, so that a half-deleted checkpoint is none
    shutil.rmtree(folder)


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return `value` as it comes back from JSON, so that what was read compares equal to what was written."""
    plain: dict[str, Any] = json.loads(json.dumps(value))
    return plain
