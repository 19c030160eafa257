from anna.corpus.decontaminate import HeldOutTexts

LONG = " ".join(f"w{number}" for number in range(40))


def test_verdicts() -> None:
    texts = HeldOutTexts(["What is a lynx?", LONG], 0.8)
    assert texts.verdict("what is a LYNX") == "contaminated"
    assert texts.verdict(LONG + " more") == "near_contaminated"
    assert texts.verdict("what is a bear") is None
    assert texts.verdict(LONG[: len(LONG) // 2]) is None


def test_without_threshold_only_equal_texts_count() -> None:
    texts = HeldOutTexts([LONG], None)
    assert texts.verdict(LONG.upper()) == "contaminated"
    assert texts.verdict(LONG + " more") is None


def test_no_held_out_text_contaminates_nothing() -> None:
    assert HeldOutTexts([], 0.8).verdict("anything") is None
