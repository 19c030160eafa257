"""Models and searches on a Ray cluster: models in Ray Data's actors, searches in tasks, results in order.

Ray Data feeds the actors no faster than results are taken, and gives what a dead actor was at to another one; a task
whose worker dies runs again. Neither can change a result: batches are planned once, and each is computed alone. That
results come in order lets a stage that was killed go on as the local engine does.
"""

import logging
import os
import pickle
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import faiss
import pyarrow as pa
import ray
import torch
from ray.data import ActorPoolStrategy, DataContext

from anna import log
from anna.allocation import keep_freed_memory
from anna.engine import Items, ModelSpec, in_turn
from anna.errors import InputError, one_line
from anna.shards import Values

T = TypeVar("T")
R = TypeVar("R")

BATCHES_AT_ONCE = 16
"""Batches given to an actor together, and computed again if it dies: Ray is for tasks of seconds, not milliseconds."""

SHARE = 4
"""Such parcels per actor, at least, so that all end at about the same time."""

ACTORS_LOST = 3
"""Actors that may die in a row while they load the model; after more, the model is taken to be at fault."""

SECONDS_TO_ANSWER = 20.0
"""Of the cluster's head."""

_log = logging.getLogger(__name__)


class Here(NamedTuple):
    """What a worker takes over from the stage's process, because it decides files and the last bits of results."""

    folder: Path
    """Of the project: paths in params are relative to it."""
    threads: int
    """How sums on a CPU are grouped."""

    def enter(self) -> None:
        """Make it that of this process.

        Raises:
            InputError: If the folder is not there.
        """
        if not self.folder.is_dir():
            raise InputError(f"a worker has no folder {self.folder}; put the project there on every machine")
        os.chdir(self.folder)
        torch.set_num_threads(self.threads)
        faiss.omp_set_num_threads(self.threads)
        keep_freed_memory()


@contextmanager
def joined(address: str | None) -> Iterator[None]:
    """Be part of a cluster; one that was joined before stays so.

    Args:
        address: As `scoring.address`.

    Raises:
        InputError: If there is none.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        _call_on(address)
        ray.init(
            address=address or "local",
            include_dashboard=False if address is None else None,
            logging_level=logging.ERROR,
            log_to_driver=False,  # each worker's own lines and bars; what it raises is raised here
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"scoring.address is {address!r}, but no cluster of this Ray answers there "
            f"({one_line(error)}); start one with `ray start --head`, or set scoring.address to null"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def _call_on(address: str | None) -> None:
    """Raise `OSError` or `ValueError` if nobody listens at host:port, for which Ray itself would wait minutes."""
    if address is not None and address != "auto":
        host, _, port = address.removeprefix("ray://").rpartition(":")
        socket.create_connection((host, int(port)), timeout=SECONDS_TO_ANSWER).close()


def _warn_of_small_nodes(threads: int, gpus: float) -> None:
    """Say it where no node has room for a model or a search: Ray waits in silence until one joins."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= threads and node.get("GPU", 0) >= gpus for node in nodes):
        _log.warning(
            "no node of the cluster has %d CPUs and %g GPUs, so nothing is computed until one joins; set "
            "OMP_NUM_THREADS to the CPUs of a node, or lower scoring.gpus",
            threads,
            gpus,
        )


def _room(resources: Mapping[str, float], threads: int, gpus: float) -> int:
    """Return how many models a cluster of these resources can hold at once, one at least."""
    return max(1, int(resources.get("GPU", 0) // gpus if gpus else resources.get("CPU", 0) // threads))


class Ray:
    """The cluster that this process has joined; see `engine.Engine`."""

    wants_all = True

    def __init__(self, workers: int | None, gpus: float) -> None:
        """Remember how much of it to use.

        Args:
            workers: Models loaded, and searches run, at once; None: as many as there is room for now.
            gpus: Of each model.
        """
        self._gpus, self._here = gpus, Here(Path.cwd(), torch.get_num_threads())
        self._workers = workers or _room(ray.cluster_resources(), self._here.threads, gpus)
        self._resources = {"num_cpus": 1 if gpus else self._here.threads, "num_gpus": gpus}
        _warn_of_small_nodes(self._here.threads, gpus)

    def compute(self, spec: ModelSpec, items: Items) -> Iterator[tuple[Sequence[int], Values]]:
        """See `Engine`. Batches are planned by a worker, so that the model need not fit where the stage runs."""
        with _input_errors():
            # Not by `options`: only as its own default does a GPU end the worker after it, and so free its memory.
            planning = ray.remote(**self._resources)(_plan)
            batches = ray.get(planning.remote(spec, self._here, items))
            stream = self._results(spec, [[items[place] for place in batch] for batch in batches])
            yield from zip(batches, log.progress(stream, unit="batch", desc=spec.kind, total=len(batches)), strict=True)

    def _results(self, spec: ModelSpec, batches: Sequence[Items]) -> Iterator[Values]:
        size = max(1, min(BATCHES_AT_ONCE, len(batches) // (SHARE * self._workers)))
        parcels = (batches[start : start + size] for start in range(0, len(batches), size))
        kept = [ray.put(pa.table({"items": [pickle.dumps(batch) for batch in parcel]})) for parcel in parcels]
        with DataContext.current(_settings()):
            data = ray.data.from_arrow_refs(kept).map_batches(
                _Actor,
                fn_constructor_args=(spec, self._here),
                compute=ActorPoolStrategy(min_size=1, max_size=self._workers, initial_size=self._workers),
                batch_size=None,
                batch_format="pyarrow",
                **self._resources,
            )
        for table in data.iter_batches(batch_size=None, batch_format="pyarrow"):
            yield from map(pickle.loads, table["values"].to_pylist())

    def map(self, function: Callable[..., R], items: Iterable[T], *shared: object) -> Iterator[R]:
        """See `Engine`. At most `2 * workers` items are on the cluster at once."""
        task = ray.remote(_call).options(num_cpus=self._here.threads)
        kept = [ray.put(value) for value in shared]
        started = (task.remote(self._here, function, item, *kept) for item in items)
        with _input_errors():
            yield from map(ray.get, in_turn(started, 2 * self._workers - 1))


class _Actor:
    """A loaded model."""

    def __init__(self, spec: ModelSpec, here: Here) -> None:
        here.enter()
        spec.check()
        self._model = spec.load()

    def __call__(self, table: pa.Table) -> pa.Table:
        values = [self._model.compute(pickle.loads(items)) for items in table["items"].to_pylist()]
        return pa.table({"values": [pickle.dumps(part) for part in values]})


def _plan(spec: ModelSpec, here: Here, items: Items) -> list[list[int]]:
    here.enter()
    spec.check()
    return spec.load().plan(items)


def _call(here: Here, function: Callable[..., R], item: T, *shared: object) -> R:
    here.enter()
    return function(item, *shared)


def _settings() -> DataContext:
    settings = DataContext.get_current().copy()
    settings.execution_options.preserve_order = True
    settings.max_consecutive_actor_init_deaths = ACTORS_LOST
    settings.enable_progress_bars = False
    settings.print_on_execution_start = False
    return settings


@contextmanager
def _input_errors() -> Iterator[None]:
    """Let an `InputError` of a worker be one here."""
    try:
        yield
    except ray.exceptions.RayError as error:
        raised: BaseException | None = error
        while raised is not None:
            cause = getattr(raised, "cause", None)
            if isinstance(cause, InputError):
                raise cause from None
            raised = raised.__cause__
        raise
