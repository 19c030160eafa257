"""A case of the default on the machine that its costs were measured on."""

from pathlib import Path

import pytest

from anna.footprint import GIB
from anna.planning.estimates import Case, Estimate, estimate
from anna.planning.hardware import CPU_SHARE, Hardware
from anna.planning.plan import make_case

REPO = Path(__file__).parents[2]

MEASURED_ON = Hardware("two cores", 1, 23.5 * GIB, CPU_SHARE * 115e9, False, "docs/LOG.md: 108 to 131 GFLOP/s")


@pytest.fixture
def default(monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.chdir(REPO)
    return make_case(Path("params.yaml"), MEASURED_ON, {})


@pytest.fixture
def estimates(default: Case) -> dict[str, Estimate]:
    return {one.stage: one for one in estimate(default)}
