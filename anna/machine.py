"""What of this machine, or of the container that we are in, a process may use."""

import os
from pathlib import Path

CGROUP_LIMITS = tuple(Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory/memory.limit_in_bytes"))
"""Where Linux says what a container may use, in its versions 2 and 1."""


def num_cpus() -> int:
    """Return the CPUs that this process may use, which in a container may be fewer than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> float:
    """Return the bytes of memory of this machine, or of the container that we are in."""
    limits = [path.read_text().strip() for path in CGROUP_LIMITS if path.is_file()]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return float(min([pages, *(int(limit) for limit in limits if limit.isdigit())]))
