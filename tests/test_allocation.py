"""The allocator's setting, as glibc itself tells it."""

import ctypes
import subprocess
import sys

import pytest

ALLOCATIONS = """
import ctypes
from anna.allocation import keep_freed_memory

class Info(ctypes.Structure):  # struct mallinfo2 of malloc.h
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd a b c d e".split()]

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.mallinfo2.restype = ctypes.c_void_p, Info
keep_freed_memory()
before = libc.mallinfo2()
large = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(40 * 2**20)))
mapped = libc.mallinfo2()
libc.free(large)
pieces = [ctypes.c_void_p(libc.malloc(ctypes.c_size_t(30 * 2**20))) for _ in range(8)]
held = libc.mallinfo2()
for piece in pieces:
    libc.free(piece)
freed = libc.mallinfo2()
print(mapped.hblks - before.hblks, held.hblks - before.hblks, (held.arena - before.arena) // 2**20)
print(freed.arena == held.arena)
keep_freed_memory(even_large=True)
libc.free(ctypes.c_void_p(libc.malloc(ctypes.c_size_t(400 * 2**20))))
after = libc.mallinfo2()
print(after.hblks - before.hblks, (after.arena - freed.arena) // 2**20)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="glibc 2.33 or later tells it")
def test_small_pieces_are_kept_when_freed_and_large_ones_where_asked_for() -> None:
    said = subprocess.run([sys.executable, "-c", ALLOCATIONS], capture_output=True, text=True, check=True).stdout
    num_mapped, num_still_mapped, grown, is_kept, num_mapped_at_last, kept_of_large = said.split()
    assert (num_mapped, num_still_mapped, is_kept) == ("1", "0", "True")
    assert int(grown) >= 8 * 30 - 1
    assert num_mapped_at_last == "0"
    assert int(kept_of_large) >= 400 - 8 * 30 - 2
