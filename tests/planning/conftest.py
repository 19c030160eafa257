"""The committed run of the default, on the machine that its costs were measured on."""

from pathlib import Path

import pytest
import yaml

from anna import check
from anna.footprint import GIB
from anna.planning.case import Case, Estimate
from anna.planning.estimates import estimate
from anna.planning.hardware import Hardware, cpu_rate
from anna.planning.plan import make_case
from anna.planning.settings import Settings

REPO = Path(__file__).parents[2]

MEASURED_ON = Hardware("two cores", 1, 23.5 * GIB, cpu_rate(366e9), False, "measured after the run", 2)
"""What the stages of metrics/cost/ ran on: the rate changes from night to night, and is to be measured with them."""


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A file with the params of the committed run, as dvc.lock has them: params.yaml may be ahead of it."""
    stages = yaml.safe_load((REPO / "dvc.lock").read_text(encoding="utf-8"))["stages"].values()
    sections = yaml.safe_load((REPO / "params.yaml").read_text(encoding="utf-8"))
    for stage in stages:
        sections |= stage.get("params", {}).get("params.yaml", {})
    path = tmp_path / "recorded.yaml"
    path.write_text(yaml.safe_dump(sections), encoding="utf-8")
    return path


def read_settings(path: Path) -> Settings:
    """Return what a plan reads of a file that may ask for models and data which are not here."""
    return Settings.of({cls.section: cls.load(path) for cls in check.sections()})


@pytest.fixture
def default(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.chdir(REPO)
    return make_case(read_settings(recorded), recorded, MEASURED_ON, {})


@pytest.fixture
def estimates(default: Case) -> dict[str, Estimate]:
    return {one.stage: one for one in estimate(default)}
