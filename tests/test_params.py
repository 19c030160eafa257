"""Whatever is wrong in params.yaml is one line with key, value and remedy."""

from pathlib import Path
from typing import ClassVar, Self, TypeVar

import pytest
from pydantic import Field, model_validator

from anna.errors import InputError
from anna.params import Params, Strict

P = TypeVar("P", bound=Params)


class Inner(Strict):
    depth: int = Field(gt=0)


class Toy(Params):
    section: ClassVar[str] = "filter"

    margin: float = Field(gt=0)
    inner: Inner
    more: tuple[Inner, ...] = Field(default=(Inner(depth=1),), min_length=1)


class Agreeing(Params):
    section: ClassVar[str] = "filter"

    low: int
    high: int

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}; lower it")
        return self


GOOD = "filter: {margin: 1e-4, inner: {depth: 3}}\n"


def load(tmp_path: Path, text: str) -> Toy:
    return load_as(Toy, tmp_path, text)


def load_as(cls: type[P], tmp_path: Path, text: str) -> P:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return cls.load(path)


def test_loads_and_is_frozen(tmp_path: Path) -> None:
    toy = load(tmp_path, GOOD)
    assert toy.margin == 1e-4  # PyYAML hands over a string, DVC a float
    with pytest.raises(ValueError, match="frozen"):
        toy.margin = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("filter: {margn: 1, margin: 1, inner: {depth: 3}}", r"filter\.margn: unknown key \(did you mean 'margin'\?\)"),
        ("filter: {margin: 1, inner: {dept: 3, depth: 1}}", r"filter\.inner\.dept: unknown key \(did you mean 'depth'"),
        ("filter: {margin: much, inner: {depth: 3}}", r"filter\.margin: got 'much': .*valid number"),
        ("filter: {margin: 1, inner: {depth: 0}}", r"filter\.inner\.depth: got 0: .*greater than 0"),
        ("filter: {inner: {depth: 3}}", r"filter\.margin: missing; add it"),
        (
            "filter: {margin: 1, inner: {depth: 3}, more: [{depth: 1}, {task: BoolQ, depth: 0}]}",
            r"filter\.more\.1 \(BoolQ\)\.depth: got 0",
        ),
        ("filtre: {}\nfilter: {margin: 1, inner: {depth: 3}}", r"unknown section 'filtre' \(did you mean 'filter'\?\)"),
        ("train: {}", r"has no section 'filter'"),
        ("- 1", r"holds list, expected a mapping"),
        ("a: [", r"is not valid YAML"),
    ],
)
def test_each_fault_is_one_exact_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        load(tmp_path, text)
    assert "\n" not in str(raised.value)


def test_all_faults_of_a_section_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"margin: missing.* \| .*depth: got -1"):
        load(tmp_path, "filter: {inner: {depth: -1}}")


@pytest.mark.parametrize(
    ("items", "faults"),
    [
        ("[{depth: 0}]", r"filter\.more\.0\.depth: got 0: [^|]*"),
        ("[]", r"filter\.more: got \[\]: [^|]*at least 1 item[^|]*"),
    ],
)
def test_a_list_is_too_short_only_where_its_items_are_right(tmp_path: Path, items: str, faults: str) -> None:
    with pytest.raises(InputError, match=rf"params\.yaml: {faults}$"):
        load(tmp_path, f"filter: {{margin: 1, inner: {{depth: 3}}, more: {items}}}")


def test_keys_that_disagree_are_told_without_the_whole_section(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"params\.yaml: filter: low 2 is above high 1; lower it$"):
        load_as(Agreeing, tmp_path, "filter: {low: 2, high: 1}")


def test_a_missing_file_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"does not exist in .*; run from the project root"):
        Toy.load(tmp_path / "params.yaml")
