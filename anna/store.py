"""Results of expensive models, kept under the hash of what they are of: computed once, by whichever stage asks first.

A store is a folder of shards with rows (key, value): the hash of a text or a pair, and the float32 numbers that the
model gave for it. The folder is named by a fingerprint of everything that decides the numbers, so another model, limit
or code version looks elsewhere and never finds a stale one.

Shards appear whole, by renaming, and are never changed; small ones are joined into larger ones from time to time. Any
number of processes may read and write at once: at worst they compute the same result twice. A damaged shard is set
aside, and what it held is computed again. Deleting a store costs time, never correctness.
"""

import logging
import math
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from filelock import FileLock, Timeout

from anna import io, shards
from anna.errors import InputError
from anna.fingerprints import Keys, fingerprint
from anna.shards import Int, Values

Item = TypeVar("Item")

Parts = Iterator[tuple[Int, Values]]
"""Places among the keys asked for, (N,), and their values, (N, D): every place once, in any order."""

ROOT = Path("runs/store")
"""Where the stores of all models lie."""

SECONDS_BETWEEN_SHARDS = 1.0
"""Work that a killed process may lose, where a batch does not take longer."""

JOIN_AT = 32
"""So many shards of like size become one: a row is rewritten a few times at most, and files stay few."""

LARGEST_JOINED = 2**30
"""Bytes from which a shard is left as it is."""

_log = logging.getLogger(__name__)


class Store:
    """The values of one fingerprint."""

    def __init__(self, kind: str, parts: Mapping[str, Any], root: Path = ROOT) -> None:
        """Name the store; nothing is made before the first value is saved.

        Args:
            kind: Name of the model's part, for people.
            parts: Everything that decides a value beside the text itself.
            root: Folder of all stores.
        """
        self.folder = root / f"{kind}-{fingerprint(parts)}"
        self._parts = parts

    def fetch(
        self,
        keys: Keys,
        compute: Callable[[Int], Iterable[tuple[Sequence[int], Values]]],
        counts: Counter[str],
    ) -> Parts:
        """Yield the value of every key: what is stored first, then the rest, computed and stored batch by batch.

        A run that was killed computes the same batches as one that was not, if `compute` gives for what is left after
        its first batches the batches that are left.

        Args:
            keys: Distinct.
            compute: From the places among the keys that are missing, in order, to batches: indices of that array, and
                their values, (N, D).
            counts: Gets what was `reused` and what `computed`.
        """
        is_missing = np.ones(len(keys), dtype=np.bool_)
        for places, values in self.scan(keys):
            is_missing[places] = False
            yield places, values
        missing = np.flatnonzero(is_missing)
        counts.update(reused=len(keys) - len(missing), computed=len(missing))
        if not len(missing):
            return
        with self.writer() as save:
            for batch, values in compute(missing):
                places = missing[np.asarray(batch)]
                save(keys[places], values)
                yield places, values

    def scan(self, keys: Keys) -> Parts:
        """Yield what is stored of `keys`, which are distinct."""
        if not len(keys):
            return
        wanted = shards.wanted(keys)
        is_found, seen = np.zeros(len(keys), dtype=np.bool_), set[Path]()
        # Listed again until nothing is new: another process may have joined shards that were still to be read.
        while new := [path for path in self._shards() if path not in seen]:
            for path in new:
                seen.add(path)
                try:
                    for places, values in shards.matches(path, wanted):
                        is_new = ~is_found[places]
                        is_found[places] = True
                        yield places[is_new], values[is_new]
                except FileNotFoundError:
                    continue
                except shards.DamagedError as error:
                    _set_aside(error)

    @contextmanager
    def writer(self) -> Iterator[Callable[[Keys, Values], None]]:
        """Yield a function that saves values; those saved before an exception are kept.

        The function raises `InputError` if a value is not finite.
        """
        pending: list[tuple[Keys, Values]] = []
        written = time.monotonic()

        def flush() -> None:
            if pending:
                self._add(*(np.concatenate(column) for column in zip(*pending, strict=True)))
                pending.clear()

        def save(keys: Keys, values: Values) -> None:
            nonlocal written
            if not np.isfinite(values).all():
                raise InputError(f"the model of {self.folder} gave NaN or infinity; nothing stored, choose another")
            pending.append((keys, values))
            num_bytes = sum(part.nbytes for _, part in pending)
            if time.monotonic() - written >= SECONDS_BETWEEN_SHARDS or num_bytes >= shards.GROUP_BYTES:
                flush()
                self.join()
                written = time.monotonic()

        try:
            yield save
        finally:
            flush()
        self.join()

    def join(self) -> None:
        """Make one of shards of like size where there are many, unless another process is at it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with suppress(Timeout), FileLock(self.folder / ".lock", timeout=0):
            io.remove_left(self.folder.glob(".*.tmp"))
            for paths in _alike(self._shards()):
                try:
                    shards.join(paths, self._new_path())
                except FileNotFoundError:  # set aside by another process
                    continue
                except shards.DamagedError as error:
                    _set_aside(error)
                    continue
                except OSError as error:  # such as a full disk: they can stay as they are
                    _log.warning("%s: %d small files are not made one (%s)", self.folder, len(paths), error)
                    return
                for path in paths:  # only now, so that no row is ever missing
                    path.unlink(missing_ok=True)

    def _shards(self) -> list[Path]:
        return sorted(self.folder.glob("*.parquet"))

    def _new_path(self) -> Path:
        return self.folder / f"{time.time_ns():x}-{uuid.uuid4().hex[:8]}.parquet"

    def _add(self, keys: Keys, values: Values) -> None:
        about = self.folder / "about.json"
        if not about.is_file():
            io.write_json(about, self._parts)
        shards.write(self._new_path(), keys, values)


def _alike(paths: Sequence[Path]) -> list[list[Path]]:
    """Return groups of at least `JOIN_AT` shards within the same power of `JOIN_AT` in size."""
    groups: dict[int, list[Path]] = defaultdict(list)
    for path in paths:
        with suppress(FileNotFoundError):
            if (size := path.stat().st_size) < LARGEST_JOINED:
                groups[int(math.log(max(size, 1), JOIN_AT))].append(path)
    return [group for group in groups.values() if len(group) >= JOIN_AT]


def _set_aside(error: shards.DamagedError) -> None:
    aside = error.path.with_suffix(".damaged")
    _log.warning("%s: what it held is computed again, and it is now named %s", error, aside.name)
    with suppress(FileNotFoundError):  # another process was faster
        error.path.replace(aside)


def gather(parts: Parts, num_rows: int) -> Values:
    """Return the values of all parts as one matrix, (N, D), or (0, 0) where there are none."""
    matrix = np.empty((0, 0), dtype=np.float32)
    for places, values in parts:
        if not len(matrix):
            matrix = np.empty((num_rows, values.shape[1]), dtype=np.float32)
        matrix[places] = values
    return matrix


def values_of(items: Sequence[Item], fetch: Callable[[list[Item]], Parts]) -> Values:
    """Return the value of every item, (N, D), or (0, 0) where there are none; equal items are fetched once.

    Args:
        items: In any order.
        fetch: From distinct items to their values.
    """
    place = {item: number for number, item in enumerate(dict.fromkeys(items))}
    return gather(fetch(list(place)), len(place))[[place[item] for item in items]]
