import math
import random

import numpy as np
import pytest

from anna.corpus import minhash
from anna.corpus.dedup import jaccard, merge_texts, near_duplicates
from anna.corpus.minhash import agreeing, bands, minima, shape, shingles
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
        others = [text, alter(rng, text, 1), alter(rng, text, 5), make_text(rng, length), make_text(rng, 9)]
        got = jaccard(shingles(text), [shingles(other) for other in others])
        np.testing.assert_allclose(got, [reference_jaccard(text, other) for other in others])


def test_shingles_depend_on_word_order_and_not_on_case() -> None:
    assert np.array_equal(shingles("One two, THREE"), shingles("one two three"))
    assert not np.array_equal(shingles("one two three"), shingles("three two one"))
    assert len(shingles("one")) == 1


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.9])
def test_finds_nearly_all_pairs_at_the_threshold_and_none_below(threshold: float) -> None:
    rng = random.Random(2)
    texts = [make_text(rng, 80) for _ in range(300)]
    changed = [alter(rng, text, rng.randrange(1, 10)) for text in texts]
    similarities = [reference_jaccard(*pair) for pair in zip(texts, changed, strict=True)]
    found = near_duplicates([*texts, *changed], threshold)
    # With this seed none is missed, which is to be expected of one in a thousand.
    expected = {300 + place: place for place, similarity in enumerate(similarities) if similarity >= threshold}
    assert found == expected
    assert len(expected) > 10


def test_a_text_has_the_same_bands_alone_and_among_others(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(6)
    texts = [make_text(rng, length) for length in (1, 2, 3, 4, 50, 1, 7, 2, 3)] + ["?!"]
    together = bands(texts, 0.8)
    assert together.shape == (10, shape(0.8)[0])
    for text, own in zip(texts, together, strict=True):
        np.testing.assert_array_equal(bands([text], 0.8)[0], own)
    monkeypatch.setattr("anna.corpus.minhash.TEXTS_AT_ONCE", 4)
    np.testing.assert_array_equal(bands(texts, 0.8), together)
    monkeypatch.setattr("anna.corpus.minhash.CHARACTERS_AT_ONCE", 20)
    blocks = list(minhash._blocks(texts))
    assert [place for block in blocks for place in range(*block.indices(len(texts)))] == list(range(len(texts)))
    assert all(sum(map(len, texts[block][:-1])) < 20 for block in blocks), "a block ends where it has so many"
    assert 1 < max(len(texts[block]) for block in blocks) <= 4
    np.testing.assert_array_equal(bands(texts, 0.8), together)
    assert bands([], 0.8).shape == (0, shape(0.8)[0])


def test_bands_are_the_smallest_values_of_permuted_shingles() -> None:
    text = make_text(random.Random(7), 30)
    factors, terms = minhash._permutations()
    values = [
        min((int(gram) * int(a) + int(b)) % 2**32 for gram in shingles(text))
        for a, b in zip(factors, terms, strict=True)
    ]
    num_bands, rows = shape(0.8)
    expected = []
    for band in range(num_bands):
        key = 0
        for value in values[band * rows : (band + 1) * rows]:
            key = (key + value) * int(minhash._FACTORS[0]) % 2**64
        expected.append(key)
    assert bands([text], 0.8)[0].tolist() == expected


def test_minima_are_what_the_bands_are_made_of() -> None:
    rng = random.Random(8)
    texts = [make_text(rng, length) for length in (1, 30, 200)]
    num_bands, rows = shape(0.8)
    found = minima(texts, 0.8)
    assert found.shape == (3, num_bands * rows)
    keys = np.zeros((3, num_bands), dtype=np.uint64)
    for row in range(rows):
        keys = (keys + found[:, row::rows]) * minhash._FACTORS[0]
    np.testing.assert_array_equal(keys, bands(texts, 0.8))


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.8, 0.9, 1.0])
def test_the_probability_to_miss_a_pair_is_as_promised(threshold: float) -> None:
    num_bands, rows = shape(threshold)
    number, least = num_bands * rows, agreeing(threshold)
    assert number <= minhash.PERMUTATIONS
    no_band = (1 - threshold**rows) ** num_bands
    shares = [math.comb(number, n) * threshold**n * (1 - threshold) ** (number - n) for n in range(number + 1)]
    assert sum(shares[: least + 1]) + no_band > minhash.MAX_MISSED, "one more would be too many"
    if threshold >= 0.3:  # below there are not hash functions enough, and every pair of one band is compared
        assert sum(shares[:least]) + no_band <= minhash.MAX_MISSED
    else:
        assert least == 0


def test_as_few_pairs_at_the_threshold_are_missed_as_promised() -> None:
    rng = random.Random(9)
    words = [[f"word{rng.getrandbits(60)}" for _ in range(82)] for _ in range(2000)]
    # 64 of 72 runs of three words stay, which is 64 / (72 + 72 - 64) = 0.8.
    texts = [" ".join(own[:74]) for own in words] + [" ".join(own[:66] + own[74:]) for own in words]
    assert reference_jaccard(texts[0], texts[2000]) == 0.8
    found = near_duplicates(texts, 0.8)
    assert set(found.items()) <= {(2000 + place, place) for place in range(2000)}
    assert len(found) >= 2000 - 3 * 2000 * minhash.MAX_MISSED


def test_texts_of_one_template_are_seldom_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(10)
    common = make_text(rng, 100)
    texts = [f"{common} {' '.join(f'own{rng.getrandbits(60)}' for _ in range(30))}" for _ in range(200)]
    texts += [f"{text} more" for text in texts[::10]]
    compared = 0

    def counted(own: minhash.UInt32, others: list[minhash.UInt32]) -> np.ndarray:
        nonlocal compared
        compared += len(others)
        return jaccard(own, others)

    monkeypatch.setattr("anna.corpus.dedup.jaccard", counted)
    assert near_duplicates(texts, 0.8) == {200 + number: 10 * number for number in range(20)}
    assert compared < 0.25 * 200 * 199 / 2, "nearly all pairs have a band in common"


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
