"""One file of a store: what was written is read, or the file is refused."""

import errno
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anna import shards
from anna.fingerprints import Keys, text_keys
from anna.shards import DamagedError, Values


def make(names: str, num_dims: int = 3) -> tuple[Keys, Values]:
    """Return a key and a vector for each letter."""
    values = np.array([[ord(name) + place / 8 for place in range(num_dims)] for name in names], dtype=np.float32)
    return text_keys((name,) for name in names), values


def found(path: Path, names: str) -> dict[str, list[float]]:
    """Return what the shard has of the letters."""
    result = {}
    for places, values in shards.matches(path, shards.wanted(make(names)[0])):
        result |= {names[place]: row.tolist() for place, row in zip(places, values, strict=True)}
    return result


def expected(names: str) -> dict[str, list[float]]:
    return dict(zip(names, make(names)[1].tolist(), strict=True))


@pytest.mark.parametrize("group_bytes", [1, 60, 2**20])
def test_what_was_written_is_found_whatever_the_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group_bytes: int
) -> None:
    monkeypatch.setattr(shards, "GROUP_BYTES", group_bytes)
    path = tmp_path / "a.parquet"
    shards.write(path, *make("abcdefg"))
    assert pq.ParquetFile(path).num_row_groups == {1: 7, 60: 4, 2**20: 1}[group_bytes]
    assert found(path, "abcdefg") == expected("abcdefg")
    assert found(path, "xfzb") == expected("fb")
    assert found(path, "xyz") == {}


@pytest.mark.parametrize("varied", [range(16), [0], [7, 8], [14, 15]], ids=str)
def test_keys_are_told_apart_by_any_of_their_bytes(tmp_path: Path, varied: Sequence[int]) -> None:
    rng, alphabet = np.random.default_rng(0), np.array([0, 1, 127, 128, 255], dtype=np.uint8)
    keys = np.full((1000, 16), 128, dtype=np.uint8)
    keys[:, varied] = rng.choice(alphabet, (1000, len(varied)))
    keys = rng.permutation(np.unique(keys, axis=0))
    kept, asked = keys[::2], keys[: len(keys) // 2 + 1]
    values = np.arange(len(kept), dtype=np.float32)[:, None]
    shards.write(tmp_path / "a.parquet", kept, values)
    got = {
        place: float(value)
        for places, rows in shards.matches(tmp_path / "a.parquet", shards.wanted(asked))
        for place, (value,) in zip(places.tolist(), rows, strict=True)
    }
    row_of = {row.tobytes(): float(number) for number, row in enumerate(kept)}
    assert got == {place: row_of[row.tobytes()] for place, row in enumerate(asked) if row.tobytes() in row_of}
    assert len(got) == -(-len(asked) // 2)


def test_values_come_back_to_the_last_bit(tmp_path: Path) -> None:
    values = np.array([[np.float32(0.1), -0.0, 1e-42]], dtype=np.float32)
    shards.write(tmp_path / "a.parquet", make("a")[0], values)
    ((places, got),) = shards.matches(tmp_path / "a.parquet", shards.wanted(make("a")[0]))
    assert places.tolist() == [0]
    assert got.tobytes() == values.tobytes()


def test_joined_shards_hold_all_rows_in_full_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "GROUP_BYTES", 60)  # two rows of 16 + 12 bytes
    paths = [tmp_path / f"{name}.parquet" for name in "abcde"]
    for path in paths:
        shards.write(path, *make(path.stem))
    shards.join(paths, tmp_path / "all.parquet")
    file = pq.ParquetFile(tmp_path / "all.parquet")
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [2, 2, 1]
    assert found(tmp_path / "all.parquet", "edcba") == expected("abcde")


@pytest.mark.parametrize("harm", ["truncated", "empty", "flipped", "other columns"])
def test_a_damaged_shard_is_refused_and_nothing_is_joined(tmp_path: Path, harm: str) -> None:
    good, bad = tmp_path / "good.parquet", tmp_path / "bad.parquet"
    shards.write(good, *make("abc"))
    shards.write(bad, *make("def"))
    content = bytearray(bad.read_bytes())
    if harm == "other columns":
        pq.write_table(pa.table({"x": [1]}), bad)
    else:
        place = content.index(make("e")[1].tobytes())
        content[place] ^= 1
        bad.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "flipped": content}[harm])
    with pytest.raises(DamagedError, match=r"bad\.parquet is damaged \(") as caught:
        found(bad, "def")
    assert caught.value.path == bad
    with pytest.raises(DamagedError):
        shards.join([good, bad], tmp_path / "all.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.parquet", "good.parquet"]


def test_no_flipped_bit_gives_a_wrong_value_or_another_error(tmp_path: Path) -> None:
    path, right = tmp_path / "a.parquet", expected("abc")
    shards.write(path, *make("abc"))
    content = path.read_bytes()
    refused = 0
    for place, bit in itertools.product(range(len(content)), range(8)):
        harmed = bytearray(content)
        harmed[place] ^= 1 << bit
        path.write_bytes(harmed)
        try:
            assert found(path, "abc").items() <= right.items(), (place, bit)
        except DamagedError:
            refused += 1
    assert refused > 1000


def test_a_shard_that_is_gone_or_kept_from_us_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError):
        found(tmp_path / "gone.parquet", "a")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    shards.write(tmp_path / "a.parquet", *make("a"))
    monkeypatch.setattr(pq, "ParquetFile", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        found(tmp_path / "a.parquet", "a")
