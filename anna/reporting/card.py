"""The model card: what the exported model is made of, how it is used, what it reached and what that cost.

One function makes it, twice: `export` puts it into the model's folder with all that is known then, and `report` writes
it again with scores, time and energy. It holds no date, so that equal runs give equal bytes but for time and energy.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import TypeAdapter

from anna import io
from anna.origins import HubOrigin, Origin, describe
from anna.params import HELD_OUT
from anna.reporting import sizes, style, templates

SECTIONS = ("ingest", "retrieve_dense", "rerank", "label", "filter", "train", "student")
"""Sections of params that the card tells of."""

GRID_KG_PER_KWH = 0.445
"""Carbon dioxide per kilowatt hour of electricity, world mean of 2024 (IEA, Electricity 2025)."""

_ORIGIN: TypeAdapter[Origin] = TypeAdapter(Origin)


class Made(NamedTuple):
    """What is known when the model is exported."""

    sections: Mapping[str, Mapping[str, Any]]
    """Of params, those of `SECTIONS`."""
    encoder: Mapping[str, Any]
    """The model's encoder.json: prompts, pooling, limits."""
    config: Mapping[str, Any]
    """The model's config.json."""

    @classmethod
    def read(cls, folder: Path, sections: Mapping[str, Mapping[str, Any]]) -> "Made":
        """Return what the model at `folder` and `sections` of params say."""
        return cls(sections, io.read_json(folder / "encoder.json"), io.read_json(folder / "config.json"))


class Scored(NamedTuple):
    """What is known when the run has ended."""

    tasks: Mapping[str, Mapping[str, Mapping[str, Any]]]
    """Model in its mode -> task -> type, metric, score (0 to 1)."""
    leaderboard: Mapping[str, Any]
    contamination: Mapping[str, Any]
    training: Mapping[str, Any]
    """Counts of stage train."""
    evaluate: Mapping[str, Any]
    """Section of params: how texts were read."""
    costs: Mapping[str, Mapping[str, Any]]
    """Stage -> seconds, cpus, and gpus with their gpu_watts where there are any."""
    sizes: sizes.Sizes


class Source(NamedTuple):
    """A row of the data tables."""

    task: str
    use: str
    origin: str
    rows: str
    licence: str


class Energy(NamedTuple):
    """An upper bound of what the GPUs took."""

    hours: float
    """Of GPUs in use, each counted."""
    kwh: float
    kg: float
    """Of carbon dioxide, at the world's mean."""


def render(made: Made, scored: Scored | None = None) -> str:
    """Return the card as Markdown with YAML front matter, as the hub reads it; scores and costs if there are any."""
    # Markdown is not escaped: `cell` keeps texts of the data inside their cell.
    environment = templates.environment(autoescape=False, keep_trailing_newline=True)
    environment.filters |= {"cell": cell, "duration": style.duration}
    student = made.sections["student"]
    own, known = (scored.tasks.get("student", {}), scored.sizes) if scored else ({}, {})
    return environment.get_template("card.md.j2").render(
        front_matter=yaml.safe_dump(front_matter(made, scored), sort_keys=False, allow_unicode=True, width=1000),
        made=made,
        scored=scored,
        base=named(student["model"]),
        train_sources=[_source(each) for each in train_sources(made)],
        example_sources=[_source(each) for each in example_sources(made)],
        dense=named(made.sections["retrieve_dense"]["model"]),
        reranker=named(made.sections["rerank"]["model"]),
        settings=[(name, value) for name, value in flat(made.sections["train"]) if _is_used(name, made)],
        energy=energy(scored.costs) if scored else None,
        counted=sizes.head(known),
        counts={task: sizes.cells(known, [task]) for task in own},
        few=sizes.warning(known, own),
        grid=GRID_KG_PER_KWH,
    )


def front_matter(made: Made, scored: Scored | None) -> dict[str, Any]:
    """Return the hub's metadata: base model and data sets where they are the hub's, and results as a model-index."""
    base = _ORIGIN.validate_python(made.sections["student"]["model"])
    sources = [_ORIGIN.validate_python(each["origin"]) for each in train_sources(made)]
    repos = sorted({origin.repo for origin in sources if isinstance(origin, HubOrigin)})
    result: dict[str, Any] = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": ["sentence-transformers", "sentence-similarity", "feature-extraction"],
        "license": "other",
        "license_name": "licences-of-its-sources",
    }
    if isinstance(base, HubOrigin):
        result["base_model"] = base.repo
    if repos:
        result["datasets"] = repos
    if scored and scored.tasks.get("student"):
        result["tags"] += [] if scored.leaderboard["benchmark"] == HELD_OUT else ["mteb"]
        result["model-index"] = [{"name": "anna", "results": list(_results(scored))}]
    return result


def train_sources(made: Made) -> list[Mapping[str, Any]]:
    """Return the sources that are trained on, each followed by its distractors."""
    found: list[Mapping[str, Any]] = []
    for source in made.sections["ingest"]["train"]:
        others = source.get("distractors", ())
        found += [source, *({**other, "task": source["task"], "kind": "distractors"} for other in others)]
    return found


def example_sources(made: Made) -> list[Mapping[str, Any]]:
    """Return the sources whose rows the model carries as in-context examples inside its prompts."""
    ingest = made.sections["ingest"]
    given = {name for name, prompt in made.encoder["tasks"].items() if prompt.get("examples")}
    sources = [source for key in ("held_out", "examples") for source in ingest.get(key, ()) if source["task"] in given]
    # A held-out source may draw its examples from elsewhere than its rows.
    return [{**source, "origin": source.get("examples") or source["origin"]} for source in sources]


def energy(costs: Mapping[str, Mapping[str, Any]]) -> Energy | None:
    """Return the sum over stages of time x power limit of the GPUs; None if no stage knows a power.

    An upper bound of the GPUs' share: they draw less than their limit, and nothing when a stage leaves them idle. CPUs,
    memory and cooling are not in it.
    """
    known = [cost for cost in costs.values() if cost.get("gpu_watts")]
    if not known:
        return None
    hours = sum(cost["seconds"] / 3600 * len(cost["gpus"]) * cost.get("machines", 1) for cost in known)
    kwh = sum(cost["seconds"] / 3600 * cost["gpu_watts"] / 1000 * cost.get("machines", 1) for cost in known)
    return Energy(hours, kwh, kwh * GRID_KG_PER_KWH)


def named(origin: Mapping[str, Any]) -> str:
    """Return what `describe` says of an origin as params have it."""
    return describe(_ORIGIN.validate_python(origin))


def flat(section: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Yield the values of a section with their dotted names."""
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, "null" if value is None else str(value)


def cell(text: object) -> str:
    """Return a text that stays within one cell of a Markdown table."""
    return " ".join(str(text).split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _source(source: Mapping[str, Any]) -> Source:
    rows = source.get("rows")
    return Source(
        source["task"],
        source.get("kind") or source.get("type") or "",
        named(source["origin"]),
        f"{rows:,} at most" if rows else "all",
        source.get("licence") or "**not stated**",
    )


def _is_used(name: str, made: Made) -> bool:
    return not name.startswith("lora.") or made.sections["train"]["method"] == "lora"


def _results(scored: Scored) -> Iterable[dict[str, Any]]:
    """Yield the student's zero-shot scores as the hub's model-index has them, 0 to 100."""
    for task, result in scored.tasks["student"].items():
        # A held-out sample is not the benchmark's task of the same name, and must not be taken for it.
        name = f"{task} (held-out sample)" if scored.leaderboard["benchmark"] == HELD_OUT else f"MTEB {task}"
        yield {
            "task": {"type": result["type"]},
            "dataset": {"type": task, "name": name},
            "metrics": [{"type": result["metric"], "value": round(100 * result["score"], 3)}],
        }
