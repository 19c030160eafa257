"""Whatever is wrong in params.yaml is one line with key, value and remedy."""

import io
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import pytest
import yaml
from pydantic import Field, model_validator
from ruamel.yaml import YAML

from anna.errors import InputError
from anna.params import Loader, Params, Strict

REPO = Path(__file__).parents[1]
SHIPPED = sorted((REPO / "presets").glob("*.yaml"))

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


def rewritten(text: str) -> str:
    """Return the text as `dvc exp run -S` writes it."""
    written = io.StringIO()
    YAML().dump(YAML().load(text), written)
    return written.getvalue()


def read(text: str) -> Any:
    return yaml.load(text, Loader)


@pytest.mark.parametrize("path", [REPO / "params.yaml", *SHIPPED], ids=lambda path: path.name)
def test_shipped_params_mean_the_same_in_either_yaml_and_after_dvc(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert read(text) == yaml.safe_load(text) == read(rewritten(text))
    assert len(SHIPPED) > 1


WORDS = "yes No ON off y n true False null ~ 12:30 -1:30 1:2:3.5 012 0_7 08 0o17 0x1F 0b11 1_000 1e4 1e-4 1.5e+3 .inf"


@pytest.mark.parametrize("word", [*WORDS.split(), "2024-01-02", "1.0", "7", "a: b", "<<", "="])
def test_quoted_text_stays_text_when_dvc_writes_it(word: str) -> None:
    text = f"a: \"{word}\"\nb: ['{word}']\n"
    assert read(rewritten(text)) == read(text) == {"a": word, "b": [word]}


def test_bare_words_and_numbers_are_those_of_yaml_1_2() -> None:
    text = "[yes, Off, 12:30, 1:30.5, 012, true, TRUE, False, 7, 1_000, 0x1F, 1.5, 1.0e-4, .inf, null, ~, 2024-01-02]"
    *others, day = read(text)
    assert others[:5] == ["yes", "Off", "12:30", "1:30.5", "012"]
    assert others[5:] == [True, True, False, 7, 1000, 31, 1.5, 1e-4, float("inf"), None, None]
    assert day == yaml.safe_load("2024-01-02")
    assert read("a: &a {x: no, y: 1}\nb: {<<: *a, y: 2}") == {"a": {"x": "no", "y": 1}, "b": {"x": "no", "y": 2}}
    assert read("!!bool yes") is True


def test_a_section_is_read_so(tmp_path: Path) -> None:
    class Words(Params):
        section: ClassVar[str] = "filter"
        words: dict[str, str | bool | int]

    assert load_as(Words, tmp_path, "filter: {words: {no: no, at: 12:30}}").words == {"no": "no", "at": "12:30"}
    with pytest.raises(InputError, match="key 'no' stands in line 2 and again in line 3"):
        load_as(Words, tmp_path, "filter:\n  no: 1\n  'no': 2\n")
