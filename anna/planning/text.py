"""How a plan shows numbers."""

from collections.abc import Sequence

from tabulate import tabulate

from anna.footprint import GIB


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines; the first and the last column stand left, all others right."""
    sides = ("left", *["right"] * (len(rows[0]) - 2), "left")
    return tabulate(rows, tablefmt="plain", disable_numparse=True, colalign=sides).splitlines()


def count(number: float) -> str:
    """Return a number with three digits and its unit: 1.33 G."""
    if not number:
        return "-"
    for unit, base in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= base:
            return f"{_three(number / base)} {unit}"
    return f"{number:.0f}"


def size(number: float) -> str:
    """Return a number of bytes with three digits and its unit: 1.33 GiB."""
    if not number:
        return "-"
    for unit, base in (("TiB", 1024 * GIB), ("GiB", GIB), ("MiB", 2**20)):
        if number >= base:
            return f"{_three(number / base)} {unit}"
    return f"{max(1, number / 1024):.0f} KiB"


def duration(seconds: float) -> str:
    """Return a time in seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _three(number: float) -> str:
    return f"{number:.2f}" if number < 10 else f"{number:.1f}" if number < 100 else f"{number:,.0f}"
