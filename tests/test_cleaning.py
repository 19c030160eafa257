"""Texts are cleaned alike in tables, in searches, and by those who follow the model card."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anna.cleaning import clean
from tests.test_contracts import REPO

CARD = (REPO / "anna/reporting/card.md.j2").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("  two\t\nlines\r\n here ", "two lines here"),
        ("cafe\u0301", "caf\u00e9"),
        ("cafe\u200b\u0301", "caf\u00e9"),
        ("nul\x00 and bell\x07", "nul and bell"),
        ("\ufeffmark\u200b", "mark"),
        ("no\u00a0break\u2003space", "no break space"),
        ("one<br /><br/>two<BR>three", "one two three"),
        ("a < b <b>kept</b>", "a < b <b>kept</b>"),
        ("\x00\u200b \n", ""),
    ],
)
def test_clean(raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned


@given(st.text() | st.text(alphabet="ae<bBrR/>\u00e9\u0301\u0338\u200b\ufeff\x07\x85\x9f \n"))
def test_the_two_lines_of_the_model_card_do_the_same(text: str) -> None:
    recipe = re.search(r"```python\n(import re\n.*?)```", CARD, re.DOTALL)
    assert recipe
    names = {"text": text}
    exec(recipe[1], names)
    assert names["text"] == clean(text)
