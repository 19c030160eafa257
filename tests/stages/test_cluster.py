"""Both stages on a Ray of two workers, each with a worker killed in mid-run: the tables of the local engine."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from anna.engine import Model
from anna.teachers import dense, reranker
from anna.teachers.reranker import Kind
from stages import rerank, retrieve_dense
from tests.stages.test_kills import OUTPUTS, write_project
from tests.stages.test_processes import use
from tests.test_cluster import check_killed, cluster, kill_one, slowly

__all__ = ["cluster"]

LOADS = {"dense": dense._load, "reranker": reranker._load}


def load_slowly(module: str, log: Path, *args: Any, **limits: int) -> Model:
    """Load the model of one of the two modules so that it writes down its batches, and takes its time over each."""
    model = LOADS[module](*args, **limits)
    return model._replace(compute=slowly(log, model.compute))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cross_encoder", "query_likelihood"])
def test_tables_are_those_of_the_local_engine_to_the_byte(
    kind: Kind,
    cluster: Any,
    tmp_path: Path,
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path, kind, tiny_checkpoint)
    use("local", 1)
    counts = [retrieve_dense.main(), rerank.main()]
    expected = [path.read_bytes() for path in OUTPUTS]
    for path in OUTPUTS:
        path.unlink()
    shutil.rmtree("runs")
    use("ray", 2)
    for module, stage, count in zip((dense, reranker), (retrieve_dense, rerank), counts, strict=True):
        name = module.__name__.rsplit(".", maxsplit=1)[-1]
        log = tmp_path / f"log_{name}"
        log.mkdir()

        monkeypatch.setattr(module, "_load", partial(load_slowly, name, log))
        joined = kill_one(log)
        assert stage.main() == count
        joined()
        check_killed(log)
    assert [path.read_bytes() for path in OUTPUTS] == expected
    assert count["computed"] > 0
