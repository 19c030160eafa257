"""The plan of the committed default against what its committed run took. Nothing is timed here."""

import json
from pathlib import Path

import pytest

from anna.planning import counts
from anna.planning.case import Case, Estimate
from anna.planning.estimates import estimate
from anna.planning.plan import make_case
from tests.planning.conftest import MEASURED_ON, REPO, read_settings


def cost(stage: str) -> dict[str, float]:
    read: dict[str, float] = json.loads((REPO / f"metrics/cost/{stage}.json").read_text(encoding="utf-8"))
    return read


def test_training_takes_what_it_took(default: Case, estimates: dict[str, Estimate]) -> None:
    train, measured = estimates["train"], cost("train")
    assert train.seconds == pytest.approx(measured["seconds"], rel=0.25)
    assert train.memory / 2**20 == pytest.approx(measured["peak_memory_mib"], rel=0.15)
    done = json.loads((REPO / "metrics/train.json").read_text(encoding="utf-8"))
    assert train.tokens == pytest.approx(done["tokens"], rel=0.15)
    assert int(train.note.split()[0]) == pytest.approx(done["steps"], abs=3)
    assert sum(task.groups for task in default.counts.tasks) == pytest.approx(done["groups"], rel=0.02)


@pytest.mark.parametrize("stage", ["retrieve_dense", "rerank", "train", "evaluate"])
def test_stages_that_mostly_compute_take_what_they_took(
    stage: str, default: Case, estimates: dict[str, Estimate]
) -> None:
    # Without the tables (DVC's, so a clean checkout has none) lengths of texts are assumed, and no stage is far off.
    rel = 0.25 if default.counts.basis == "the tables of the last run" else 0.5
    assert estimates[stage].seconds == pytest.approx(cost(stage)["seconds"], rel=rel)


def test_the_whole_takes_what_it_took(estimates: dict[str, Estimate]) -> None:
    measured = sum(cost(stage)["seconds"] for stage in estimates)
    assert sum(one.seconds for one in estimates.values()) == pytest.approx(measured, rel=0.2)


def test_memory_is_what_it_was(estimates: dict[str, Estimate]) -> None:
    for stage, one in estimates.items():
        assert one.memory / 2**20 == pytest.approx(cost(stage)["peak_memory_mib"], rel=0.15), stage


def test_reranked_pairs_are_counted_as_they_were(estimates: dict[str, Estimate]) -> None:
    assert int(estimates["rerank"].note.split()[0]) == pytest.approx(cost("rerank")["computed"], rel=0.02)


def test_before_anything_has_run_it_is_not_far_off(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")  # no tables, no models, no lock
    case = make_case(read_settings(recorded), recorded, MEASURED_ON, {})
    assert case.counts.basis.startswith("params alone")
    assert case.counts.assumed == ()
    found = {one.stage: one for one in estimate(case)}
    assert found["train"].seconds == pytest.approx(cost("train")["seconds"], rel=0.25)
    assert found["train"].memory / 2**20 == pytest.approx(cost("train")["peak_memory_mib"], rel=0.25)
    assert list(Path.cwd().iterdir()) == []


def test_tables_of_other_sources_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPO)
    params = Path("presets/smoke.yaml")
    smoke = make_case(read_settings(params), params, MEASURED_ON, {})
    assert smoke.counts.basis.startswith("params alone")
    assert {task.name: task.queries for task in smoke.counts.tasks}["BoolQ"] == round(120 * counts.KEPT["retrieval"][0])
