"""What a container leaves of the machine."""

import os
from pathlib import Path

import pytest

from anna import machine


def test_a_container_has_less_memory_than_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(machine, "CGROUP_LIMITS", (limit,))
    whole = machine.memory()
    assert whole == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for text, expected in (("max\n", whole), ("1000000\n", 1_000_000), ("9223372036854771712\n", whole)):
        limit.write_text(text)
        assert machine.memory() == expected


def test_cpus_are_those_that_the_process_may_use() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert machine.num_cpus() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert machine.num_cpus() == len(allowed)
