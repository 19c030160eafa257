"""Both stages of teachers with two models in processes of their own: the tables of one process, to the byte."""

import shutil
from pathlib import Path

import pytest
import yaml

from stages import rerank, retrieve_dense
from tests.stages.test_kills import OUTPUTS, write_project


def use(engine: str, workers: int) -> None:
    """Choose the engine in params.yaml."""
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    params["scoring"] = {"engine": engine, "address": None, "workers": workers, "gpus": 0}
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


@pytest.mark.slow
def test_tables_are_those_of_one_process_to_the_byte(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path, "query_likelihood", tiny_checkpoint)
    made = []
    for workers in (1, 2):
        use("local", workers)
        counts = [retrieve_dense.main(), rerank.main()]
        assert all(count["computed"] for count in counts)
        made.append((counts, [path.read_bytes() for path in OUTPUTS]))
        shutil.rmtree("runs")
    assert made[0] == made[1]
