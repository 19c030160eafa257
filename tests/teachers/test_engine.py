"""Where teachers compute: what every engine promises, on the local one, and what is refused before Ray is asked."""

from collections import Counter
from collections.abc import Callable, Iterator
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from anna.errors import InputError
from anna.shards import Values
from anna.store import gather
from anna.teachers import engine, retrieval
from anna.teachers.dense import DenseParams, DenseTeacher
from anna.teachers.engine import Items, Local, Model, ScoringParams, Teacher
from tests.teachers.conftest import Toy
from tests.teachers.models import FLOAT32, INDEX, save_bi_encoder

ITEMS = [("a", "x"), ("b", "yyy"), ("c", "yy"), ("d", "")]


def lengths(items: Items) -> Values:
    return np.array([[len(first), len(second)] for first, second in items], dtype=np.float32)


def load_lengths() -> Model:
    return Model(plan=lambda items: [[1, 2], [0, 3]][: len(items) // 2], compute=lengths)


def describe(device: str = "cpu") -> dict[str, Any]:
    return {"model": "lengths", "device": device}


def refuse() -> Model:
    raise AssertionError("nothing is missing, so nothing is loaded")


class Remote(Local):
    """An engine that wants everything at once, like a cluster."""

    wants_all = True

    def __init__(self) -> None:
        self.asked: list[int] = []

    def compute(self, teacher: Teacher, items: Items) -> Iterator[Any]:
        self.asked.append(len(items))
        return super().compute(teacher, items)


def params(**changes: Any) -> ScoringParams:
    return ScoringParams.model_validate({"engine": "local", "address": None, "workers": 2, "gpus": 0} | changes)


def test_batches_come_as_planned_with_their_results() -> None:
    found = list(Local().compute(Teacher("toy", describe, load_lengths), ITEMS))
    assert [batch for batch, _ in found] == [[1, 2], [0, 3]]
    assert [values.tolist() for _, values in found] == [[[1, 3], [1, 2]], [[1, 1], [1, 0]]]


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
    first = gather(engine.fetch(Local(), Teacher("toy", describe, load_lengths), ITEMS, counts, tmp_path), 4)
    assert counts == {"reused": 0, "computed": 4}
    again = gather(engine.fetch(Local(), Teacher("toy", describe, refuse), ITEMS[::-1], counts, tmp_path), 4)
    assert counts == {"reused": 4, "computed": 4}
    assert first.tolist() == again[::-1].tolist() == lengths(ITEMS).tolist()


def test_a_machine_that_would_give_other_results_is_refused() -> None:
    devices = iter(["cpu", "cpu", "cuda"])
    teacher = Teacher("toy", lambda: describe(next(devices)), load_lengths)
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
    with engine.opened(params()) as where:
        assert isinstance(where, Local)


@pytest.mark.parametrize("change", [{"engine": "dask"}, {"workers": 0}, {"gpus": -1}, {"actors": 3}])
def test_params_refuse_what_makes_no_sense(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        params(**change)


def test_an_engine_that_wants_all_is_asked_once_and_gives_the_same_tables_and_counts(
    tmp_path: Path, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = save_bi_encoder(tmp_path / "dense")
    section = {"model": {"kind": "files", "path": model}, "query_prompt": "", "max_tokens": 16, "depth": 3}
    settings = DenseParams.model_validate(section | {"index": INDEX} | FLOAT32)

    def retrieve(where: Local, root: str, prompt: str) -> tuple[pa.Table, pa.Table, Counter[str]]:
        counts: Counter[str] = Counter()
        found = retrieval.retrieve(
            toy.corpus,
            toy.queries,
            DenseTeacher(settings, counts, tmp_path / root, where),
            query_prompt=prompt,
            doc_prompt="",
            depth=3,
            index=settings.index,
        )
        return found.run, pa.concat_tables(found.vectors), counts

    for number, prompt in enumerate(["", "the river "]):
        where = Remote()
        expected = retrieve(Local(), f"local{number}", prompt)
        assert expected[2]["computed"] == 11
        assert retrieve(where, f"remote{number}", prompt) == expected
        assert where.asked == [11]
        again = retrieve(where, f"remote{number}", prompt)
        assert again == (*expected[:2], {"reused": 11, "computed": 0})
        assert where.asked == [11]
