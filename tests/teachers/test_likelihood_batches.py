"""Batches of passages with their queries."""

from transformers import AutoTokenizer

from anna.teachers.likelihood_batches import group_by_passage, plan_batches
from anna.teachers.query_likelihood import HEAD, TAIL

PAIRS = [("q1", "long"), ("q2", "short"), ("q2", "long"), ("q1", "short"), ("q3", "also long")]
QUERIES, DOCS = [2, 3, 3, 2, 4], [10, 4, 10, 4, 10]


def test_a_passage_is_counted_once_and_its_queries_stay_together() -> None:
    # By length of passage, then its text: "also long" (10 + 4), "long" (10 + 3 + 2), "short" (4 + 3 + 2).
    assert group_by_passage(PAIRS, QUERIES, DOCS, 1000) == [[4, 2, 0, 1, 3]]
    assert group_by_passage(PAIRS, QUERIES, DOCS, 29) == [[4, 2, 0], [1, 3]]
    assert group_by_passage(PAIRS, QUERIES, DOCS, 28) == [[4, 2], [0, 1, 3]]
    assert group_by_passage(PAIRS, QUERIES, DOCS, 1) == [[4], [2], [0], [1], [3]]
    assert group_by_passage([], [], [], 1) == []


def test_what_is_left_after_some_batches_gives_the_other_batches() -> None:
    pairs = [(f"q{n % 7}", f"passage {n % 5}") for n in range(35)]
    queries, docs = [3 + n % 7 for n in range(35)], [10 * (n % 5 % 3) + 5 for n in range(35)]
    batches = group_by_passage(pairs, queries, docs, 40)
    assert len(batches) > 4
    for done in range(len(batches)):
        left = sorted(place for batch in batches[done:] for place in batch)
        again = group_by_passage(*([column[n] for n in left] for column in (pairs, queries, docs)), 40)  # type: ignore[misc, arg-type]
        assert [[left[index] for index in batch] for batch in again] == batches[done:]


def test_lengths_are_those_of_the_tokenizer_up_to_the_limits(tiny_checkpoint) -> None:  # type: ignore[no-untyped-def]
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    passage, query = "a city where people live near the sea", "what is the capital"
    around = len(tokenizer(HEAD + TAIL, add_special_tokens=False)["input_ids"])
    num_doc, num_query = (len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (passage, query))
    both = [(query, passage), (query, passage + " Paris")]
    needed = 2 * (around + num_doc + num_query)
    limits = {"doc_tokens": num_doc, "query_tokens": 99}
    assert len(plan_batches(tokenizer, both, **limits, tokens_per_batch=needed)) == 1
    assert len(plan_batches(tokenizer, both, **limits, tokens_per_batch=needed - 1)) == 2
    assert len(plan_batches(tokenizer, both, doc_tokens=num_doc, query_tokens=1, tokens_per_batch=needed - 2)) == 1
