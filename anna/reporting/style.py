"""Colours, names and number formats: one for the page and the figures, so that a model looks the same everywhere."""

from typing import Any, NamedTuple

MISSING = "–"  # noqa: RUF001 - the dash that says "no number" in a table


class Colour(NamedTuple):
    """One role in both schemes, as #rrggbb."""

    light: str
    dark: str


PALETTE = {
    "surface": Colour("#ffffff", "#12161c"),
    "ink": Colour("#1d2329", "#e4e9ee"),
    "muted": Colour("#5b6670", "#98a4b0"),
    "grid": Colour("#e2e6ea", "#2b333c"),
    "candidate": Colour("#b4bcc4", "#56616c"),
    "student": Colour("#0072b2", "#3d9fe0"),
    "student-examples": Colour("#56b4e9", "#a6d8fb"),
    "untrained": Colour("#999fa5", "#727c86"),
    "teacher": Colour("#e69f00", "#f0b429"),
    "bm25": Colour("#009e73", "#2fc296"),
    "positive": Colour("#6a4fb3", "#a793ea"),
    "negative": Colour("#d55e00", "#f58c3c"),
}
"""Models and signals from Okabe and Ito's palette, which colour-blind readers can tell apart (jfly.uni-koeln.de/color);
violet and vermilion for positive and negative. A figure is drawn in the light scheme, and the page replaces each light
colour by a CSS variable: so no two roles may share one."""

COLUMNS = {
    "student": ("Student", "student"),
    "student_with_examples": ("Student + examples", "student-examples"),
    "untrained": ("Untrained", "untrained"),
    "teacher": ("Dense teacher", "teacher"),
    "bm25": ("BM25", "bm25"),
}
"""Models, in their modes, in the order shown: name and role in the palette."""


def light(role: str) -> str:
    """Return the colour in which figures are drawn."""
    return PALETTE[role].light


def column_name(column: str) -> str:
    """Return how a model in a mode is called."""
    return COLUMNS[column][0] if column in COLUMNS else words(column)


def words(name: str) -> str:
    """Return an identifier as words: `near_duplicate` -> `near duplicate`."""
    return name.replace("_", " ")


def score(value: float | None) -> str:
    """Return a score with three decimals, or a dash."""
    # A zero has no sign here; a minus sign is a real one.
    return MISSING if value is None else f"{round(value, 3) + 0.0:.3f}".replace("-", "−")  # noqa: RUF001


def change(after: float, before: float) -> str:
    """Return the difference of two scores as they are shown, with its sign."""
    difference = round(after, 3) - round(before, 3)
    return f"{'+' if difference > 0 else ''}{score(difference)}"


def percent(share: float | None) -> str:
    """Return a share as per cent, or a dash."""
    return MISSING if share is None else f"{100 * share:.1f} %"


def count(number: int | None) -> str:
    """Return a whole number with thousands apart, or a dash."""
    return MISSING if number is None else f"{number:,}"


def duration(seconds: float | None) -> str:
    """Return a time in the two units that matter, or a dash."""
    if seconds is None:
        return MISSING
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def plain(value: Any) -> str:
    """Return any value of a metrics file as text; floats keep all their digits."""
    if value is None:
        return MISSING
    if isinstance(value, bool) or not isinstance(value, int):
        return str(value)
    return count(value)
