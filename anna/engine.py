"""Where models compute: in this process, in several of this machine, or on a Ray cluster, with the same results."""

import gc
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, NamedTuple, Protocol, Self, TypeVar

import torch
from pydantic import Field

from anna import fingerprints, log, store
from anna.errors import InputError
from anna.params import Params
from anna.shards import Values

Items = Sequence[tuple[str, str]]
"""What a model gives one result each for: a prompt and the text after it, or a query and a passage."""

T = TypeVar("T")
R = TypeVar("R")
Key = TypeVar("Key")


class ScoringParams(Params):
    """Where models compute: no part of what they give, and so no dependency of a stage for DVC."""

    section: ClassVar[str] = "scoring"

    engine: Literal["local", "ray"]
    """local: on this machine. ray: on a cluster."""
    address: str | None
    """Of the cluster's head, as host:port; auto: the one that this machine is part of; null: one is started here."""
    workers: int | None = Field(gt=0)
    """Models loaded at once, each in a process of its own, and on a cluster searches run at once; null: as many as have
    a GPU, or one where there is none."""
    gpus: float = Field(ge=0)
    """GPUs of each model on a cluster; 0: it computes on CPUs, as many as this machine would compute with. Locally the
    GPUs are dealt out to the workers in turn."""

    @property
    def here(self) -> Self:
        """The same on this machine: a cluster loads its models for each job anew, which many small ones cannot pay."""
        return self if self.engine == "local" else self.model_copy(update={"engine": "local", "workers": None})


class Model(NamedTuple):
    """A loaded model."""

    plan: Callable[[Items], list[list[int]]]
    """From items to batches of places among them."""
    compute: Callable[[Items], Values]
    """From the items of a batch to their results, (N, D)."""


class ModelSpec:
    """How a model is loaded, and what decides its results; it can be sent to other processes and machines."""

    def __init__(self, kind: str, describe: Callable[[], dict[str, Any]], load: Callable[[], Model]) -> None:
        """Ask what decides results here.

        Args:
            kind: Name of the model's part, for people.
            describe: Gives everything that decides a result beside the item, of the machine that it is called on.
            load: Gives the model.
        """
        self.kind, self.load = kind, load
        self.decisive, self._describe = describe(), describe

    def check(self) -> None:
        """Refuse a machine that would give other results than the one that asked.

        Raises:
            InputError: If what decides results differs here.
        """
        here = self._describe()
        for name, value in self.decisive.items():
            if here[name] != value:
                raise InputError(
                    f"{self.kind}: a worker has {name} {here[name]!r}, where the stage runs it is {value!r}; run the "
                    "stage on a machine like the workers, with the same checkout, or change scoring.gpus"
                )


class Engine(Protocol):
    """Runs models and searches; what it gives comes in order."""

    wants_all: bool
    """Whether loading models is so slow that they should be asked once, for everything."""

    def compute(self, spec: ModelSpec, items: Items) -> Iterator[tuple[Sequence[int], Values]]:
        """Yield the batches that the model plans, as places among `items`, and their results."""

    def map(self, function: Callable[..., R], items: Iterable[T], *shared: object) -> Iterator[R]:
        """Yield `function(item, *shared)` for each item; only some items are held at once."""


class Loaded(Generic[Key]):
    """One loaded model. Asking for another unloads it first: two may not fit in memory."""

    def __init__(self, load: Callable[[Key], Model]) -> None:
        """Store how models are loaded."""
        self._load = load
        self._kept: dict[Key, Model] = {}

    def __getitem__(self, key: Key) -> Model:
        """Return the model, loaded if it is not the last one."""
        if key not in self._kept:
            self._kept.clear()
            gc.collect()
            self._kept[key] = self._load(key)
        return self._kept[key]


class Local:
    """This process."""

    wants_all = False

    def __init__(self) -> None:
        """Load nothing yet."""
        self._models = Loaded[ModelSpec](lambda spec: spec.load())

    def compute(self, spec: ModelSpec, items: Items) -> Iterator[tuple[Sequence[int], Values]]:
        """See `Engine`."""
        model = self._models[spec]
        for batch in log.progress(model.plan(items), unit="batch", desc=spec.kind.replace("_", " ")):
            yield batch, model.compute([items[place] for place in batch])

    def map(self, function: Callable[..., R], items: Iterable[T], *shared: object) -> Iterator[R]:
        """See `Engine`."""
        return (function(item, *shared) for item in items)


def in_turn(started: Iterable[T], most: int) -> Iterator[T]:
    """Yield jobs as they are started and in their order, each once so many more have been; the caller waits for it."""
    pending: deque[T] = deque()
    for job in started:
        pending.append(job)
        if len(pending) > most:
            yield pending.popleft()
    while pending:
        yield pending.popleft()


@contextmanager
def opened(params: ScoringParams) -> Iterator[Engine]:
    """Yield the engine that the params name, and leave its processes or the cluster afterwards.

    Raises:
        InputError: If Ray is not installed, or there is no cluster at the address.
    """
    if params.engine == "local":
        workers = params.workers or max(1, torch.cuda.device_count())
        if workers == 1:
            yield Local()
            return
        from anna import processes  # which imports this module

        with processes.Processes(workers) as where:
            yield where
        return
    if find_spec("ray") is None:
        raise InputError(
            "scoring.engine is ray, but Ray is not installed; run: pip install -e '.[ray]', or set scoring.engine to "
            "local"
        )
    from anna import cluster  # Ray is optional

    with cluster.joined(params.address):
        yield cluster.Ray(params.workers, params.gpus)


def fetch(engine: Engine, spec: ModelSpec, items: Items, counts: Counter[str], root: Path = store.ROOT) -> store.Parts:
    """Yield places in `items` and their results: those in the store first, then the rest, computed and stored.

    Args:
        engine: Where it is computed.
        spec: By what.
        items: Distinct.
        counts: Gets how many results were `reused` and how many `computed`.
        root: Folder of all stores.
    """
    return store.Store(spec.kind, spec.decisive, root).fetch(
        fingerprints.text_keys(items),
        lambda missing: engine.compute(spec, [items[place] for place in missing]),
        counts,
    )
