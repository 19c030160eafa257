import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anna.corpus.clean import UnusableError, clean_text
from anna.folding import normalise


@pytest.mark.parametrize(
    ("raw", "reason"),
    [("", "empty_text"), (" \n\t", "empty_text"), ("\x00\u200b", "empty_text"), ("caf\udce9", "undecodable")],
)
def test_unusable_text_has_a_reason(raw: str, reason: str) -> None:
    with pytest.raises(UnusableError, match=f"^{reason}$"):
        clean_text(raw)


@given(st.text() | st.text(alphabet="ae<br>\u00e9\u0301\u0338\u200b\x07 \n"))
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    try:
        cleaned = clean_text(text)
    except UnusableError:
        return
    assert clean_text(cleaned) == cleaned
    assert unicodedata.is_normalized("NFC", cleaned)
    assert normalise(cleaned)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("The End.", "the end"),
        ("Well-known  facts", "well known facts"),
        ("STRASSE", "stra\u00dfe"),
        ("\u201cquoted\u201d", "quoted"),
    ],
)
def test_normalise_folds_case_punctuation_and_space(text: str, same: str) -> None:
    assert normalise(text) == normalise(same)


@pytest.mark.parametrize(("text", "other"), [("C++", "C"), ("?!", "..."), ("\u0915\u093f", "\u0915\u093e"), ("1", "2")])
def test_normalise_keeps_what_differs(text: str, other: str) -> None:
    assert normalise(text) != normalise(other)
