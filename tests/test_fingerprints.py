"""Hashes: equal for the same content, different for any other."""

from pathlib import Path

import pytest

from anna import fingerprints
from anna.origins import HUB_DIR_VARIABLE, FilesOrigin, HubOrigin, WheelOrigin

HUB = HubOrigin(kind="hub", repo="owner/name", revision="b" * 40)


def test_the_order_of_settings_does_not_count_and_every_value_does() -> None:
    base = fingerprints.fingerprint({"model": "m", "max_tokens": 64})
    assert len(base) == 32
    assert fingerprints.fingerprint({"max_tokens": 64, "model": "m"}) == base
    assert fingerprints.fingerprint({"model": "m", "max_tokens": 65}) != base
    assert fingerprints.fingerprint({"model": "m", "max_tokens": "64"}) != base


def test_keys_are_those_of_the_parts_and_not_of_their_concatenation() -> None:
    keys = fingerprints.text_keys([("ab", "c"), ("a", "bc"), ("abc",), ("ab", "c"), ("é", "c")])
    assert keys.shape == (5, 16)
    assert len({key.tobytes() for key in keys}) == 4
    assert keys[0].tobytes() == keys[3].tobytes()
    # BLAKE2b of 16 bytes over the length, 8 bytes little-endian, and the bytes of each part.
    assert fingerprints.text_keys([("a",)])[0].tobytes().hex() == "fc9c942180a48b1bfa36938828a429dc"


def test_no_items_have_no_keys() -> None:
    assert fingerprints.text_keys([]).shape == (0, 16)


def test_the_hash_of_a_folder_is_that_of_names_and_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "weights").write_bytes(b"1")
        (tmp_path / folder / "notes.txt").write_bytes(folder.encode())
    one, two = tmp_path / "one", tmp_path / "two"
    assert fingerprints.content_hash(one) != fingerprints.content_hash(two)
    assert fingerprints.content_hash(one, "notes.txt") == fingerprints.content_hash(two, "notes.txt")
    (two / ".cache" / "huggingface").mkdir(parents=True)
    (two / ".cache" / "huggingface" / "weights.metadata").write_text("fetched just now")
    assert fingerprints.content_hash(one, "notes.txt") == fingerprints.content_hash(two, "notes.txt")
    (two / "weights").rename(two / "other")
    assert fingerprints.content_hash(one, "notes.txt") != fingerprints.content_hash(two, "notes.txt")


def test_a_folder_behind_a_link_counts(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "model" / "part").symlink_to(tmp_path / "elsewhere")
    seen = []
    for content in (b"1", b"2"):
        (tmp_path / "elsewhere" / "weights").write_bytes(content)
        seen.append(fingerprints.content_hash(tmp_path / "model"))
    assert seen[0] != seen[1]


def test_pinned_models_are_not_fetched_to_be_hashed() -> None:
    wheel = WheelOrigin(kind="wheel", package="p", version="1", sha256="a" * 64, path="m")
    assert fingerprints.model_hash(wheel) == f"{'a' * 64} m"
    assert fingerprints.model_hash(HUB) == f"owner/name@{'b' * 40}"


def test_a_model_on_disk_is_hashed_by_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "models" / "owner" / "name"
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"1")
    expected = fingerprints.content_hash(folder)
    (folder / "README.md").write_text("its card decides no vector")
    assert fingerprints.model_hash(FilesOrigin(kind="files", path=folder)) == expected
    monkeypatch.setenv(HUB_DIR_VARIABLE, str(tmp_path))  # whatever lies there, its revision was not checked
    assert fingerprints.model_hash(HUB) == expected


def test_the_hash_of_code_is_the_same_in_every_version_of_python(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text(
        'class A(int):\n    x: int = 1\n\n\ndef f(a, *, b=None):\n    return [lambda: f"{a}" for _ in b]\n',
        encoding="utf-8",
    )
    assert fingerprints.code_hash(tmp_path / "code.py").startswith("4775264626669b1c")


@pytest.mark.parametrize(
    ("source", "is_same"),
    [
        ('"""M."""\ndef f(x):\n    """D."""\n    # C\n    return x + 1\n\nNAME = "n"\n"""N."""\n', True),
        ('def f(\n    x,\n):\n    return x + 1\n\n\nNAME = "n"\n', True),
        ('def f(x):\n    return x + 2\n\nNAME = "n"\n', False),
        ('def f(x):\n    return x + 1\n\nNAME = "m"\n', False),
    ],
)
def test_comments_and_docstrings_are_no_code(tmp_path: Path, source: str, is_same: bool) -> None:
    plain, other = tmp_path / "plain.py", tmp_path / "other.py"
    plain.write_text('def f(x):\n    return x + 1\n\nNAME = "n"\n', encoding="utf-8")
    other.write_text(source, encoding="utf-8")
    assert (fingerprints.code_hash(plain) == fingerprints.code_hash(other)) is is_same
