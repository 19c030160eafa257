"""What each part of the recipe is worth: the default without it, over several seeds.

Runs one DVC experiment per variant and seed in this workspace (minutes each, hours in all; teachers are not rerun) and
prints a Markdown table of mean and standard deviation. Afterwards `dvc exp show` lists the runs, and
`git checkout params.yaml && dvc repro` brings the committed one back from DVC's cache.

Usage: python -m benchmarks.ablation [--seeds 1 2 3] [--set train.max_steps=40 ...] [--only full ...]
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

METRICS = Path("metrics/mteb.json")

VARIANTS: dict[str, list[str]] = {
    "full": [],
    "without soft labels": ["train.kd_weight=0", "train.batch_kd_weight=0"],
    "soft labels of groups alone": ["train.batch_kd_weight=0"],
    "without margin filter": ["filter.rule=none"],
    "without hard negatives": ["filter.negatives_per_query=0", "filter.min_negatives=0"],
    "negatives not chained": ["train.chain_negatives=false"],
    "without examples": ["train.max_examples=0"],
    "last layer as pretrained": ["student.last_layer=pretrained"],
    "last layer not first": ["train.last_layer_first=null"],
}
"""What is set beside the default, by variant."""

COLUMNS = ("mean", "Retrieval", "Reranking", "STS", "Classification", "Clustering", "PairClassification")


def check_committed() -> None:
    """Refuse to start where params.yaml is not as committed: `run` goes back to the commit, so edits would be lost."""
    if subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "params.yaml"], check=False).returncode:
        raise SystemExit("params.yaml has uncommitted changes; commit them, or: git checkout HEAD params.yaml")


def run(settings: list[str]) -> dict[str, float]:
    """Run one experiment from the committed parameters and return the student's zero-shot scores."""
    # An experiment leaves its parameters in the workspace, where the next one would inherit them.
    subprocess.run(["git", "checkout", "--quiet", "--", "params.yaml"], check=True)
    changed = [part for setting in settings for part in ("--set-param", setting)]
    subprocess.run(["dvc", "exp", "run", *changed, "evaluate"], check=True)
    scores: dict[str, float] = json.loads(METRICS.read_text(encoding="utf-8"))["student"]
    return scores


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """Return mean ± standard deviation over the seeds, variants down and categories across."""
    lines = ["| | " + " | ".join(COLUMNS) + " |", "|---|" + "---|" * len(COLUMNS)]
    for variant, runs in results.items():
        cells = []
        for column in COLUMNS:
            values = [scores[column] for scores in runs if column in scores]
            spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.3f}{spread}" if values else "-")
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run every variant with every seed, seeds outermost, so that a stopped run has whole rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="set in every run")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    arguments = parser.parse_args()
    check_committed()
    results: dict[str, list[dict[str, float]]] = {variant: [] for variant in arguments.only}
    for seed in arguments.seeds:
        for variant in arguments.only:
            results[variant].append(run([f"train.seed={seed}", *arguments.set, *VARIANTS[variant]]))
            sys.stdout.write(f"{variant}, seed {seed}: {results[variant][-1]}\n")
            sys.stdout.flush()
    sys.stdout.write("\n" + table(results) + "\n")


if __name__ == "__main__":
    main()
