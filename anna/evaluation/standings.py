"""A leaderboard as text, for people."""

from collections.abc import Mapping
from typing import Any

from anna.evaluation.leaderboard import compare


def describe(name: str, scores: Mapping[str, float], types: Mapping[str, str]) -> str:
    """Return where one model stands among the public ones, as text; scores x 100, as the public leaderboard has them.

    Args:
        name: What the model is called.
        scores: Task -> main score, 0 to 1.
        types: Task -> mteb type.
    """
    said = compare({name: scores}, types)
    own, reference = said["standings"][name], said["reference"]
    lines = [*said["notes"], "", f"{'Borda':>5}  {'by task':>7}  {'by type':>7}  model"]
    lines += [_line(row) for row in said["around"]]
    kinds = [kind for kind in own if kind not in ("rank", "of", "mean_by_task", "mean_by_type")]
    lines += ["", f"{'type':<20}{'here':>8}{'published':>11}"]
    lines += [f"{kind:<20}{100 * own[kind]:>8.2f}{100 * reference[kind]:>11.2f}" for kind in kinds]
    lines.append(f"published: {reference['model']}, rank {reference['rank']} of {reference['of']} public models")
    return "\n".join(lines)


def _line(row: Mapping[str, Any]) -> str:
    mark = "  <" if row["is_ours"] else ""
    means = (f"{100 * row[mean]:>7.2f}" for mean in ("mean_by_task", "mean_by_type"))
    return f"{row['rank']:>5}  {'  '.join(means)}  {row['model']}{mark}"
