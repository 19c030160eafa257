"""Where teachers compute: in this process, or on a Ray cluster, with the same results to the last bit."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, TypeVar

from pydantic import Field

from anna import fingerprints, log, store
from anna.errors import InputError
from anna.params import Params
from anna.shards import Values

Items = Sequence[tuple[str, str]]
"""What a teacher gives one result each for: a prompt and the text after it, or a query and a passage."""

T = TypeVar("T")
R = TypeVar("R")


class ScoringParams(Params):
    """Where teachers compute: no part of what they give, and so no dependency of a stage for DVC."""

    section: ClassVar[str] = "scoring"

    engine: Literal["local", "ray"]
    """local: in the stage's process. ray: on a cluster."""
    address: str | None
    """Of the cluster's head, as host:port; auto: the one that this machine is part of; null: one is started here."""
    workers: int = Field(gt=0)
    """Models loaded, and searches run, at once, where the cluster has room for so many."""
    gpus: float = Field(ge=0)
    """GPUs of each model; 0: it computes on CPUs, as many as this machine would compute with."""


class Model(NamedTuple):
    """A loaded teacher."""

    plan: Callable[[Items], list[list[int]]]
    """From items to batches of places among them."""
    compute: Callable[[Items], Values]
    """From the items of a batch to their results, (N, D)."""


class Teacher:
    """How a teacher is loaded, and what decides its results; it can be sent to another machine until it is loaded."""

    def __init__(self, kind: str, describe: Callable[[], dict[str, Any]], load: Callable[[], Model]) -> None:
        """Ask what decides results here.

        Args:
            kind: Name of the teacher's part, for people.
            describe: Gives everything that decides a result beside the item, of the machine that it is called on.
            load: Gives the model.
        """
        self.kind, self.load = kind, load
        self.decisive, self._describe = describe(), describe

    @cached_property
    def model(self) -> Model:
        """The model, loaded in this process."""
        return self.load()

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
    """Runs teachers and searches; what it gives comes in order."""

    wants_all: bool
    """Whether loading models is so slow that they should be asked once, for everything."""

    def compute(self, teacher: Teacher, items: Items) -> Iterator[tuple[Sequence[int], Values]]:
        """Yield the batches that the teacher's model plans, as places among `items`, and their results."""

    def map(self, function: Callable[..., R], items: Iterable[T], *shared: object) -> Iterator[R]:
        """Yield `function(item, *shared)` for each item; some items only are held at once."""


class Local:
    """This process."""

    wants_all = False

    def compute(self, teacher: Teacher, items: Items) -> Iterator[tuple[Sequence[int], Values]]:
        """See `Engine`."""
        for batch in log.progress(teacher.model.plan(items), unit="batch", desc=teacher.kind.replace("_", " ")):
            yield batch, teacher.model.compute([items[place] for place in batch])

    def map(self, function: Callable[..., R], items: Iterable[T], *shared: object) -> Iterator[R]:
        """See `Engine`."""
        return (function(item, *shared) for item in items)


@contextmanager
def opened(params: ScoringParams) -> Iterator[Engine]:
    """Yield the engine that the params name, and leave the cluster afterwards.

    Raises:
        InputError: If Ray is not installed, or there is no cluster at the address.
    """
    if params.engine == "local":
        yield Local()
        return
    if find_spec("ray") is None:
        raise InputError(
            "scoring.engine is ray, but Ray is not installed; run: pip install -e '.[ray]', or set scoring.engine to "
            "local"
        )
    from anna.teachers import cluster  # Ray is optional

    with cluster.joined(params.address):
        yield cluster.Ray(params.workers, params.gpus)


def fetch(engine: Engine, teacher: Teacher, items: Items, counts: Counter[str], root: Path = store.ROOT) -> store.Parts:
    """Yield places in `items` and their results: those in the store first, then the rest, computed and stored.

    Args:
        engine: Where it is computed.
        teacher: By what.
        items: Distinct.
        counts: Gets how many results were `reused` and how many `computed`.
        root: Folder of all stores.
    """
    return store.Store(teacher.kind, teacher.decisive, root).fetch(
        fingerprints.text_keys(items),
        lambda missing: engine.compute(teacher, [items[place] for place in missing]),
        counts,
    )
