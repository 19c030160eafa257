"""dvc.yaml, stage scripts, params and layers say the same thing."""

import ast
import importlib
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest
import yaml

from anna import io, schemas
from anna.evaluation import contenders
from anna.log import COST_DIR
from anna.params import SECTIONS, Params
from stages import evaluate

REPO = Path(__file__).parents[1]
STAGES = sorted(path.stem for path in (REPO / "stages").glob("[a-z]*.py"))
PIPELINE: dict[str, Any] = yaml.safe_load((REPO / "dvc.yaml").read_text())

PARAM_FILES = ["params.yaml", *sorted(str(path.relative_to(REPO)) for path in (REPO / "presets").glob("*.yaml"))]

PLUMBING = {f"anna.{name}" for name in "params schemas log lock ranks allocation machine errors".split()}
"""Modules that are no code dependency of a stage: their values are tracked otherwise (params by DVC, schemas by the
sidecars and by `io.read`) or change no result, and a new column or log line elsewhere must not rerun a GPU-day."""

HOW = {"scoring", "prompts"}
"""Sections that cannot change what a stage writes, only how it gets there, or whether it does. DVC does not watch them:
a run that moves to a cluster would be a new one, and so would one with another word in a prompt, whose absence `ingest`
refuses."""

CARRIERS = {
    *PLUMBING,
    *(f"anna.{name}" for name in "fingerprints io origins scores shards store".split()),
    *(f"anna.{name}" for name in "engine processes cluster".split()),
    "anna.modeling.hardware",
    "anna.modeling.outline",
}
"""Modules that carry texts and numbers and change none, or only refuse; what device and number format they choose is
stored apart."""

DEFAULTS = {
    "ingest": {
        "held_out",  # a project may score a benchmark of mteb's own instead
        "examples",  # of that benchmark's tasks, which a project may not score
    }
}
"""By section, the parameters that params.yaml may leave out; it and every preset state all others."""

SIBLINGS = ("corpus", "teachers", "training", "evaluation", "reporting", "planning")
LAYERS: list[tuple[str, ...]] = [
    ("params", "schemas", "log", "lock", "ranks", "allocation", "machine", "seeding", "errors"),
    ("io", "parts", "origins", "fingerprints", "shards", "store", "engine", "processes", "cluster"),
    (
        "fusion",
        "margins",
        "negatives",
        "cleaning",
        "folding",
        "prompts",
        "segments",
        "shapes",
        "footprint",
        "known_shapes",
        "scores",
    ),
    ("modeling",),
    SIBLINGS,
    ("local_models",),
    ("check",),
    ("readiness",),
    ("cli",),
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
PURE = (
    "fusion",
    "margins",
    "negatives",
    "cleaning",
    "prompts",
    "scores",
    "segments",
    "shapes",
    "footprint",
    "training.losses",
    "modeling.pooling",
    "modeling.batching",
)


def imported(text: str) -> set[str]:
    """Return the modules that a file of this text imports."""
    nodes = list(ast.walk(ast.parse(text)))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}


def imports(module: str) -> set[str]:
    """Return the modules of ours that `module` imports anywhere in its file."""
    path = REPO / Path(*module.split(".")).with_suffix(".py")
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return {name for name in found if name.startswith(("anna.", "stages.")) and is_module(name)}


def is_module(name: str) -> bool:
    return (REPO / Path(*name.split("."))).with_suffix(".py").is_file()


def reachable(module: str) -> set[str]:
    """Return every module of ours that running `module` can execute."""
    seen: set[str] = set()
    pending = [module]
    while pending:
        for name in imports(pending.pop()) - seen:
            seen.add(name)
            pending.append(name)
    return seen


def package_modules() -> list[str]:
    return [".".join(p.relative_to(REPO).with_suffix("").parts) for p in sorted((REPO / "anna").rglob("[a-z]*.py"))]


def param_classes() -> set[type[Params]]:
    """Return the classes of all sections, as stages read them."""
    scripts = [importlib.import_module(f"stages.{name}") for name in STAGES]
    return {cls for script in scripts for cls in (*script.PARAMS, *getattr(script, "HOW", ()))}


def paths(entries: list[Any]) -> set[str]:
    return {next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries}


def with_sidecars(outputs: tuple[Path, ...]) -> set[str]:
    tables = {path for path in outputs if path.suffix == ".parquet"}
    return {str(path) for path in {*outputs, *(io.sidecar(path) for path in tables)}}


def test_every_stage_script_is_in_the_pipeline() -> None:
    assert sorted(PIPELINE["stages"]) == STAGES


@pytest.mark.parametrize("name", STAGES)
def test_dvc_yaml_says_what_the_stage_does(name: str) -> None:
    stage, script = PIPELINE["stages"][name], importlib.import_module(f"stages.{name}")
    assert stage["cmd"] == f"python -m stages.{name}"
    assert stage["desc"]
    code = {f"stages/{name}.py"} | {m.replace(".", "/") + ".py" for m in reachable(f"stages.{name}") - PLUMBING}
    code |= {str(path) for path in getattr(script, "CODE_FILES", ())}
    data = {str(path) for path in (*script.INPUTS, *getattr(script, "WATCHED", ()))}
    assert paths(stage["deps"]) == code | data
    outputs = with_sidecars(script.OUTPUTS) | {str(COST_DIR / f"{name}.json")}
    declared = paths(stage.get("outs", [])) | paths(stage.get("metrics", [])) | paths(stage.get("plots", []))
    assert declared == outputs
    assert set(stage.get("params", [])) == {cls.section for cls in script.PARAMS}
    assert {cls.section for cls in getattr(script, "HOW", ())} <= HOW


@pytest.mark.parametrize("name", STAGES)
def test_every_input_is_written_by_an_earlier_stage(name: str) -> None:
    scripts = [importlib.import_module(f"stages.{other}") for other in STAGES]
    written = {Path(path) for script in scripts for path in with_sidecars(script.OUTPUTS)}
    written |= {COST_DIR / f"{other}.json" for other in STAGES if other != name}
    assert set(importlib.import_module(f"stages.{name}").INPUTS) <= written


@pytest.mark.parametrize("file", PARAM_FILES)
def test_params_and_presets_load_whole(file: str) -> None:
    classes = param_classes()
    for cls in classes:
        cls.load(REPO / file)
    assert {cls.section for cls in classes} == set(SECTIONS)


@pytest.mark.parametrize(
    ("module", "more"),
    [
        ("anna.modeling.encoder", ()),
        ("anna.evaluation.contenders", ()),
        ("anna.teachers.dense", evaluate.DENSE_CODE),
        ("anna.teachers.bm25", evaluate.BM25_CODE),
    ],
)
def test_a_stored_score_knows_all_code_that_decides_it(module: str, more: tuple[ModuleType, ...]) -> None:
    assert {module, *reachable(module)} - CARRIERS <= {part.__name__ for part in (*contenders.SCORING_CODE, *more)}


def test_a_parameter_has_no_default() -> None:
    for cls in param_classes():
        left_out = {name for name, field in cls.model_fields.items() if not field.is_required()}
        assert left_out <= DEFAULTS.get(cls.section, set())


def test_every_parameter_has_a_comment() -> None:
    lines = (REPO / "params.yaml").read_text(encoding="utf-8").splitlines()
    values = [line for line in lines if re.match(r"  \w+: \S", line)]
    assert len(values) > 50
    assert [line for line in values if "  # " not in line] == []


@pytest.mark.parametrize("name", ["mistral-7b", "qwen3-0.6b"])
def test_a_constant_of_a_preset_says_where_it_comes_from(name: str) -> None:
    """Or it is params.yaml's, where a comment says it."""
    path = REPO / "presets" / f"{name}.yaml"
    default, own = (yaml.safe_load(file.read_text(encoding="utf-8")) for file in (REPO / "params.yaml", path))
    section, bare = "", []
    for line in path.read_text(encoding="utf-8").splitlines():
        section = line.rstrip(":") if re.fullmatch(r"\w+:", line) else section
        key = re.match(r"  (\w+): \S", line)
        if key and section != "prompts" and "#" not in line and not isinstance(own[section][key[1]], dict):
            bare.append((section, key[1]))
    assert len(bare) > 10
    assert [place for place in bare if own[place[0]][place[1]] != default[place[0]].get(place[1])] == []


def test_layers_point_down_and_siblings_keep_apart() -> None:
    for module in package_modules():
        own = module.split(".")[1]
        for name in imports(module):
            other = name.split(".")[1]
            assert name.startswith("anna."), f"{module} imports a stage"
            assert other == own or LEVEL[other] < LEVEL[own] or (LEVEL[own] == LEVEL[other] <= 2), f"{module} -> {name}"


def test_a_stage_imports_no_other_stage() -> None:
    assert not {(name, m) for name in STAGES for m in reachable(f"stages.{name}") if m.startswith("stages.")}


def test_the_pure_core_takes_plain_arguments() -> None:
    for name in PURE:
        text = (REPO / "anna" / Path(*name.split(".")).with_suffix(".py")).read_text(encoding="utf-8")
        names = imported(text)
        forbidden = {"pathlib", "logging", "pyarrow", "polars", "anna.params", "anna.io"}
        assert not {top for top in names if top in forbidden}, f"{name} imports {names}"


def test_what_is_imported_is_declared() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = [*project["dependencies"], *project["optional-dependencies"]["ray"]]
    declared = {re.split(r"[^\w-]", name)[0].lower() for name in listed}
    distributions = packages_distributions()
    for path in [path for folder in ("anna", "stages") for path in (REPO / folder).rglob("*.py")]:
        tops = {name.split(".")[0] for name in imported(path.read_text(encoding="utf-8"))}
        for top in tops - {*sys.stdlib_module_names, "anna", "stages"}:
            names = {name.lower().replace("_", "-") for name in distributions[top]}
            assert names & declared, f"{path} imports {top}, and pyproject.toml names none of {names}"


def test_every_init_is_empty() -> None:
    for path in [*(REPO / "anna").rglob("__init__.py"), REPO / "stages" / "__init__.py"]:
        assert not path.read_text(), f"{path}: a re-export makes every stage depend on every module"


@pytest.mark.parametrize("path", sorted((REPO / "data").rglob("*.json")), ids=lambda path: path.name)
def test_committed_sidecars_match_the_schemas(path: Path) -> None:
    described = yaml.safe_load(path.read_text())
    tables = [value for value in vars(schemas).values() if isinstance(value, pa.Schema)]
    by_name = {schema.metadata[b"name"].decode(): schema for schema in tables}
    schema = by_name[described["table"]]
    assert [field["name"] for field in described["fields"]] == schema.names, f"{path}: rerun its stage"
    assert [field["type"] for field in described["fields"]] == [str(field.type) for field in schema]
