import pytest

from anna.corpus.decontaminate import HeldOutTexts

LONG = " ".join(f"w{number}" for number in range(40))


def test_verdicts() -> None:
    texts = HeldOutTexts(["What is a lynx?", LONG], 0.8)
    asked = ["what is a bear", "what is a LYNX", LONG + " more", LONG[: len(LONG) // 2], "What is... a lynx!"]
    assert texts.verdicts(asked) == {
        "what is a LYNX": "contaminated",
        "What is... a lynx!": "contaminated",
        LONG + " more": "near_contaminated",
    }
    assert texts.verdicts([]) == {}


def test_without_threshold_only_equal_texts_count() -> None:
    texts = HeldOutTexts([LONG], None)
    assert texts.verdicts([LONG.upper(), LONG + " more"]) == {LONG.upper(): "contaminated"}


def test_no_held_out_text_contaminates_nothing() -> None:
    assert HeldOutTexts([], 0.8).verdicts(["anything"]) == {}


WIDE = "".join(" " if char == " " else chr(ord(char) + 0xFEE0) for char in "what is a lynx")
"""The same in full-width letters."""


@pytest.mark.parametrize("text", ["what is a ly\u00adnx", "what is a lynx\u200e?", "\u2060what is a lynx\ufe0f", WIDE])
@pytest.mark.parametrize("is_held_out", [False, True])
def test_what_nobody_sees_and_other_forms_of_letters_hide_no_held_out_text(text: str, is_held_out: bool) -> None:
    held_out, asked = (text, "What is a lynx?") if is_held_out else ("What is a lynx?", text)
    assert HeldOutTexts([held_out], 0.8).verdicts([asked]) == {asked: "contaminated"}


def test_what_nobody_sees_hides_no_near_duplicate() -> None:
    hidden = LONG.replace("w", "w\u00ad") + " more"
    assert HeldOutTexts([LONG], 0.8).verdicts([hidden]) == {hidden: "near_contaminated"}
    assert HeldOutTexts([hidden], 0.8).verdicts([LONG]) == {LONG: "near_contaminated"}
