"""How a plan shows numbers."""

import pytest

from anna.footprint import GIB
from anna.planning import text


def test_columns_are_aligned() -> None:
    assert text.aligned([("a", "1", "x"), ("bcd", "100", "")]) == ["a      1  x", "bcd  100"]


@pytest.mark.parametrize(
    ("number", "expected"), [(0, "-"), (999, "999"), (1234, "1.23 k"), (56_789_000, "56.8 M"), (7.1e20, "710 E")]
)
def test_numbers_have_three_digits(number: float, expected: str) -> None:
    assert text.count(number) == expected


def test_bytes_and_times() -> None:
    assert [text.size(n) for n in (0, 100, 5 * 2**20, 1.5 * GIB, 3000 * GIB)] == [
        "-",
        "1 KiB",
        "5.00 MiB",
        "1.50 GiB",
        "2.93 TiB",
    ]
    assert [text.duration(n) for n in (7.4, 200, 5000, 90_000)] == ["7 s", "3 min", "83 min", "25.0 h"]
