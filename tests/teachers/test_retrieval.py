"""Dense retrieval on a tiny random model: within tasks, exact, and by index where collections are large."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from anna import io, schemas
from anna.engine import Items, Local, ModelSpec
from anna.errors import InputError
from anna.teachers import retrieval, vectors
from anna.teachers.dense import DenseParams, DenseTeacher, IndexParams
from tests.teachers.conftest import Toy, table
from tests.teachers.models import DENSE, INDEX, WORDS, save_bi_encoder


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bi_encoder(tmp_path_factory.mktemp("dense"))


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def retrieve(toy: Toy, model: Path, depth: int = 99, **index: Any) -> tuple[pa.Table, pa.Table, dict[str, float]]:
    section = DENSE | {"model": {"kind": "files", "path": model}, "depth": depth, "index": INDEX | index}
    teacher = DenseTeacher(DenseParams.model_validate(section), Counter(), Local())
    found = retrieval.retrieve(toy.corpus, toy.queries, teacher)
    return found.run, pa.concat_tables(found.vectors), found.recalls


def large(num_docs: int) -> Toy:
    """Return a task of many documents, all different."""
    rng = np.random.default_rng(0)
    texts = list(dict.fromkeys(" ".join(rng.choice(WORDS, size=4)) for _ in range(2 * num_docs)))[:num_docs]
    corpus = table(schemas.CORPUS, [(f"A:d:{place:04}", "A", text, None) for place, text in enumerate(texts)])
    rows = [(f"A:q:{n:02}", "A", "retrieval", "train", " ".join(rng.choice(WORDS, size=3)), None) for n in range(20)]
    return Toy(corpus, table(schemas.QUERIES, rows), schemas.QRELS.empty_table())


def test_run_is_ranked_within_the_task_and_vectors_are_those_of_all_texts(model_path: Path, toy: Toy) -> None:
    run, found, recalls = retrieve(toy, model_path)
    assert run["query_id"].to_pylist() == ["A:q:1"] * 5 + ["A:q:2"] * 5 + ["B:q:1"] * 3
    assert run["rank"].to_pylist() == [1, 2, 3, 4, 5] * 2 + [1, 2, 3]
    scores = np.array(run["score"].to_pylist()[:5])
    assert (np.diff(scores) <= 0).all()
    assert found["id"].to_pylist() == sorted(toy.corpus["doc_id"].to_pylist() + toy.queries["query_id"].to_pylist())
    rows = dict(zip(found["id"].to_pylist(), np.array(found["vector"].to_pylist()), strict=True))
    for row in run.to_pylist():
        assert row["score"] == pytest.approx(rows[row["query_id"]] @ rows[row["doc_id"]], abs=1e-6)
    assert recalls == {}
    assert run.equals(retrieve(toy, model_path)[0])


def test_small_blocks_and_parts_give_the_same_tables(
    model_path: Path, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, found, _ = retrieve(toy, model_path)
    monkeypatch.setattr(vectors.VectorFile.blocks, "__defaults__", (16 * 4 * 2,))
    monkeypatch.setattr(io, "ROW_GROUP_SIZE", 3)
    again, parts, _ = retrieve(toy, model_path)
    assert again.equals(run)
    assert parts.equals(found)
    assert parts["vector"].num_chunks == 4


def test_large_collections_are_searched_by_index_and_its_recall_is_measured(model_path: Path) -> None:
    toy = large(400)
    exact, _, none = retrieve(toy, model_path, depth=5, min_docs=401)
    assert none == {}
    found, _, recalls = retrieve(toy, model_path, depth=5, min_docs=400, nprobe=4, rescore=400)
    assert recalls == {"A": 1.0}  # all lists, all candidates
    assert found.equals(exact)
    some, _, recalls = retrieve(toy, model_path, depth=5, min_docs=400, nprobe=1, rescore=10, sample=20)
    both = set(zip(some["query_id"].to_pylist(), some["doc_id"].to_pylist(), strict=True))
    wanted = set(zip(exact["query_id"].to_pylist(), exact["doc_id"].to_pylist(), strict=True))
    assert recalls == {"A": pytest.approx(len(both & wanted) / len(wanted))}
    assert 0.5 <= recalls["A"] < 1


def test_an_index_that_finds_too_little_is_refused(model_path: Path) -> None:
    expected = (
        r"task 'A': the index finds 0\.\d+ of the best 5 documents, retrieve_dense.index.min_recall is 0.999; raise "
        r"retrieve_dense.index.nprobe, .rescore or .m"
    )
    with pytest.raises(InputError, match=expected):
        retrieve(large(400), model_path, depth=5, min_docs=400, nprobe=1, rescore=6, min_recall=0.999)


def test_index_params_refuse_what_makes_no_sense() -> None:
    for change in ({"nprobe": 0}, {"min_recall": 1.5}, {"m": 0}, {"kind": "hnsw"}):
        with pytest.raises(ValueError, match=next(iter(change))):
            IndexParams.model_validate(INDEX | change)


class Remote(Local):
    """An engine that wants everything at once, like a cluster."""

    wants_all = True

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def compute(self, teacher: ModelSpec, items: Items) -> Iterator[Any]:
        self.asked.append(len(items))
        return super().compute(teacher, items)


def test_an_engine_that_wants_all_is_asked_once_and_gives_the_same_tables_and_counts(
    tmp_path: Path, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = save_bi_encoder(tmp_path / "dense")
    settings = DenseParams.model_validate(DENSE | {"model": {"kind": "files", "path": model}})

    def retrieve(where: Local, root: str, prompt: str) -> tuple[pa.Table, pa.Table, Counter[str]]:
        counts: Counter[str] = Counter()
        params = settings.model_copy(update={"query_prompt": prompt})
        found = retrieval.retrieve(toy.corpus, toy.queries, DenseTeacher(params, counts, where, tmp_path / root))
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
