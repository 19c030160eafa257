"""Runs with other seeds and without parts: of these parameters, or none at all."""

from pathlib import Path
from typing import Any

import pytest

from anna.errors import InputError
from anna.reporting import ablation, page
from anna.reporting.ablation import DEFAULT

SECTIONS: dict[str, dict[str, Any]] = {name: {"of": name} for name in ablation.RECIPE}
SECTIONS["train"] = {"seed": 17, "epochs": 3}

RUNS = {
    DEFAULT: {17: {"mean": 0.5, "STS": 0.75}, 18: {"mean": 0.25}},
    "without a part": {18: {"mean": 0.5, "STS": 0.5}},
}


def test_runs_are_of_every_seed_and_of_no_other_parameters(tmp_path: Path) -> None:
    path = tmp_path / "ablation.json"
    assert ablation.read(path, SECTIONS) == {}
    ablation.write(path, SECTIONS, RUNS)
    other_seed = {**SECTIONS, "train": {"seed": 18, "epochs": 3}, "scoring": {"engine": "ray"}}
    assert ablation.read(path, SECTIONS) == ablation.read(path, other_seed) == RUNS
    for section in ablation.RECIPE:
        assert ablation.read(path, {**SECTIONS, section: {**SECTIONS[section], "epochs": 4}}) == {}


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"recipe": "", "runs": []}',
        '{"recipe": "", "runs": {"a": {"b": {}}}}',
        '{"recipe": "", "runs": {"a": {"17": {"mean": null}}}}',
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ablation.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"^\S*ablation\.json holds no runs by variant and seed; run: python -m bench"):
        ablation.read(path, SECTIONS)


def test_a_mean_has_its_spread_where_there_are_several_values() -> None:
    assert ablation.spread([0.5, 0.25]) == "0.375 ± 0.177"
    assert ablation.spread([0.5]) == "0.500"
    assert ablation.spread([]) == "–"  # noqa: RUF001


def test_a_difference_is_that_of_two_runs_of_one_seed() -> None:
    assert ablation.differences(RUNS, "mean") == {"without a part": [0.25]}
    assert ablation.differences(RUNS, "STS") == {"without a part": []}, "the default has no STS with this seed"
    assert ablation.differences({}, "mean") == {}


def test_the_page_has_a_column_for_each_seed_and_a_row_for_each_score_that_any_has() -> None:
    grid = page.seeds(RUNS[DEFAULT])
    assert grid.head == ["mean ± sd", "seed 17", "seed 18"]
    assert grid.rows == [
        ("mean", ["0.375 ± 0.177", "0.500", "0.250"]),
        ("STS", ["0.750", "0.750", "–"]),  # noqa: RUF001
    ]
    assert page.seeds({}).rows == []
