"""What params say of sources: where rows lie, how they are read and cleaned, and which of our columns theirs become."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from anna.origins import HubOrigin, Origin
from anna.params import Strict

Format = Literal["jsonl", "json", "csv", "tsv", "parquet", "lines", "folders", "beir", "obo", "stix"]

_PLACE = re.compile(r"\{([^{}]*)\}")
"""A column in a template, whatever its name is."""

ALL = "all"
"""What `anna margins` and the report call all tasks together, so no task can have this name."""

_PAIRS = (("text1", "text2", "score"),)
_LABELLED = (("text", "label"),)

COLUMNS: dict[str, tuple[tuple[str, ...], ...]] = {
    "retrieval": tuple(
        ("query", positives, *others) for others in ((), ("negatives",), ("unjudged",)) for positives in ("doc", "docs")
    ),
    "sts": _PAIRS,
    "classification": _LABELLED,
    "Retrieval": (("query", "doc"), ("query", "docs"), ("query", "docs", "relevances")),
    "Reranking": (("query", "doc", "relevance"),),
    "STS": _PAIRS,
    "Classification": _LABELLED,
    "Clustering": _LABELLED,
    "PairClassification": _PAIRS,
    "Summarization": (("source", "good", "bad"), ("source", "summaries", "relevances")),
    "distractors": (("doc",), ("docs",)),
}
"""By kind of training source and type of held-out task: the sets of our columns, any of which will do. A plural name
holds a list."""


def _listed(wanted: Any) -> Any:
    values = wanted if isinstance(wanted, list | tuple) else (wanted,)
    if not values or not all(isinstance(value, str | bool | int | float) for value in values):
        raise ValueError(
            "expected a value or a list of values: texts, numbers, true or false; rows without a value are left out by "
            "require"
        )
    return tuple(values)


Wanted = Annotated[tuple[str | bool | int | float, ...], BeforeValidator(_listed)]
"""Values that rows are selected by; params.yaml may name one of them, or list several."""


class Reading(Strict):
    """How rows are read and selected. Rows that are not selected are counted as drops, by reason."""

    origin: Origin
    format: Format | None = None
    """Of the file or folder; none for the hub."""
    header: tuple[str, ...] | None = None
    """Column names of a CSV or TSV file that does not begin with them."""
    pattern: str | None = None
    """Of `lines`: a regular expression whose named groups are the columns."""
    records: Literal["synonyms", "synonym_pairs"] | None = None
    """Of `obo`: what a row is."""
    split: str | None = Field(default=None, pattern=r"^[\w.-]+$")
    """Of `beir`: whose judged queries are the rows; null: the rows are the documents."""
    columns: dict[str, str] = Field(min_length=1)
    """Our column -> the source's column, or a template of its columns such as "{title} -- {passage}"."""
    require: tuple[str, ...] = ()
    """Source columns without which a row is not meant for this use."""
    where: dict[str, Wanted] = Field(default_factory=dict)
    """Source column -> the value that a row must have, or a list of values, one of which it must have."""
    unless: dict[str, Wanted] = Field(default_factory=dict)
    """Source column -> the value, or the values, that a row must not have."""
    minus: tuple["Reading", ...] = ()
    """Rows to leave out: those that equal one of these in each of its columns."""
    rows: int | None = Field(default=None, gt=0)
    """How many to keep, drawn by a seeded hash of their content; null for all."""
    licence: str | None = Field(default=None, min_length=1)
    """What the rows may be used under, as their publisher says; null: not stated, and the model card says so."""

    @property
    def named(self) -> frozenset[str]:
        """The source's columns that anything here names; no other need be read."""
        mapped = (column for theirs in self.columns.values() for column in source_columns(theirs))
        return frozenset((*mapped, *self.where, *self.unless, *self.require))

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            groups = re.compile(pattern or "").groupindex
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        if pattern is not None and not groups:
            raise ValueError("has no named group such as (?P<text>.+)")
        return pattern

    @field_validator("header")
    @classmethod
    def _is_unique(cls, header: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if repeated := repeats(header or ()):
            raise ValueError(f"names columns {repeated} more than once")
        return header

    @field_validator("columns")
    @classmethod
    def _are_templates(cls, columns: dict[str, str]) -> dict[str, str]:
        for ours, theirs in columns.items():
            if not all(source_columns(theirs)):
                raise ValueError(f"{ours}: {theirs!r} has an empty column name")
            if is_template(theirs) and ours in ("score", "relevances"):
                raise ValueError(f"{ours}: {theirs!r} is a template, which makes text, expected the name of a column")
            if is_template(theirs) and re.search("[{}]", _PLACE.sub("", theirs)):
                raise ValueError(f"{ours}: {theirs!r} has a brace that is not part of a {{column}}")
        return columns

    @model_validator(mode="after")
    def _format_fits(self) -> Self:
        if isinstance(self.origin, HubOrigin) != (self.format is None):
            raise ValueError("format: must be given for wheel and files, and left out for the hub")
        for name, formats, is_needed in (
            ("header", ("csv", "tsv"), False),
            ("pattern", ("lines",), True),
            ("records", ("obo",), True),
            ("split", ("beir",), False),
        ):
            if getattr(self, name) is not None and self.format not in formats:
                raise ValueError(f"{name}: only for format {' or '.join(formats)}")
            if getattr(self, name) is None and is_needed and self.format in formats:
                raise ValueError(f"{name}: missing for format {self.format}")
        if self.format == "beir" and self.split is None and self.named != {"doc"}:
            raise ValueError(
                "split: missing; without it the rows of a beir folder are its documents, of one column, doc"
            )
        return self

    @model_validator(mode="after")
    def _minus_fits(self) -> Self:
        for other in self.minus:
            if not set(other.columns) <= set(self.columns):
                raise ValueError(f"minus: has columns {sorted(other.columns)}, expected some of {sorted(self.columns)}")
            if other.rows is not None:
                raise ValueError(
                    f"minus: has rows: {other.rows}, but leaves out whatever equals any of its rows; delete `rows`"
                )
        return self

    def check_columns(self, use: str) -> None:
        """Raise ValueError unless the mapped columns are a set that `use` can be filled from."""
        if set(self.columns) not in [set(names) for names in COLUMNS[use]]:
            wanted = " or ".join(str(sorted(names)) for names in COLUMNS[use])
            raise ValueError(f"columns: got {sorted(self.columns)}, expected {wanted} for {use}")


def _is_one_task(name: str) -> str:
    if name == ALL:
        raise ValueError("is what all tasks together are called; choose another name")
    return name


TaskName = Annotated[str, Field(pattern=r"^[\w.-]+$"), AfterValidator(_is_one_task)]


class TrainSource(Reading):
    """Rows that one training task, a collection of its own, is made of."""

    task: TaskName
    """Name of the task; selects the collection searched and the instruction."""
    kind: Literal["retrieval", "sts", "classification"]
    """Where positives come from: the rows (`retrieval`), pairs from a similarity on (`sts`), another text of the class
    (`classification`)."""
    positive_at: float | None = None
    """Of `sts`: the similarity from which a pair is a positive."""
    distractors: tuple[Reading, ...] = ()
    """Of `retrieval`: documents that join the collection though no row names them; entries of `examples` have none."""

    @model_validator(mode="after")
    def _kind_fits(self) -> Self:
        self.check_columns(self.kind)
        for reading in self.distractors:
            reading.check_columns("distractors")
        if self.distractors and self.kind != "retrieval":
            raise ValueError("distractors: only for kind retrieval")
        if (self.positive_at is None) == (self.kind == "sts"):
            raise ValueError("positive_at: must be given for kind sts, and for no other")
        return self


class HeldOutSource(Reading):
    """Rows of one held-out task."""

    task: TaskName
    """Name of the task; unique among the held-out tasks."""
    type: Literal[
        "Retrieval", "Reranking", "STS", "Classification", "Clustering", "PairClassification", "Summarization"
    ]
    """Category of MTEB. `rows` counts queries, pairs, texts or sources summarised."""
    relevant: tuple[str, ...] = ()
    """Of Reranking: values of `relevance` that mean relevant."""
    train_rows: int | None = Field(default=None, gt=0)
    """Of Classification: texts that the classifier is fitted on, classes in turn."""
    distractors: tuple[Reading, ...] = ()
    """Of Retrieval: documents that no query of the task asks for."""
    hold_out_distractors: bool = True
    """Whether training leaves out the distractors, as it does all else of the task; false where it searches the same
    collection, as in BEIR."""
    examples: Origin | None = None
    """Where in-context examples come from if all rows of the task are scored, read as `origin` is; null: from its own
    rows, which are then not scored."""

    @model_validator(mode="after")
    def _type_fits(self) -> Self:
        self.check_columns(self.type)
        for reading in self.distractors:
            reading.check_columns("distractors")
        for name, owner in (("relevant", "Reranking"), ("train_rows", "Classification"), ("distractors", "Retrieval")):
            if getattr(self, name) and self.type != owner:
                raise ValueError(f"{name}: only for type {owner}")
            if not getattr(self, name) and self.type == owner and name != "distractors":
                raise ValueError(f"{name}: missing for type {owner}")
        if not self.hold_out_distractors and not self.distractors:
            raise ValueError("hold_out_distractors: is false, but there are no distractors; declare them")
        return self

    @model_validator(mode="after")
    def _examples_fit(self) -> Self:
        if self.examples and isinstance(self.examples, HubOrigin) != isinstance(self.origin, HubOrigin):
            raise ValueError(
                f"examples: are of kind {self.examples.kind} and origin of kind {self.origin.kind}, but both are read "
                "in one way; take both from the hub, or neither"
            )
        return self


class Cleaning(NamedTuple):
    """How the rows of every source are cleaned and drawn."""

    max_faulty_share: float
    """Share of a source's chosen rows that may have a fault, in [0, 1]."""
    near_duplicate: float | None
    """Jaccard similarity from which texts count as one, in (0, 1]; None: equal ones only."""
    seed: int
    """Of every draw; streams are told apart by task and use."""


def repeats(header: Sequence[str]) -> list[str]:
    """Return the names that a header has more than once. The empty name may repeat: no one can ask for its columns."""
    return sorted(name for name, times in Counter(header).items() if name and times > 1)


def is_template(theirs: str) -> bool:
    """Return whether this is a template of columns, not the name of one."""
    return "{" in theirs


def is_one_column(theirs: str) -> bool:
    """Return whether this is the name of one column, in braces or not, and nothing else."""
    return not is_template(theirs) or _PLACE.fullmatch(theirs) is not None


def source_columns(theirs: str) -> tuple[str, ...]:
    """Return the source columns that a column name or a template with braces names."""
    return tuple(_PLACE.findall(theirs)) if is_template(theirs) else (theirs,)


def fill(template: str, texts: Mapping[str, str]) -> str:
    """Return a template with the text of each column in its place."""
    return _PLACE.sub(lambda place: texts[place[1]], template)
