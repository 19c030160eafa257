"""How the C library's allocator treats what tensors free."""

import ctypes
import platform

_MMAP_THRESHOLD, _TRIM_THRESHOLD, _MMAP_MAX = -3, -1, -4
"""Parameters of glibc's `mallopt`, from its malloc.h."""

_LARGE = 32 * 2**20
"""Bytes from which a piece of memory is mapped by itself and given back when freed: glibc's own upper limit."""


def keep_freed_memory(*, even_large: bool = False) -> None:
    """Make this process keep the memory that tensors free for its next ones.

    A layer's activations are freed and asked for again with every batch. In between glibc gives them back to the
    system, which then fills each page with zeros anew: a tenth of the time of encoding on two cores (docs/LOG.md). No
    result depends on it. With another C library it does nothing.

    Args:
        even_large: Also pieces of 32 MiB and more, which are given back otherwise: for training, which asks for the
            same ones with every step.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP_THRESHOLD, _LARGE)
    libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    if even_large:
        libc.mallopt(_MMAP_MAX, 0)
