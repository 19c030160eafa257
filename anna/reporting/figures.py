"""The report's figures, drawn from the facts: one function each, None where there is nothing to draw.

Drawn in the light colours of `style.PALETTE`; `anna.reporting.plots` sets the rest of the style and makes the files.
"""

import re
from collections import Counter

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from anna.params import STAGES
from anna.reporting import ablation, style
from anna.reporting.distributions import SHARE_EDGES
from anna.reporting.gather import TABLES, Facts
from anna.reporting.marks import WIDTH, bars, dots, histogram, legend_above, line, percent, thousands
from anna.reporting.style import light


def draw_scores(facts: Facts) -> Figure | None:
    """Draw grouped bars: the mean and every category, a bar per model."""
    columns = [name for name in style.COLUMNS if name in facts.means]
    categories = list(dict.fromkeys(category for name in columns for category in facts.means[name]))
    if not categories:
        return None
    figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
    axes = figure.add_subplot()
    width = 0.84 / len(columns)
    for place, name in enumerate(columns):
        heights = [facts.summary.get(name, {}).get("mean"), *(facts.means[name].get(each) for each in categories)]
        shown = [(at, height) for at, height in enumerate(heights) if height is not None]
        label, role = style.COLUMNS[name]
        axes.bar(
            [at + (place - (len(columns) - 1) / 2) * width for at, _ in shown],
            [height for _, height in shown],
            width=width,
            color=light(role),
            edgecolor=light("surface"),
            linewidth=0.8,
            label=label,
        )
    axes.axhline(0, color=light("muted"), linewidth=0.8)
    axes.axvline(0.5, color=light("grid"), linewidth=0.8)
    axes.set_xticks(range(len(categories) + 1), ["Mean", *(_wrap(category) for category in categories)])
    axes.set_xlim(-0.5, len(categories) + 0.5)
    axes.set_ylabel("mean main score\n(0 to 1; correlations −1 to 1)")  # noqa: RUF001 - a real minus sign
    axes.grid(axis="x", visible=False)
    figure.legend(loc="outside upper left", ncols=len(columns), columnspacing=1.4, handlelength=1.1)
    return figure


def draw_ablation(facts: Facts) -> Figure | None:
    """Draw what the runs without a part score beside those with all: a row a variant, a dot a seed, a panel a score."""
    columns = [(name, ablation.differences(facts.runs, name)) for name in ablation.COLUMNS]
    columns = [(name, found) for name, found in columns if any(found.values())]
    if not columns:
        return None
    variants = [variant for variant in facts.runs if variant != ablation.DEFAULT]
    across = min(len(columns), 5)
    down = -(-len(columns) // across)
    figure = Figure(figsize=(WIDTH, down * (0.8 + 0.24 * len(variants))), layout="constrained")
    panels: list[Axes] = list(figure.subplots(down, across, sharey=True, squeeze=False).flat)
    for axes, (name, found) in zip(panels, columns, strict=False):
        axes.axvline(0, color=light("muted"), linewidth=0.8)
        for row, variant in enumerate(variants):
            values = found.get(variant, [])
            axes.plot(values, [row] * len(values), "o", color=light("student"), markersize=5, alpha=0.7, clip_on=False)
        axes.set_title(_wrap(name))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=2, steps=[1, 2, 5, 10]))
        axes.tick_params(axis="x", labelsize=8)
        axes.set_yticks(range(len(variants)), variants)
        axes.set_ylim(len(variants) - 0.5, -0.5)
    for axes in panels[len(columns) :]:
        axes.set_axis_off()
    figure.supxlabel("score without the part, less that with all parts", fontsize=10, color=light("muted"))
    return figure


def draw_training(facts: Facts) -> Figure | None:
    """Draw loss and its terms, validation, gradient norm and learning rate against queries seen.

    What differs from step to step is drawn twice, raw faint and smoothed bold.
    """
    if not len(facts.curve):
        return None
    values, validation = facts.curve.values, facts.validation
    labels = ["loss (nats)", *(["validation\nnDCG@10"] * bool(len(validation.ndcg))), "gradient norm", "learning rate"]
    heights = [3.0, *([1.15] * (len(labels) - 1))]
    figure = Figure(figsize=(WIDTH, 1.02 * sum(heights)), layout="constrained")
    panels: list[Axes] = list(figure.subplots(len(labels), 1, sharex=True, height_ratios=heights))
    for name, label, role in (
        ("loss", "loss", "ink"),
        ("info_nce", "InfoNCE", "positive"),
        ("soft_label_ce", "soft labels of groups", "negative"),
        ("batch_soft_label_ce", "soft labels of batches", "teacher"),
    ):
        line(panels[0], values["queries"], values[name], role, label)
    if len(validation.ndcg):
        # Not clipped: the first one lies on the left edge.
        panels[1].plot(*validation, color=light("ink"), linewidth=1.6, marker="o", markersize=4, clip_on=False)
        for place, side in {0: "left", len(validation.ndcg) - 1: "right"}.items():
            at = validation.queries[place], validation.ndcg[place]
            panels[1].annotate(
                style.score(at[1]), at, (0, -7), textcoords="offset points", fontsize=8, ha=side, va="top"
            )
    line(panels[-2], values["queries"], values["gradient_norm"], "muted", None)
    panels[-1].plot(values["queries"], values["learning_rate"], color=light("muted"), linewidth=1.6)
    for axes, label in zip(panels, labels, strict=True):
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0, top=1 if axes is panels[1] and len(validation.ndcg) else None)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5 if axes is panels[0] else 3))
    panels[-1].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.1e}" if value else "0"))
    panels[-1].set_xlim(left=0)
    panels[-1].xaxis.set_major_formatter(FuncFormatter(thousands))
    panels[-1].set_xlabel("queries seen")
    figure.align_ylabels(panels)
    panels[0].legend(loc="upper right", ncols=2)
    return figure


def draw_spread(facts: Facts) -> Figure | None:
    """Draw histograms of fused scores: positives against candidates before the filter, against negatives after."""
    edges, positives, others, group_positives, negatives = facts.distributions.spread
    if not (positives.any() or others.any()):
        return None
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    panels: list[Axes] = list(figure.subplots(2, 1, sharex=True, sharey=True))
    histogram(panels[0], others, edges, "candidate", "other candidates")
    histogram(panels[0], positives, edges, "positive", "labelled positives")
    histogram(panels[1], negatives, edges, "negative", "hard negatives kept")
    histogram(panels[1], group_positives, edges, "positive", "positives of the groups")
    for axes, title in zip(panels, ("Before the filter", "After: what the student is trained on"), strict=True):
        axes.set_title(title)
        percent(axes.yaxis)
        axes.set_ylabel("share of each set")
        legend_above(axes)
    panels[1].set_xlabel("fused score (weighted sum of z-scores within the query)")
    return figure


def draw_entropy(facts: Facts) -> Figure | None:
    """Draw histograms of the soft labels' entropy as a share of log n, over all candidates and over the groups."""
    candidates, groups = facts.distributions.entropies
    if not (candidates.any() or groups.any()):
        return None
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    axes = figure.add_subplot()
    histogram(axes, candidates, SHARE_EDGES, "candidate", "all candidates of a query")
    histogram(axes, groups, SHARE_EDGES, "positive", "its training group")
    percent(axes.xaxis)
    percent(axes.yaxis)
    axes.set_xlim(0, 1)
    axes.set_xlabel("entropy as a share of log n: 0 % is one-hot, 100 % uniform")
    axes.set_ylabel("share of queries")
    legend_above(axes)
    return figure


def draw_ingest_drops(facts: Facts) -> Figure | None:
    """Draw how many rows of the sources were not kept, by reason and use."""
    parts: dict[str, Counter[str]] = {"train": Counter(), "held_out": Counter()}
    for drop in facts.ingest_drops:
        parts[drop.part][drop.reason] += drop.rows
    return dots(parts, "rows (log scale)")


def draw_filter_drops(facts: Facts) -> Figure | None:
    """Draw how many candidates did not become hard negatives, and how many queries gave no group, by reason."""
    counted = facts.stages.get("filter", {})
    parts = {name: Counter(counted.get(key, {})) for name, key in (("candidates", "drops"), ("queries", "query_drops"))}
    return dots(parts, "candidates, or queries (log scale)")


def draw_cost(facts: Facts) -> Figure | None:
    """Draw the time of every stage and the rows it wrote."""
    names = [name for name in STAGES[:-1] if name in facts.costs]
    if not names:
        return None
    seconds = [float(facts.costs[name]["seconds"]) for name in names]
    rows = [_rows_of(facts, name) for name in names]
    figure = Figure(figsize=(WIDTH, 1.0 + 0.3 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    bars(left, names, seconds, [style.duration(value) for value in seconds])
    bars(right, names, [float(number or 0) for number in rows], [style.count(number) for number in rows])
    left.set_xlabel("wall time (s)")
    right.set_xlabel("rows of the training tables written")
    return figure


def _rows_of(facts: Facts, stage: str) -> int | None:
    rows = {table.path.removeprefix("data/").removesuffix(".parquet"): table.rows for table in facts.tables}
    own = [name for name in TABLES.get(stage, ()) if name != "ingest_drops" and not name.startswith("eval/")]
    written = [rows[name] for name in own if name in rows]
    return sum(written) if written else None


def _wrap(category: str) -> str:
    """Break a name before each inner capital: `PairClassification` takes two lines."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "\n", category)
