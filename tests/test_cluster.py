"""A Ray of two workers on this machine: what the local engine gives, in order, also when a worker is killed."""

import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anna.engine import Items, Local, Model, ModelSpec, ScoringParams, opened
from anna.errors import InputError
from anna.shards import Values
from anna.teachers.vectors import VectorFile

ray = pytest.importorskip("ray", reason="needs Ray: pip install -e '.[ray]'")
cluster_of = pytest.importorskip("anna.cluster")

NUM_ITEMS = 60

TOKEN = uuid.uuid4().hex
"""Of every Ray of this process: it remembers the first."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """The engine, on two workers of one CPU each and a small object store."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_TOKEN", TOKEN)  # else Ray writes one to the user's home
        ray.init(num_cpus=2, object_store_memory=200 * 2**20, include_dashboard=False, log_to_driver=False)
        try:
            with opened(ScoringParams(engine="ray", address=None, workers=2, gpus=0)) as where:
                yield where
        finally:
            ray.shutdown()
            torch.set_num_threads(threads)


def items() -> Items:
    return [("item", "y" * (number % 7) + str(number)) for number in range(NUM_ITEMS)]


def describe(device: str = "cpu") -> dict[str, Any]:
    return {"model": "toy", "device": device}


def load(log: Path) -> Model:
    return Model(plan=plan, compute=slowly(log, compute))


def compute(batch: Items) -> Values:
    return np.array([[len(text), hash_of(text)] for _, text in batch], dtype=np.float32)


def slowly(log: Path, compute: Callable[[Items], Values]) -> Callable[[Items], Values]:
    """Return what computes the same, takes its time, and writes to a file of its process when it begins and ends."""

    def noted(batch: Items) -> Values:
        note(log, "begin")
        time.sleep(0.2)  # long enough to be seen in it on a busy machine
        values = compute(batch)
        note(log, "end")
        return values

    return noted


def plan(items: Items) -> list[list[int]]:
    order = sorted(range(len(items)), key=lambda place: (-len(items[place][1]), place))
    return [order[start : start + 2] for start in range(0, len(order), 2)]


def hash_of(text: str) -> int:
    return sum(place * value for place, value in enumerate(text.encode()))


def note(log: Path, what: str) -> None:
    with (log / str(os.getpid())).open("a") as file:
        file.write(f"{what}\n")


def begun(log: Path) -> list[Path]:
    """Return the files of processes that are in the middle of a batch."""
    return [path for path in log.glob("[0-9]*") if path.read_text().endswith("begin\n")]


def kill_one(log: Path) -> Callable[[], None]:
    """Kill the first process that is seen in the middle of a batch after another; return what waits for that."""

    def look() -> None:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            for path in begun(log):
                if path.read_text().count("end") and path.name != str(os.getpid()):
                    os.kill(int(path.name), signal.SIGKILL)
                    (log / "killed").write_text(path.name)
                    return
            time.sleep(0.005)

    thread = threading.Thread(target=look)
    thread.start()
    return thread.join


def check_killed(log: Path) -> None:
    """The killed process never ended its last batch."""
    assert (log / (log / "killed").read_text()).read_text().endswith("begin\n")


def refuse() -> Model:
    raise InputError("the model is not there")


def larger(item: int, shared: int) -> int:
    if item == 9:
        raise InputError("9 is too large")
    time.sleep(0.02 * (item % 2 == 0))
    return item + shared


@pytest.mark.parametrize("address", ["127.0.0.1:1", "head"])
def test_an_address_where_nobody_answers_is_refused(address: str) -> None:
    params = ScoringParams(engine="ray", address=address, workers=1, gpus=0)
    expected = f"scoring.address is '{address}', but no cluster of this Ray answers there .*; start one"
    with pytest.raises(InputError, match=expected), opened(params):
        pass


def test_the_worker_that_plans_on_a_gpu_ends_afterwards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ray keeps another one waiting for tasks, and what it has of the GPU with it."""
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(ray.remote_function.RemoteFunction, "_remote", lambda _, **options: asked.append(options))
    monkeypatch.setattr(ray, "get", lambda _: [])
    monkeypatch.setattr(cluster_of, "_warn_of_small_nodes", lambda *_: None)
    monkeypatch.setattr(cluster_of.Ray, "_results", lambda *_: iter(()))
    for gpus in (1.0, 0.0):
        assert list(cluster_of.Ray(2, gpus).compute(ModelSpec("toy", describe, partial(load, tmp_path)), items())) == []
    assert [(options["num_gpus"], options.get("max_calls")) for options in asked] == [(1.0, 1), (0.0, None)]


@pytest.mark.parametrize(("cpus", "gpus", "is_said"), [(8, 2, False), (8, 1, True), (4, 2, True)])
def test_a_cluster_whose_nodes_are_too_small_is_told(
    cpus: int, gpus: int, is_said: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = [(True, {"CPU": cpus}), (True, {"CPU": cpus, "GPU": gpus}), (False, {"CPU": 99, "GPU": 99})]
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": alive, "Resources": has} for alive, has in nodes])
    cluster_of._warn_of_small_nodes(8, 2)
    assert ("no node of the cluster has 8 CPUs and 2 GPUs" in caplog.text) == is_said


def test_a_killed_worker_changes_nothing(cluster: Any, tmp_path: Path) -> None:
    teacher = ModelSpec("toy", describe, partial(load, tmp_path))
    joined = kill_one(tmp_path)
    found = list(cluster.compute(teacher, items()))
    joined()
    check_killed(tmp_path)
    expected = list(Local().compute(ModelSpec("toy", describe, partial(load, tmp_path)), items()))
    assert [batch for batch, _ in found] == [batch for batch, _ in expected] == plan(items())
    for (_, values), (_, wanted) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(values, wanted)
    assert len(list(tmp_path.glob("[0-9]*"))) >= 3  # two workers and this process, at least


def test_map_is_in_order_and_bounded(cluster: Any) -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(8):
            taken.append(number)
            yield number

    found = cluster.map(larger, numbers(), 100)
    assert next(found) == 100
    assert len(taken) <= 4
    assert list(found) == list(range(101, 108))


def test_what_a_worker_refuses_is_one_line_here(cluster: Any) -> None:
    with pytest.raises(InputError, match=r"^the model is not there$"):
        list(cluster.compute(ModelSpec("toy", describe, refuse), items()))
    with pytest.raises(InputError, match=r"^9 is too large$"):
        list(cluster.map(larger, range(10), 0))
    mine = os.getpid()
    other = ModelSpec("toy", lambda: describe("cpu" if os.getpid() == mine else "cuda"), refuse)
    with pytest.raises(InputError, match="a worker has device 'cuda', where the stage runs it is 'cpu'"):
        list(cluster.compute(other, items()))


def vectors(seed: int, rows: int, folder: Path) -> VectorFile:
    """Return unit vectors, every seventh one twice."""
    emb = np.random.default_rng(seed).normal(size=(rows, 16)).astype(np.float32)
    emb[::7] = emb[0]
    emb /= np.linalg.norm(emb, axis=1, keepdims=True)
    return VectorFile(rows, iter([(np.arange(rows), emb)]), folder)


def test_search_over_blocks_is_the_local_one(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Here, because each worker imports this module, and these take seconds.
    from anna.teachers import retrieval
    from anna.teachers.dense import IndexParams
    from tests.teachers.models import INDEX

    monkeypatch.setattr(VectorFile.blocks, "__defaults__", (16 * 4 * 300,))
    docs, asked = vectors(0, 1000, tmp_path), vectors(1, 40, tmp_path)
    excluded = np.arange(40) % 5 - 1
    params = IndexParams.model_validate(INDEX | {"nlist": 8, "nprobe": 3, "min_recall": 0.0})
    for found, expected in (
        (retrieval.search_exactly(asked, docs, 12, excluded, where) for where in (cluster, Local())),
        (
            retrieval.search_by_index("A", asked, docs, depth=12, excluded_Q=excluded, params=params, where=where)[0]
            for where in (cluster, Local())
        ),
    ):
        for mine, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)
