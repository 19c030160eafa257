import random
import time

import numpy as np
import pytest

from anna.corpus.dedup import NearIndex, jaccard, merge_texts, outline, shingles
from anna.folding import normalise

WORDS = [f"word{number}" for number in range(400)]


def reference_jaccard(left: str, right: str) -> float:
    """Jaccard similarity of 3-word shingles, on the strings themselves."""
    sets = []
    for text in (left, right):
        words = normalise(text).split()
        sets.append({tuple(words[start : start + 3]) for start in range(max(1, len(words) - 2))})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def make_text(rng: random.Random, length: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(length))


def merge(texts: dict[str, str], threshold: float | None) -> tuple[dict[str, str], dict[str, str]]:
    """Return which key stands for each, and why a key became another."""
    dropped: dict[str, str] = {}

    def drop(reason: str, example: str) -> None:
        dropped[example.split(":", maxsplit=1)[0]] = reason

    survivors = merge_texts(texts, threshold, "document", drop)
    keys = {text: key for key, text in texts.items()}
    return {keys[text]: keys[survivor] for text, survivor in survivors.items()}, dropped


def alter(rng: random.Random, text: str, changes: int) -> str:
    words = text.split()
    for _ in range(changes):
        words[rng.randrange(len(words))] = rng.choice(WORDS)
    return " ".join(words)


def test_jaccard_equals_the_reference() -> None:
    rng = random.Random(1)
    for length in (1, 2, 3, 4, 10, 60):
        text = make_text(rng, length)
        for other in (text, alter(rng, text, 1), alter(rng, text, 5), make_text(rng, length)):
            assert jaccard(shingles(text), shingles(other)) == pytest.approx(reference_jaccard(text, other))


def test_shingles_depend_on_word_order_and_not_on_case() -> None:
    assert np.array_equal(shingles("One two, THREE"), shingles("one two three"))
    assert not np.array_equal(shingles("one two three"), shingles("three two one"))
    assert len(shingles("one")) == 1


def test_finds_nearly_all_pairs_at_the_threshold_and_none_below() -> None:
    rng = random.Random(2)
    index = NearIndex(0.8)
    texts = {f"{number:03d}": make_text(rng, 80) for number in range(200)}
    for key, text in texts.items():
        index.add(key, outline(text))
    missed = found = 0
    for text in texts.values():
        changed = alter(rng, text, rng.randrange(1, 6))
        expected = reference_jaccard(text, changed) >= 0.8
        key = index.find(outline(changed))
        assert key is None or texts[key] == text, "never reports a pair below the threshold"
        assert key is None or expected
        found += key is not None
        missed += expected and key is None
    assert missed == 0
    assert found > 30


def test_merges_into_the_first_key_and_says_why() -> None:
    rng = random.Random(3)
    long = make_text(rng, 60)
    texts = {"d": "Same text.", "b": "same  TEXT", "a": long, "c": long + " more", "e": "something else"}
    survivors, dropped = merge(texts, 0.8)
    assert survivors == {"a": "a", "b": "b", "c": "a", "d": "b", "e": "e"}
    assert dropped == {"d": "duplicate_document", "c": "near_duplicate_document"}


def test_copy_of_a_near_duplicate_goes_where_that_went() -> None:
    long = make_text(random.Random(3), 60)
    survivors, dropped = merge({"a": long, "b": long + " more", "c": long + " MORE!"}, 0.8)
    assert survivors == {"a": "a", "b": "a", "c": "a"}
    assert dropped == {"b": "near_duplicate_document", "c": "duplicate_document"}


def test_no_threshold_means_exact_only() -> None:
    long = make_text(random.Random(3), 60)
    assert merge({"a": long, "b": long + " more"}, None) == ({"a": "a", "b": "b"}, {})


def test_a_chain_is_not_followed() -> None:
    words = make_text(random.Random(5), 100).split()
    texts = {str(step): " ".join(words[7 * step : 7 * step + 58]) for step in range(4)}
    survivors, _ = merge(texts, 0.75)
    for key, survivor in survivors.items():
        assert key == survivor or reference_jaccard(texts[key], texts[survivor]) >= 0.75
    assert set(survivors.values()) == {"0", "2"}


def test_is_fast() -> None:
    rng = random.Random(4)
    texts = {str(number): make_text(rng, 30) for number in range(1500)}
    started = time.process_time()
    merge(texts, 0.8)
    # 15,000 short texts in 15 s, with room for a busy machine.
    assert time.process_time() - started < 3.0
