"""Which number format the hardware is good for."""

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
