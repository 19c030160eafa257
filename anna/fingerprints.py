"""Hashes of what decides a result: models, settings, texts and code. Results are stored under them."""

import ast
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anna.origins import HubOrigin, Origin, WheelOrigin, fetch_model, hub_mirror, sha256

Keys = NDArray[np.uint8]
"""(N, 16), one hash a row."""

KEY_BYTES = 16
"""128 bits: among a billion texts two share a hash with probability 1.5e-21."""

LIBRARIES = ("torch", "transformers", "tokenizers", "sentence-transformers")
"""Libraries that compute what teachers give."""


def fingerprint(parts: Mapping[str, Any]) -> str:
    """Return the hash of settings that JSON can hold, in hexadecimal; the order of keys does not count."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=KEY_BYTES).hexdigest()


def text_keys(items: Iterable[tuple[str, ...]]) -> Keys:
    """Return the hash of each item, a text or several that belong together, such as a prompt and what follows it."""
    return np.frombuffer(b"".join(map(_digest, items)), dtype=np.uint8).reshape(-1, KEY_BYTES)


def _digest(parts: tuple[str, ...]) -> bytes:
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "little"))  # or ("ab", "c") would be ("a", "bc")
        digest.update(data)
    return digest.digest()


def model_hash(origin: Origin) -> str:
    """Return a hash that changes with the model's bytes; wheels and the hub's revisions are pinned by one already."""
    if isinstance(origin, WheelOrigin):
        return f"{origin.sha256} {origin.path}"
    if isinstance(origin, HubOrigin) and hub_mirror("models", origin.repo) is None:
        return f"{origin.repo}@{origin.revision}"
    return content_hash(fetch_model(origin), "README.md")


def content_hash(path: Path, *skip: str) -> str:
    """Return a hash of a file, or of the names and bytes of all files of a folder but those named `skip`.

    Hidden files and folders do not count: in `.cache` the hub's client notes when it fetched a copy.
    """
    if path.is_file():
        return sha256(path)
    # Through links to folders, too, which `rglob` leaves out.
    found = (Path(folder, name) for folder, _, names in os.walk(path, followlinks=True) for name in names)
    names = sorted(file.relative_to(path) for file in found if file.is_file() and file.name not in skip)
    shown = (name for name in names if not any(part.startswith(".") for part in name.parts))
    lines = [f"{name} {sha256(path / name)}" for name in shown]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def code_hash(path: Path) -> str:
    """Return a hash of the Python code of a file; comments, docstrings and layout do not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        for name, value in list(ast.iter_fields(node)):
            if isinstance(value, list):
                setattr(node, name, [part for part in value if not _is_text(part)])
                if not getattr(node, name):
                    delattr(node, name)  # which lists are written when empty depends on the version of Python
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def library_versions() -> dict[str, str]:
    """Return the installed version of each of `LIBRARIES`."""
    return {name: version(name) for name in LIBRARIES}
