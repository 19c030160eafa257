"""The report as one HTML page that loads nothing: figures, styles and numbers all stand in it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from anna.params import STAGES
from anna.reporting import ablation, plots, results, sizes, style, templates
from anna.reporting.gather import Facts
from anna.reporting.plots import Plot


class Grid(NamedTuple):
    """A plain table: names down, the same keys across."""

    name: str
    head: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]


def render(facts: Facts, drawn: Sequence[Plot]) -> str:
    """Return the page. Every text that comes from data is escaped."""
    environment = templates.environment(autoescape=True)
    formats = (style.score, style.change, style.count, style.percent, style.duration, style.plain, style.words)
    environment.filters.update({function.__name__: function for function in formats})
    return environment.get_template("page.html.j2").render(
        facts=facts,
        palette=style.PALETTE,
        stages=STAGES[:-1],
        headline=results.headline(facts),
        cards=results.cards(facts),
        columns=[style.column_name(column) for column in results.columns(facts)],
        counted=sizes.head(facts.sizes),
        warning=results.warning(facts),
        category_rows=results.category_rows(facts),
        task_rows=results.task_rows(facts),
        seeds=seeds(facts.runs.get(ablation.DEFAULT, {})),
        variants=variants(facts.runs),
        standings=standings(facts.leaderboard),
        task_curves=results.by_task(facts.curve) if len(facts.curve) else [],
        candidates=candidates(facts.stages),
        details=[part for name, metrics in facts.stages.items() for part in grids(name, metrics)],
        titles={plot.name: plot.title for plot in drawn},
        # The SVG is ours and its texts are escaped by matplotlib.
        svg={plot.name: Markup(plots.inline(plot)) for plot in drawn if plot.svg},
    )


def seeds(runs: Mapping[int, ablation.Scores]) -> Grid:
    """Return what runs with other seeds score, columns of scores down: mean and spread, then each seed."""
    rows = [
        (column, [ablation.spread(values), *(style.score(scores.get(column)) for scores in runs.values())])
        for column in ablation.COLUMNS
        if (values := ablation.of_seeds(runs, column))
    ]
    return Grid("seeds", ["mean ± sd", *(f"seed {seed}" for seed in runs)], rows)


def variants(runs: ablation.Runs) -> Grid:
    """Return the mean and spread over seeds of every variant, columns of scores across."""

    def cell(values: Sequence[float]) -> str:
        return ablation.spread(values).replace("± ", "±\u00a0")  # a narrow cell breaks before the sign

    rows = [
        (variant, [str(len(own)), *(cell(ablation.of_seeds(own, column)) for column in ablation.COLUMNS)])
        for variant, own in runs.items()
    ]
    return Grid("variants", ["seeds", *ablation.COLUMNS], rows)


def standings(leaderboard: Mapping[str, Any]) -> Grid:
    """Return the models around ours, best first, then each other model and mode of ours with its own rank."""
    near = leaderboard.get("around", ())
    rows = [(f"{row['model']}{' (ours)' if row['is_ours'] else ''}", _ranked(row)) for row in near]
    shown = {row["model"] for row in near}
    others = [(name, of) for name, of in leaderboard.get("standings", {}).items() if name not in shown]
    rows += [(f"{name} (ours)", _ranked(of)) for name, of in others]
    return Grid("standings", ["Borda rank", "mean by task", "mean by type"], rows)


def _ranked(row: Mapping[str, Any]) -> list[str]:
    return [str(row["rank"]), *(f"{100 * row[mean]:.2f}" for mean in ("mean_by_task", "mean_by_type"))]


def candidates(stages: Mapping[str, Mapping[str, Any]]) -> Grid:
    """Return, by task, what the teachers and the filter made of its queries."""
    shown = (
        ("label", "queries", "queries", style.count),
        ("label", "candidates", "candidates", style.count),
        ("label", "positive_first", "positive ranked first", style.percent),
        ("label", "bm25_recall", "positives found by BM25", style.percent),
        ("label", "dense_recall", "found by dense teacher", style.percent),
        ("label", "entropy_share", "entropy of soft labels", style.percent),
        ("filter", "groups", "groups, validation's too", style.count),
        ("filter", "positives", "positives", style.count),
        ("filter", "negatives", "hard negatives", style.count),
        ("filter", "suspected_missing_positives", "suspected missing positives", style.count),
    )
    label, kept = stages.get("label", {}), stages.get("filter", {})
    tasks = sorted({*label.get("tasks", {}), *kept.get("tasks", {})})

    def cells(of: Mapping[str, Mapping[str, Any]]) -> list[str]:
        return [as_text(of[stage].get(key)) for stage, key, _, as_text in shown]

    rows = [(task, cells({"label": _task(label, task), "filter": _task(kept, task)})) for task in tasks]
    rows.append(("all", cells({"label": label, "filter": kept})))
    return Grid("candidates", [title for *_, title, _ in shown], rows if tasks else [])


def grids(name: str, metrics: Mapping[str, Any]) -> list[Grid]:
    """Return any metrics file as plain tables: its single numbers, and each mapping of mappings apart."""
    single: list[tuple[str, Sequence[str]]] = []
    apart: list[Grid] = []
    for key, value in metrics.items():
        if isinstance(value, Mapping) and value and all(isinstance(each, Mapping) for each in value.values()):
            apart.append(_across(f"{name}: {style.words(key)}", value))
        else:
            single += [(place, [text]) for place, text in _flat(key, value)]
    return ([Grid(name, ["value"], single)] if single else []) + apart


def _across(name: str, rows: Mapping[str, Mapping[str, Any]]) -> Grid:
    flat = {
        row: dict(line for key, value in cells.items() for line in _flat(key, value)) for row, cells in rows.items()
    }
    head = list(dict.fromkeys(key for values in flat.values() for key in values))
    return Grid(name, head, [(row, [values.get(key, style.MISSING) for key in head]) for row, values in flat.items()])


def _flat(key: str, value: Any) -> list[tuple[str, str]]:
    """Return the leaves of a value with the words of their path."""
    if isinstance(value, Mapping):
        return [line for inner, each in value.items() for line in _flat(f"{key}: {inner}", each)]
    return [(style.words(key), style.plain(value))]


def _task(metrics: Mapping[str, Any], task: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = metrics.get("tasks", {}).get(task, {})
    return found
