"""Numbers as text, and a palette in which no two roles are mixed up."""

import itertools

import pytest

from anna.reporting import style


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, style.MISSING),
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (61.4, "1 min 01 s"),
        (3599.7, "1 h 00 min"),
        (7325, "2 h 02 min"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert style.duration(seconds) == text


def test_scores_have_three_decimals_and_a_real_minus() -> None:
    assert [style.score(0.65312), style.score(-0.1), style.score(None)] == ["0.653", "−0.100", "–"]  # noqa: RUF001


def test_other_numbers() -> None:
    assert style.percent(0.80123) == "80.1 %"
    assert style.count(1234567) == "1,234,567"
    assert [style.plain(True), style.plain(1200), style.plain(0.123456), style.plain("x")] == [
        "True",
        "1,200",
        "0.123456",
        "x",
    ]


def test_no_two_roles_share_a_light_colour() -> None:
    colours = [colour.light for colour in style.PALETTE.values()]
    assert len(set(colours)) == len(colours)
    assert all(colour == colour.lower() for colour in colours), "matplotlib writes lower case"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_models_differ_in_lightness_or_hue_from_their_neighbours_and_the_page(scheme: str) -> None:
    def rgb(role: str) -> tuple[int, ...]:
        return tuple(bytes.fromhex(getattr(style.PALETTE[role], scheme)[1:]))

    roles = ["surface", *dict.fromkeys(role for _, role in style.COLUMNS.values())]
    for one, other in itertools.combinations(roles, 2):
        assert sum(abs(a - b) for a, b in zip(rgb(one), rgb(other), strict=True)) > 90, (one, other)
