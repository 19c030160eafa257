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
