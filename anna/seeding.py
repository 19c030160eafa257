"""Independent random streams from one root seed.

No stream depends on how many numbers another has drawn, so adding a draw in one stage changes no other.
"""

import hashlib

import numpy as np


def derive_seed(root: int, *keys: str | int) -> int:
    """Return a 63-bit seed for the stream that `keys` name, e.g. `derive_seed(17, "train", epoch)`."""
    name = "\x1f".join([str(root), *(f"{type(key).__name__}:{key}" for key in keys)])
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) >> 1


def rng(root: int, *keys: str | int) -> np.random.Generator:
    """Return a NumPy generator for the stream that `keys` name."""
    return np.random.default_rng(derive_seed(root, *keys))
