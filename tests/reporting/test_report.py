"""The stage: from the files of a finished run to page and plots."""

import logging
from pathlib import Path

import pytest

from anna.errors import InputError
from anna.params import STAGES
from stages import report


def test_the_stage_writes_page_and_plots_and_logs_the_result(
    finished_run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = Path("reports/mteb/task.json")
    other.parent.mkdir(parents=True)
    other.write_text("{}", encoding="utf-8")
    with caplog.at_level(logging.INFO):
        report.main()
    assert other.is_file(), "what other stages left in reports/ stays"
    first = {path.name: path.read_bytes() for path in Path("reports").rglob("*") if path.is_file()}
    assert "index.html" in first
    assert "scores.svg" in first
    assert "scores.png" in first
    page = report.REPORT.read_text(encoding="utf-8")
    assert 'aria-label="What each margin would keep"' in page
    assert "margins.svg" in first
    assert "Retrieval" in report.TABLE.read_text(encoding="utf-8")
    assert caplog.messages[-1] == "report: reports/index.html"
    report.main()
    assert {path.name: path.read_bytes() for path in Path("reports").rglob("*") if path.is_file()} == first


def test_a_missing_input_leaves_the_old_report(finished_run: Path) -> None:
    report.REPORT.parent.mkdir()
    report.REPORT.write_text("old", encoding="utf-8")
    report.FILES.tasks.unlink()
    with pytest.raises(InputError, match=r"metrics/mteb_tasks.json does not exist; make it with: dvc repro"):
        report.main()
    assert report.REPORT.read_text(encoding="utf-8") == "old"
    assert not report.PLOTS.exists()


def test_costs_cover_every_stage_before() -> None:
    assert tuple(path.stem for path in report.FILES.costs) == STAGES[:-1]
