"""The stages label and filter on disk: what they read, write and refuse."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from anna import io, schemas
from anna.errors import InputError
from anna.teachers.filtering import FilterParams
from stages import filter as filter_stage
from stages import label, retrieve_bm25
from tests.teachers.conftest import make_toy, table
from tests.teachers.test_labelling import DENSE, RERANKER

PARAMS: dict[str, Any] = {
    "retrieve_bm25": {"k1": 1.5, "b": 0.75, "depth": 10},
    "label": {
        "weights": {"bm25": 0.5, "dense": 1.0, "reranker": 1.0},
        "teacher_temperature": 1.0,
        "min_entropy_share": 0.02,
        "max_entropy_share": 0.98,
    },
    "filter": {
        "rule": "none",
        "margin": 0.05,
        "background_quantile": 0.1,
        "positives_per_query": 1,
        "negatives_per_query": 2,
        "min_negatives": 1,
        "max_positive_rank": None,
        "relabel_margin": None,
    },
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with the tables of the toy collection."""
    monkeypatch.chdir(tmp_path)
    write_params()
    toy = make_toy()
    io.write(label.CORPUS, toy.corpus, schemas.CORPUS)
    io.write(label.QUERIES, toy.queries, schemas.QUERIES)
    io.write(label.QRELS, toy.qrels, schemas.QRELS)
    io.write(label.DENSE_RUN, table(schemas.RUN, DENSE), schemas.RUN)
    io.write(label.RERANKER_RUN, table(schemas.RUN, RERANKER), schemas.RUN)
    return tmp_path


def write_params(**changed: Any) -> None:
    sections = {name: section | changed.get(name, {}) for name, section in PARAMS.items()}
    Path("params.yaml").write_text(yaml.safe_dump(sections), encoding="utf-8")


def test_from_retrieval_to_groups_twice_with_the_same_bytes(project: Path) -> None:
    outputs = [*retrieve_bm25.OUTPUTS, *label.OUTPUTS, *filter_stage.OUTPUTS]
    contents = []
    for _ in range(2):
        for stage in (retrieve_bm25, label, filter_stage):
            stage.main()
        contents.append([path.read_bytes() for path in outputs])
    assert contents[0] == contents[1]
    assert pq.read_metadata(filter_stage.GROUPS).num_rows == io.read_json(filter_stage.METRICS)["groups"] > 0


def test_relabelling_reads_the_reranker_and_is_said_beside_the_tables(project: Path) -> None:
    retrieve_bm25.main()
    label.main()
    filter_stage.main()
    before = io.read_json(io.sidecar(filter_stage.DROPS))
    assert "relabel_margin" not in before
    reranked = [("A:q:1", 1, "A:d:5", -1.0), ("A:q:1", 2, "A:d:1", -2.0)]
    io.write(label.RERANKER_RUN, table(schemas.RUN, reranked), schemas.RUN)
    write_params(filter={"relabel_margin": 0.5})
    filter_stage.main()
    said = io.read_json(io.sidecar(filter_stage.DROPS))
    assert {key: said[key] for key in said.keys() - before.keys()} == {"relabel_margin": 0.5}
    assert io.read_json(filter_stage.METRICS)["drops"]["relabelled"] == 1
    relabelled = [
        row for row in io.read(filter_stage.DROPS, schemas.DROPS).to_pylist() if row["reason"] == "relabelled"
    ]
    assert [(row["query_id"], row["doc_id"]) for row in relabelled] == [("A:q:1", "A:d:5")]
    write_params(filter={"relabel_margin": -0.5})
    with pytest.raises(InputError, match=r"filter.relabel_margin: got -0.5"):
        filter_stage.main()


def test_one_hot_labels_leave_nothing_behind(project: Path) -> None:
    retrieve_bm25.main()
    write_params(label={"teacher_temperature": 1e-4, "min_entropy_share": 0.5})
    with pytest.raises(InputError, match="nearly one-hot"):
        label.main()
    assert not label.LABELS.exists()
    assert not label.METRICS.exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"min_negatives": 3}, "filter: .*min_negatives 3 is above negatives_per_query 2"),
        ({"margin": 2.0}, "filter: .*margin 2.0 of rule adaptive is a share"),
        ({"rule": "adaptiv"}, "filter.rule: got 'adaptiv'"),
    ],
)
def test_filter_params_that_disagree_are_refused(project: Path, changed: dict[str, Any], message: str) -> None:
    write_params(filter={"rule": "adaptive"} | changed)
    with pytest.raises(InputError, match=message):
        FilterParams.load()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weights": {"bm25": 0, "dense": 0, "reranker": 1}}, "bm25 and dense are both 0"),
        ({"min_entropy_share": 0.99}, "min_entropy_share is above max_entropy_share"),
        ({"teacher_temperature": 0}, "label.teacher_temperature: got 0"),
    ],
)
def test_label_params_that_disagree_are_refused(project: Path, changed: dict[str, Any], message: str) -> None:
    write_params(label=changed)
    with pytest.raises(InputError, match=message):
        label.LabelParams.load()
