"""The store: what is there is not computed, what is missing is, and nothing that happens to its files is trusted."""

import errno
import json
import logging
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from anna import io, shards, store
from anna.errors import InputError
from anna.fingerprints import Keys, text_keys
from anna.shards import Int, Values
from anna.store import Store, gather

PARTS = {"model": "m", "max_tokens": 8}


def value(text: str) -> list[float]:
    return [float(len(text)), float(sum(text.encode()))]


class Reader:
    """Asks a store for texts, and remembers what had to be computed."""

    def __init__(self, root: Path, batch: int = 2) -> None:
        self.store, self.batch = Store("toy", PARTS, root), batch
        self.computed: list[list[str]] = []
        self.counts: Counter[str] = Counter()

    def __call__(self, texts: Sequence[str], compute: Callable[[str], list[float]] = value) -> Values:
        def run(missing: Int) -> Iterator[tuple[range, Values]]:
            for start in range(0, len(missing), self.batch):
                batch = range(start, min(start + self.batch, len(missing)))
                part = [texts[place] for place in missing[batch]]
                vectors = np.array([compute(text) for text in part], dtype=np.float32)
                self.computed.append(part)
                yield batch, vectors

        keys = text_keys((text,) for text in texts)
        got = gather(self.store.fetch(keys, run, self.counts), len(texts))
        assert got.tolist() == [compute(text) for text in texts]
        return got


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every batch becomes a shard."""
    monkeypatch.setattr(store, "SECONDS_BETWEEN_SHARDS", 0.0)


def files(read: Reader, suffix: str = "parquet") -> list[Path]:
    return sorted(read.store.folder.glob(f"*.{suffix}"))


def test_only_what_is_missing_is_computed(tmp_path: Path) -> None:
    read = Reader(tmp_path)
    read(["a", "bb", "ccc"])
    assert read.computed == [["a", "bb"], ["ccc"]]
    assert len(files(read)) == 1
    again = Reader(tmp_path)
    again(["dd", "ccc", "a"])
    assert again.computed == [["dd"]]
    assert again.counts == {"reused": 2, "computed": 1}
    known = Reader(tmp_path)
    known(["bb", "dd"])
    assert known.computed == []


def test_nothing_asked_is_nothing_done(tmp_path: Path) -> None:
    read = Reader(tmp_path)
    assert read([]).shape == (0, 0)
    assert list(tmp_path.iterdir()) == []


def test_another_fingerprint_misses(tmp_path: Path) -> None:
    Reader(tmp_path)(["a"])
    other = Reader(tmp_path)
    other.store = Store("toy", {**PARTS, "max_tokens": 9}, tmp_path)
    other(["a"])
    assert other.computed == [["a"]]
    assert len(list(tmp_path.iterdir())) == 2
    assert json.loads((other.store.folder / "about.json").read_text()) == {"model": "m", "max_tokens": 9}


@pytest.mark.usefixtures("at_once")
def test_what_was_computed_before_an_error_is_kept(tmp_path: Path) -> None:
    def breaks(text: str) -> list[float]:
        if text == "d":
            raise OSError("out of memory")
        return value(text)

    read = Reader(tmp_path)
    with pytest.raises(OSError, match="out of memory"):
        read(["a", "b", "c", "d", "e"], breaks)
    again = Reader(tmp_path)
    again(["a", "b", "c", "d", "e"])
    assert again.computed == [["c", "d"], ["e"]]  # the batches that an undisturbed run would have made


def test_values_that_no_shard_holds_yet_are_kept_too(tmp_path: Path) -> None:
    def breaks(text: str) -> list[float]:
        return value(text) if text != "c" else [float("nan"), 0.0]

    with pytest.raises(InputError, match=r"toy-\w+ gave NaN or infinity; nothing stored, choose another"):
        Reader(tmp_path)(["a", "b", "c"], breaks)
    again = Reader(tmp_path)
    again(["a", "b", "c"])
    assert again.computed == [["c"]]


@pytest.mark.parametrize("harm", [lambda content: content[:-20], lambda content: b""], ids=["truncated", "empty"])
def test_a_damaged_shard_is_computed_again_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: Callable[[bytes], bytes]
) -> None:
    Reader(tmp_path)(["a", "b"])
    read = Reader(tmp_path)
    (path,) = files(read)
    path.write_bytes(harm(path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        read(["a", "b", "c"])
    assert read.computed == [["a", "b"], ["c"]]
    (aside,) = files(read, "damaged")
    assert aside.stem == path.stem
    assert f"{path} is damaged" in caplog.text
    last = Reader(tmp_path)
    last(["a", "b", "c"])
    assert last.computed == []


@pytest.mark.usefixtures("at_once")
def test_many_small_shards_become_one_without_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "JOIN_AT", 4)
    texts = [f"text {number}" for number in range(40)]
    read = Reader(tmp_path, batch=1)
    read(texts)
    assert len(files(read)) < 10
    again = Reader(tmp_path)
    again(texts)
    assert again.computed == []


@pytest.mark.usefixtures("at_once")
def test_a_damaged_shard_is_not_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Reader(tmp_path, batch=1)
    read([f"text {number}" for number in range(4)])
    first = files(read)[0]
    first.write_bytes(first.read_bytes()[:-1])
    monkeypatch.setattr(store, "JOIN_AT", 4)
    read.store.join()
    assert len(files(read)) == 3
    assert [path.stem for path in files(read, "damaged")] == [first.stem]


@pytest.mark.usefixtures("at_once")
def test_shards_that_cannot_be_joined_stay_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "JOIN_AT", 3)
    monkeypatch.setattr(shards, "join", refuse)
    read = Reader(tmp_path, batch=1)
    texts = [f"text {number}" for number in range(5)]
    read(texts)
    assert len(files(read)) == 5
    assert "3 small files are not made one" in caplog.text
    read(texts)
    assert read.counts == {"computed": 5, "reused": 5}


@pytest.mark.usefixtures("at_once")
def test_shards_joined_while_they_are_read_are_found_in_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"text {number}" for number in range(6)]
    Reader(tmp_path, batch=1)(texts)
    monkeypatch.setattr(store, "JOIN_AT", 6)
    original, calls = shards.matches, []

    def joining(path: Path, wanted: object) -> object:
        calls.append(path)
        if len(calls) == 3:
            Store("toy", PARTS, tmp_path).join()
        return original(path, wanted)  # type: ignore[arg-type]

    monkeypatch.setattr(shards, "matches", joining)
    read = Reader(tmp_path)
    read(texts)
    assert read.computed == []
    assert len(files(read)) == 1


@pytest.mark.usefixtures("at_once")
def test_wanted_keys_are_sorted_once_however_many_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"text {number}" for number in range(6)]
    Reader(tmp_path, batch=1)(texts)
    original, calls = shards.wanted, []

    def counting(keys: Keys) -> shards.Wanted:
        calls.append(len(keys))
        return original(keys)

    monkeypatch.setattr(shards, "wanted", counting)
    read = Reader(tmp_path)
    read(texts)
    assert len(files(read)) == 6
    assert calls == [6]


def test_only_one_process_joins_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "JOIN_AT", 1000)
    read = Reader(tmp_path, batch=1)
    read(["a"])
    read(["b"])
    monkeypatch.setattr(store, "JOIN_AT", 2)
    with FileLock(read.store.folder / ".lock"):
        read.store.join()
        assert len(files(read)) == 2
    read.store.join()
    assert len(files(read)) == 1


def test_leftovers_of_killed_writers_are_ignored_and_go_after_a_day(tmp_path: Path) -> None:
    read = Reader(tmp_path)
    read(["a"])
    old, new = read.store.folder / ".x.parquet.1.tmp", read.store.folder / ".y.parquet.2.tmp"
    for path in (old, new):
        path.write_bytes(b"half a shard")
    os.utime(old, (time.time() - 2 * io.DAY,) * 2)
    again = Reader(tmp_path)
    again(["a", "b"])
    assert again.computed == [["b"]]
    assert not old.exists()
    assert new.exists()


def write_range(root: Path, start: int, stop: int) -> None:
    """Compute some texts in another process, one shard each, joining often."""
    store.SECONDS_BETWEEN_SHARDS, store.JOIN_AT = 0.0, 3
    for number in range(start, stop):
        Reader(root, batch=1)([f"text {n}" for n in range(max(start, number - 5), number + 1)])


def test_two_processes_write_join_and_read_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=write_range, args=(tmp_path, start, start + 40)) for start in (0, 20)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    read = Reader(tmp_path)
    read([f"text {number}" for number in range(60)])
    assert read.computed == []
    assert not files(read, "damaged")


def test_equal_items_are_fetched_once_and_every_one_has_its_value() -> None:
    asked: list[list[str]] = []

    def fetch(distinct: list[str]) -> store.Parts:
        asked.append(distinct)
        for place in reversed(range(len(distinct))):
            yield np.array([place]), np.array([value(distinct[place])], dtype=np.float32)

    assert store.values_of(["bb", "a", "bb"], fetch).tolist() == [value("bb"), value("a"), value("bb")]
    assert store.values_of([], fetch).shape == (0, 0)
    assert asked == [["bb", "a"], []]
