"""Runs of these parameters with other seeds, and without one part of the recipe: what is chance, and what a part adds.

`benchmarks.ablation` makes them; here is what a run's own report shows of them.
"""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anna import fingerprints, io
from anna.errors import InputError
from anna.params import SECTIONS
from anna.reporting.style import MISSING
from anna.scores import CATEGORIES

DEFAULT = "the default"
"""The variant that leaves nothing out."""

COLUMNS = ("mean", *CATEGORIES, "mean with examples")
"""What is kept of a run's scores, where it has them."""

RECIPE = tuple(section for section in SECTIONS if section != "scoring")
"""Sections of params that decide the scores, all but train.seed."""

Scores = Mapping[str, float]
"""Of the student in one run, by column."""

Runs = Mapping[str, Mapping[int, Scores]]
"""By variant and seed."""


def recipe_hash(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a hash of the parameters that runs of other seeds have in common."""
    train = {key: value for key, value in sections["train"].items() if key != "seed"}
    return fingerprints.fingerprint({name: sections[name] for name in RECIPE} | {"train": train})


def write(path: Path, sections: Mapping[str, Mapping[str, Any]], runs: Runs) -> None:
    """Write the runs of these parameters, in place of what was there."""
    io.write_json(path, {"recipe": recipe_hash(sections), "runs": runs})


def read(path: Path, sections: Mapping[str, Mapping[str, Any]]) -> Runs:
    """Return the runs of these parameters; none where the file's are of others, or there is none.

    Raises:
        InputError: If it is no file of such runs.
    """
    if not path.is_file():
        return {}
    told = io.read_json(path, remedy="run: python -m benchmarks.ablation")
    try:
        runs = {
            variant: {int(seed): {name: float(score) for name, score in scores.items()} for seed, scores in own.items()}
            for variant, own in told["runs"].items()
        }
        return runs if told["recipe"] == recipe_hash(sections) else {}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} holds no runs by variant and seed; run: python -m benchmarks.ablation") from error


def spread(values: Sequence[float]) -> str:
    """Return mean ± standard deviation, the mean alone of a single value, or a dash; to three decimals."""
    if not values:
        return MISSING
    return f"{statistics.mean(values):.3f}" + (f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else "")


def of_seeds(runs: Mapping[int, Scores], column: str) -> list[float]:
    """Return what the seeds have in a column, those without it left out."""
    return [scores[column] for scores in runs.values() if column in scores]


def differences(runs: Runs, column: str) -> dict[str, list[float]]:
    """Return, by variant, what each seed's run has less the default's with the same seed, in the order of seeds."""
    base = runs.get(DEFAULT, {})
    return {
        variant: [
            scores[column] - base[seed][column]
            for seed, scores in own.items()
            if column in scores and column in base.get(seed, {})
        ]
        for variant, own in runs.items()
        if variant != DEFAULT
    }
