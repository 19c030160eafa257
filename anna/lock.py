"""Locks between processes of one project."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anna.errors import InputError


@contextmanager
def held(path: Path, what: str) -> Iterator[None]:
    """Hold the lock at `path`, which ends with this process, however that ends.

    Args:
        path: A file, which stays.
        what: What two processes must not do at once, for the message.

    Raises:
        InputError: If another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # the system may say either
            lock.seek(0)
            raise InputError(
                f"process {lock.read().strip() or 'unknown'} {what} already, in this project ({path}); wait for it, or "
                "end it"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield
