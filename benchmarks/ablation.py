"""What each part of the recipe is worth: the default without it, over several seeds.

Each variant and seed is run in a copy of the project, from the tables that `make repro` left in DVC's cache, so that no
teacher is run again: minutes each, hours in all. The project's own parameters and results stay as they are. Scores are
kept in `runs/ablation`, and a run that was stopped goes on behind the last one. At the end two Markdown tables: mean
and standard deviation over the seeds, and what each seed differs by from the default with the same seed. Without --set
they go into `benchmarks/ablation.json`, too, in place of what it had, from which the report draws them.

Usage: python -m benchmarks.ablation [--seeds 17 18 19] [--jobs 2] [--set train.max_steps=40 ...] [--only "the default"]
"""

import argparse
import copy
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from anna import fingerprints, io
from anna.errors import InputError
from anna.machine import num_cpus
from anna.origins import sha256
from anna.params import SECTIONS, recorded
from anna.reporting import ablation
from anna.reporting.ablation import COLUMNS, DEFAULT, Runs, Scores
from benchmarks.workspace import REPO, copy_project, project_files

FOLDER, KEPT = REPO / "runs" / "ablation", REPO / "benchmarks" / "ablation.json"

VARIANTS: dict[str, list[str]] = {
    DEFAULT: [],
    "without soft labels": ["train.kd_weight=0", "train.batch_kd_weight=0"],
    "soft labels of groups alone": ["train.batch_kd_weight=0"],
    "without hard negatives": ["filter.negatives_per_query=0", "filter.min_negatives=0"],
    "one positive a query": ["filter.positives_per_query=1"],
    "hard negatives not chained": ["train.chain_negatives=false"],
    "without margin filter": ["filter.rule=none"],
    "without examples in training": ["train.max_examples=0"],
    "last layer begins as pretrained": ["student.last_layer=pretrained"],
    "last layer not trained first": ["train.last_layer_first=null"],
}
"""What is set beside the default, by variant."""


def changed(params: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Return `params` with each `section.key=value` set, the value as YAML.

    Raises:
        InputError: If there is no such key.
    """
    tree = copy.deepcopy(dict(params))
    for setting in settings:
        dotted, _, value = setting.partition("=")
        *sections, key = dotted.split(".")
        place = tree
        for section in sections:
            place = place.get(section) or {}
        if key not in place:
            raise InputError(f"{setting}: params.yaml has no {dotted}")
        place[key] = yaml.safe_load(value)
    return tree


def run(name: str, params: Mapping[str, Any], threads: int) -> Scores:
    """Return the student's scores with these parameters: those kept of an earlier run, or else of one in a copy."""
    code = {str(path): sha256(REPO / path) for path in project_files() if path.parts[0] in {"anna", "stages"}}
    kept = FOLDER / f"{name}-{fingerprints.fingerprint({'params': params, 'code': code})[:12]}.json"
    if not kept.exists():
        folder = FOLDER / name
        copy_project(folder, shared=("inputs", "store", "mteb"))
        (folder / "params.yaml").write_text(yaml.safe_dump(dict(params)), encoding="utf-8")
        (folder / ".dvc" / "config.local").write_text(
            f"[cache]\n    dir = {REPO / '.dvc' / 'cache'}\n", encoding="utf-8"
        )
        env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        with kept.with_suffix(".log").open("w", encoding="utf-8") as log:
            # What is tried is not for the project's cache: hundreds of megabytes each.
            commands = "dvc checkout --with-deps filter", "dvc repro --no-commit evaluate"
            for command in map(str.split, commands):
                if subprocess.run(command, cwd=folder, check=False, stdout=log, stderr=log, env=env).returncode:
                    raise InputError(f"{name}: {' '.join(command)} failed in {folder}; see {log.name}")
        io.write_json(kept, read_scores(folder / "metrics" / "mteb.json"))
    scores: Scores = json.loads(kept.read_text(encoding="utf-8"))
    return scores


def read_scores(path: Path) -> Scores:
    """Return the scores of a run by column."""
    metrics = json.loads(path.read_text(encoding="utf-8"))
    with_examples = metrics.get("student_with_examples", {})
    return {**metrics["student"], **{f"{name} with examples": score for name, score in with_examples.items()}}


def means(runs: Runs) -> str:
    """Return mean ± standard deviation over the seeds, variants down and columns across."""
    rows = [
        [variant, str(len(own)), *(ablation.spread(ablation.of_seeds(own, name)) for name in COLUMNS)]
        for variant, own in runs.items()
    ]
    return markdown(["", "seeds", *COLUMNS], rows)


def differences(runs: Runs) -> str:
    """Return what each seed of a variant differs by from the default's, in the order of the seeds."""
    by_column = [ablation.differences(runs, name) for name in COLUMNS]
    rows = [
        [variant, *(", ".join(f"{value:+.3f}" for value in found[variant]) for found in by_column)]
        for variant in runs
        if variant != DEFAULT
    ]
    return markdown(["", *COLUMNS], rows)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def main() -> None:
    """Run every variant with every seed, seeds outermost, so that a stopped run has whole rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[17, 18, 19])
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, each with its share of the cores")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="set in every run")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="VARIANT")
    arguments = parser.parse_args()
    base = {section: recorded(section).load(REPO / "params.yaml").values() for section in SECTIONS}
    # The student alone: its baselines are the same in every run.
    always = ["evaluate.baselines=[]", *arguments.set]
    planned = [
        (variant, seed, changed(base, [*always, f"train.seed={seed}", *VARIANTS[variant]]))
        for seed in arguments.seeds
        for variant in dict.fromkeys([DEFAULT, *arguments.only])
    ]
    results: dict[str, dict[int, Scores]] = {variant: {} for variant, _, _ in planned}
    FOLDER.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        start = partial(run, threads=max(1, num_cpus() // arguments.jobs))
        names = [f"{variant.replace(' ', '-')}-{seed}" for variant, seed, _ in planned]
        found = pool.map(start, names, [params for *_, params in planned])
        for (variant, seed, _), scores in zip(planned, found, strict=True):
            results[variant][seed] = scores
            sys.stdout.write(f"{variant}, seed {seed}: {json.dumps(scores)}\n")
            sys.stdout.flush()
    sys.stdout.write(f"\n{means(results)}\n\nEach seed less the default's:\n\n{differences(results)}\n")
    if not arguments.set:
        ablation.write(KEPT, base, results)
        sys.stdout.write(f"\n{KEPT.relative_to(REPO)} has them, for the report: dvc repro report\n")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"benchmarks.ablation: {error}")
