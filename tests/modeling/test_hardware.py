"""What a container leaves of the machine."""

import os
from pathlib import Path

import pytest
import torch

from anna.modeling import hardware


@pytest.mark.parametrize(("has_instructions", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_is_bfloat16_only_on_gpus_that_have_it(
    monkeypatch: pytest.MonkeyPatch, has_instructions: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_instructions)
    assert hardware.compute_dtype.__wrapped__("auto") == expected


def test_a_container_has_less_memory_than_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(hardware, "CGROUP_LIMITS", (limit,))
    whole = hardware.machine_memory()
    assert whole == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for text, expected in (("max\n", whole), ("1000000\n", 1_000_000), ("9223372036854771712\n", whole)):
        limit.write_text(text)
        assert hardware.machine_memory() == expected


def test_cpus_are_those_that_the_process_may_use() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert hardware.num_cpus() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert hardware.num_cpus() == len(allowed)
