"""Typed, frozen sections of `params.yaml`; whatever is unknown or mistyped is one exact error."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from anna.errors import InputError, one_line

PARAMS_FILE = Path("params.yaml")

STAGES = (
    "ingest",
    "retrieve_bm25",
    "retrieve_dense",
    "rerank",
    "label",
    "filter",
    "train",
    "export",
    "evaluate",
    "report",
)
"""Every stage of the pipeline, in order."""

SECTIONS = ("random", "student", "prompts", "scoring", *STAGES[:-1])
"""Every section that params.yaml may have. A stage's own section has its name; `random`, `student` and `prompts` are
shared and listed by each stage that reads them; `scoring` says how and not what, and is listed by none."""

HELD_OUT = "held_out"
"""The `evaluate.benchmark` that our own tables make up, and that is none of mteb's."""


_TEXT = re.compile(r"(?i:yes|no|on|off)|[-+]?0[0-7_]+|[-+]?\d[\d_]*(:[0-5]?\d)+(\.[\d_]*)?")
"""What YAML 1.1 takes for a boolean, an octal number or one to the base of 60, and YAML 1.2 does not."""


class Loader(yaml.SafeLoader):
    """Reads plain words and numbers as YAML 1.2 does: DVC writes params.yaml so, and "no" without its quotes."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> Any:
        """Return the tag of a node that has none."""
        if kind is yaml.ScalarNode and _TEXT.fullmatch(value):
            return self.DEFAULT_SCALAR_TAG
        return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]


class Strict(BaseModel):
    """A frozen model in which an unknown key is an error and a field's docstring is its description."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )


class Params(Strict):
    """One section of `params.yaml`."""

    section: ClassVar[str]

    @classmethod
    def load(cls, path: Path = PARAMS_FILE) -> Self:
        """Return the validated section of `path`.

        Raises:
            InputError: If the file is missing or not a mapping, a section is unknown or absent, or a value is unknown,
                missing or out of range. All faults of the section are named at once.
        """
        tree = _read(path)
        if cls.section not in tree:
            raise InputError(f"{path} has no section {cls.section!r} (it has {sorted(tree)}); add it, see presets/")
        try:
            return cls.model_validate(tree[cls.section])
        except ValidationError as error:
            raise InputError(_explain(path, cls, tree[cls.section], error)) from None


class Recorded(Params):
    """A section as it stands, for stages that write it down; the stage that acts on it checks it."""

    model_config = ConfigDict(extra="allow")

    def values(self) -> dict[str, Any]:
        """Return the section as a plain mapping."""
        return dict(self.model_extra or {})


def recorded(section: str) -> type[Recorded]:
    """Return the class that reads `section` without checking what is in it."""
    return type(f"Recorded{section.title()}", (Recorded,), {"section": section, "__module__": __name__})


class RandomParams(Params):
    """The one root of all randomness; every stage derives its own streams from it (`anna.seeding`)."""

    section: ClassVar[str] = "random"

    seed: int
    """Root seed. Same seed, params and machine: the same bytes."""


def _refuse_repeated_keys(text: str) -> None:
    """Refuse a key that is written twice in one mapping, as DVC does; YAML for Python takes the last one.

    Raises:
        yaml.YAMLError: With both lines, or if the text is no YAML.
    """
    pending, seen = [yaml.compose(text, Loader)], set()
    while pending:
        node = pending.pop()
        if id(node) in seen or not isinstance(node, yaml.CollectionNode):
            continue
        seen.add(id(node))  # an alias is the node that it names
        if isinstance(node, yaml.SequenceNode):
            pending += node.value
            continue
        lines: dict[str, int] = {}
        for key, value in node.value:
            pending.append(value)
            name, line = str(key.value), key.start_mark.line + 1
            if name in lines and name != "<<":
                raise yaml.YAMLError(f"key {name!r} stands in line {lines[name]} and again in line {line}")
            lines[name] = line


def last_read(stage: str, root: Path = Path()) -> dict[str, Any]:
    """Return the sections with which DVC last ran a stage; none where it did not, or cannot read its own lock itself.

    Args:
        stage: Its name.
        root: Where dvc.lock lies.
    """
    try:
        stages = yaml.load((root / "dvc.lock").read_text(encoding="utf-8"), Loader)["stages"]
        return dict(stages[stage]["params"]["params.yaml"])
    except (OSError, ValueError, yaml.YAMLError, LookupError, TypeError):
        return {}


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path} does not exist in {Path.cwd()}; run from the project root or copy a preset there")
    try:
        text = path.read_text(encoding="utf-8")
        _refuse_repeated_keys(text)
        tree = yaml.load(text, Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {one_line(error)}; correct it there") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path} holds {type(tree).__name__}, expected a mapping of sections {list(SECTIONS)}")
    for name in tree:
        if name not in SECTIONS:
            raise InputError(
                f"{path}: unknown section {name!r}{did_you_mean(str(name), SECTIONS)}; remove or rename it"
            )
    return tree


def _explain(path: Path, cls: type[Params], values: Any, error: ValidationError) -> str:
    """Return one line that names every faulty key, its value and what was expected."""
    faults = []
    errors = error.errors(include_url=False)
    for fault in errors:
        depth = len(fault["loc"])
        if fault["type"] == "too_short" and any(each["loc"][:depth] == fault["loc"] != each["loc"] for each in errors):
            continue  # items that are refused are left out before a list is counted
        place = cls.section + _place(values, fault["loc"])
        if fault["type"] == "extra_forbidden":
            hint = did_you_mean(str(fault["loc"][-1]), _names(cls))
            faults.append(f"{place}: unknown key{hint}; remove or rename it")
        elif fault["type"] == "union_tag_not_found":
            faults.append(f"{place}: has no {fault['ctx']['discriminator']}; add it")
        elif fault["type"] == "missing":
            faults.append(f"{place}: missing; add it")
        else:
            faults.append(f"{place}: {_got(fault['input'])}{fault['msg'].removeprefix('Value error, ')}")
    return f"{path}: " + " | ".join(faults)


def _place(values: Any, loc: tuple[int | str, ...]) -> str:
    """Return the path to a value with what each item of a list calls itself: `.train.3 (BoolQ).rows`."""
    place = ""
    for part in loc:
        try:
            values = values[part]
        except (LookupError, TypeError):  # which of several kinds of value it is stands there, too
            values = None
        name = values.get("task") if isinstance(part, int) and isinstance(values, dict) else None
        place += f".{part}" + (f" ({name})" if name else "")
    return place


def _got(value: Any) -> str:
    """Return the faulty value; nothing for a whole section or list, whose message names what is wrong in it."""
    return "" if value and isinstance(value, (dict, list)) else f"got {value!r}: "


def _names(cls: type[BaseModel]) -> list[str]:
    """Return the field names of `cls` and of every model nested in it."""
    names: list[str] = []
    pending: list[Any] = [cls]
    seen: set[Any] = set()
    while pending:
        item = pending.pop()
        pending.extend(getattr(item, "__args__", ()))
        if isinstance(item, type) and issubclass(item, BaseModel) and item not in seen:
            seen.add(item)
            names.extend(item.model_fields)
            pending.extend(field.annotation for field in item.model_fields.values())
    return names


def did_you_mean(name: str, known: Sequence[str], most: int = 1) -> str:
    """Return in brackets which known names, so many at most, are close to a mistyped one, or nothing."""
    close = difflib.get_close_matches(name, known, n=most)
    return f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""
