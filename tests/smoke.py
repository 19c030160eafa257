"""Run the pipeline in a copy of the project, and compare its metrics with the committed ones.

`python -m tests.smoke` runs presets/smoke.yaml, with `--update` to write presets/smoke_metrics.json instead;
`python -m tests.smoke --default` runs params.yaml.
"""

import json
import os
import shutil
import subprocess
import sys

from benchmarks.workspace import REPO, copy_project

COPY = REPO / "runs" / "smoke"
COMMITTED = {
    "presets/smoke.yaml": REPO / "presets" / "smoke_metrics.json",
    "params.yaml": REPO / "metrics" / "mteb.json",
}

TOLERANCE = 0.02
"""Largest difference of a score. On one machine two runs are equal; another CPU sums in another order, which after
some training steps on tasks of a few dozen rows moves scores by up to about 0.01."""


def copy_with(params: str) -> None:
    """Make a copy of the project that has run nothing yet, with the file as its params."""
    copy_project(COPY, without={"data", "metrics", "models", "reports", "dvc.lock"})
    shutil.copy2(REPO / params, COPY / "params.yaml")


def flatten(tree: dict[str, object], prefix: str = "") -> dict[str, float]:
    """Return nested metrics as dotted names."""
    flat: dict[str, float] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            flat[prefix + name] = float(value)
    return flat


def main() -> int:
    """Run, compare, say what differs; return 1 if anything does."""
    params = "params.yaml" if "--default" in sys.argv else "presets/smoke.yaml"
    copy_with(params)
    on_cpu = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}  # as the committed metrics were made
    subprocess.run(["dvc", "repro"], cwd=COPY, check=True, env=on_cpu)
    got = json.loads((COPY / "metrics" / "mteb.json").read_text(encoding="utf-8"))
    if "--update" in sys.argv:
        COMMITTED[params].write_text(json.dumps(got, indent=2) + "\n", encoding="utf-8")
        return 0
    expected = flatten(json.loads(COMMITTED[params].read_text(encoding="utf-8")))
    ours = flatten(got)
    failed = 0
    sys.stdout.write(f"{'metric':<40}{'committed':>10}{'now':>10}\n")
    for name in sorted(expected.keys() | ours.keys()):
        before, now = expected.get(name), ours.get(name)
        is_off = before is None or now is None or abs(before - now) > TOLERANCE
        failed += is_off
        sys.stdout.write(f"{name:<40}{before!s:>10}{now!s:>10}{'  DIFFERS' if is_off else ''}\n")
    sys.stdout.write(f"{len(expected) - failed} of {len(expected)} metrics within {TOLERANCE} of the committed ones\n")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
