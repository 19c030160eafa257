"""Where models compute: what every engine promises, on the local one, and what is refused before Ray is asked."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anna import engine
from anna.engine import Items, Local, Model, ModelSpec, ScoringParams
from anna.errors import InputError
from anna.processes import Processes
from anna.shards import Values
from anna.store import gather

ITEMS = [("a", "x"), ("b", "yyy"), ("c", "yy"), ("d", "")]


def lengths(items: Items) -> Values:
    return np.array([[len(first), len(second)] for first, second in items], dtype=np.float32)


def load_lengths() -> Model:
    return Model(plan=lambda items: [[1, 2], [0, 3]][: len(items) // 2], compute=lengths)


def describe(device: str = "cpu") -> dict[str, Any]:
    return {"model": "lengths", "device": device}


def refuse() -> Model:
    raise AssertionError("nothing is missing, so nothing is loaded")


def params(**changes: Any) -> ScoringParams:
    return ScoringParams.model_validate({"engine": "local", "address": None, "workers": None, "gpus": 0} | changes)


def test_batches_come_as_planned_with_their_results() -> None:
    found = list(Local().compute(ModelSpec("toy", describe, load_lengths), ITEMS))
    assert [batch for batch, _ in found] == [[1, 2], [0, 3]]
    assert [values.tolist() for _, values in found] == [[[1, 3], [1, 2]], [[1, 1], [1, 0]]]


def test_a_model_is_kept_until_another_is_wanted() -> None:
    loaded: list[str] = []

    def load(name: str) -> Model:
        loaded.append(name)
        return load_lengths()

    one, two = (ModelSpec(name, describe, partial(load, name)) for name in ("one", "two"))
    where = Local()
    for spec in (one, one, two, one):
        list(where.compute(spec, ITEMS))
    assert loaded == ["one", "two", "one"]


def test_map_is_in_order_and_takes_an_item_only_when_it_is_wanted() -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(3):
            taken.append(number)
            yield number

    found = Local().map(lambda item, shared: item + shared, numbers(), 10)
    assert next(found) == 10
    assert taken == [0]
    assert list(found) == [11, 12]


def test_what_is_stored_is_not_computed_and_needs_no_model(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    first = gather(engine.fetch(Local(), ModelSpec("toy", describe, load_lengths), ITEMS, counts, tmp_path), 4)
    assert counts == {"reused": 0, "computed": 4}
    again = gather(engine.fetch(Local(), ModelSpec("toy", describe, refuse), ITEMS[::-1], counts, tmp_path), 4)
    assert counts == {"reused": 4, "computed": 4}
    assert first.tolist() == again[::-1].tolist() == lengths(ITEMS).tolist()


def test_a_machine_that_would_give_other_results_is_refused() -> None:
    devices = iter(["cpu", "cpu", "cuda"])
    teacher = ModelSpec("toy", lambda: describe(next(devices)), load_lengths)
    assert teacher.decisive["device"] == "cpu"
    teacher.check()
    with pytest.raises(InputError, match="toy: a worker has device 'cuda', where the stage runs it is 'cpu'; run"):
        teacher.check()


def test_without_ray_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find: Callable[..., Any] = util.find_spec
    monkeypatch.setattr(engine, "find_spec", lambda name: None if name == "ray" else find(name))
    with (
        pytest.raises(InputError, match=r"Ray is not installed; run: pip install -e '.\[ray\]', or set scoring.engine"),
        engine.opened(params(engine="ray")),
    ):
        pass


@pytest.mark.parametrize(
    ("gpus", "workers", "expected"), [(0, None, 0), (1, None, 0), (3, None, 3), (3, 2, 2), (0, 2, 2)]
)
def test_locally_there_is_a_worker_for_each_gpu_unless_params_say_otherwise(
    gpus: int, workers: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with engine.opened(params(workers=workers)) as where:
        assert isinstance(where, Processes if expected else Local)
        assert getattr(where, "workers", 0) == expected


def test_on_this_machine_params_of_a_cluster_count_for_nothing() -> None:
    assert params(workers=3).here == params(workers=3)
    assert params(engine="ray", workers=30, gpus=1).here == params(workers=None, gpus=1)


@pytest.mark.parametrize("change", [{"engine": "dask"}, {"workers": 0}, {"gpus": -1}, {"actors": 3}])
def test_params_refuse_what_makes_no_sense(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        params(**change)
