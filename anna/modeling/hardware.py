"""Which device models run on, and in which number format."""

import logging
import os
from functools import cache
from typing import Literal

import torch

Dtype = Literal["auto", "float32", "bfloat16"]
"""What matrix products are computed in; see `compute_dtype`."""

Quantize = Literal["nf4"]
"""What frozen matrices are rounded to: 4 bits each, in blocks (QLoRA, Dettmers et al. 2023, arXiv:2305.14314)."""

CPU_BF16 = ("avx512_bf16", "amx_bf16")
"""CPU capabilities that make bfloat16 matrix products faster than float32 ones."""

_log = logging.getLogger(__name__)


def pick_device() -> str:
    """Return "cuda" where there is a GPU, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def tell_deepspeed() -> None:
    """Tell DeepSpeed what we compute on, before it is imported, as transformers does to save a model.

    By itself it would take a Mac's GPU, and warn where there is none.
    """
    os.environ.setdefault("DS_ACCELERATOR", pick_device())


@cache  # so that it says only once what it chose
def compute_dtype(choice: Dtype) -> torch.dtype:
    """Return what to compute matrix products in; `auto` is bfloat16 where GPU, or else CPU, have instructions for it.

    A CPU without them emulates bfloat16 at about a hundredth of the speed of float32.
    """
    if choice != "auto":
        return torch.float32 if choice == "float32" else torch.bfloat16
    if torch.cuda.is_available():
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:  # not what torch says is supported: that is true of every CPU, for emulation
        has_bf16 = any(torch.cpu.get_capabilities().get(name) for name in CPU_BF16)
    _log.info("computing in %s", "bfloat16" if has_bf16 else "float32: the hardware has no bfloat16 instructions")
    return torch.bfloat16 if has_bf16 else torch.float32
