from hypothesis import given
from hypothesis import strategies as st

from anna.modeling.batching import shared_prefix, token_batches


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 200))
def test_every_index_once_within_the_budget_longest_first(lengths: list[int], budget: int) -> None:
    batches = token_batches(lengths, budget)
    flat = [index for batch in batches for index in batch]
    assert sorted(flat) == list(range(len(lengths)))
    assert [lengths[index] for index in flat] == sorted(lengths, reverse=True)
    assert all(len(batch) == 1 or len(batch) * lengths[batch[0]] <= budget for batch in batches)


def test_shared_prefix_leaves_every_text_a_token_of_its_own() -> None:
    assert shared_prefix([[1, 2, 3], [1, 2, 4, 5]]) == 2
    assert shared_prefix([[1, 2], [1, 2, 3]]) == 1
    assert shared_prefix([[1], [2]]) == 0
    assert shared_prefix([[7, 8, 9]]) == 2
