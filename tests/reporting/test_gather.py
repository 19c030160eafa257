"""The report's facts, and files that are not what their stage writes."""

from pathlib import Path

import pytest

from anna.errors import InputError
from anna.reporting.gather import Facts
from tests.reporting.conftest import HOSTILE, read_facts, write_run


def test_all_parts_of_a_run_are_read(facts: Facts) -> None:
    assert facts.tasks["student_with_examples"][HOSTILE]["metric"] == "accuracy"
    assert facts.means["bm25"] == {"Retrieval": 0.65312}
    assert len(facts.curve) == 96
    assert facts.curve.values["tokens_saved"].tolist() == [1200.0] * 96
    assert facts.validation.queries.tolist() == [1280.0, 2560.0, 3840.0, 5120.0]
    assert facts.validation.ndcg.tolist() == [0.875, 0.8875, 0.891667, 0.89375]
    assert facts.costs["train"]["seconds"] == 353.8
    assert {table.path: table.rows for table in facts.tables}["data/groups.parquet"] == 240
    assert facts.distributions.entropies.candidates.sum() == 240


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        (
            "metrics/training.csv",
            "step,loss\n1,2\n",
            r"training.csv has columns \['step', 'loss'\], expected \['step', 'que",
        ),
        ("metrics/training.csv", "", r"training.csv has columns \[\], expected"),
        (
            "metrics/validation.csv",
            "step\n",
            r"validation.csv has columns \['step'\], expected \['step', 'queries', 'nd",
        ),
        ("metrics/validation.csv", "step,queries,ndcg_at_10\n1,2\n", "validation.csv: line 2 has 2 values, expected 3"),
        ("metrics/validation.csv", "step,queries,ndcg_at_10\n1,2,x\n", "validation.csv: 'x' is not a number"),
        ("metrics/mteb_tasks.json", "[1]", "mteb_tasks.json holds list, expected a JSON object"),
        ("data/corpus.json", "{}", r"corpus.json has \[\], expected rows and fields"),
        ("metrics/cost/train.json", None, "train.json does not exist; make it with: dvc repro"),
        ("metrics/training.csv", None, "training.csv does not exist; make it with: dvc repro"),
    ],
)
def test_files_of_another_shape_are_refused(tmp_path: Path, path: str, content: str | None, message: str) -> None:
    write_run(tmp_path, num_queries=8)
    (tmp_path / path).unlink()
    if content is not None:
        (tmp_path / path).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_facts(tmp_path)
