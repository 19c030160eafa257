"""Which groups meet in a batch, with which positive and which examples."""

import numpy as np
import pytest

from anna import seeding
from anna.errors import InputError
from anna.training.batches import Batch, Group, chain, check_world, draw_examples, draw_positives, plan_epoch


def groups(task: str, count: int) -> list[Group]:
    return [Group(f"{task}-q{n:03d}", task, (f"{task}-d{n}", f"{task}-d{n + 1}"), (0.7, 0.3)) for n in range(count)]


def test_an_epoch_holds_every_group_once_and_one_task_per_batch() -> None:
    members = groups("a", 53) + groups("b", 21) + groups("c", 3)
    batches = plan_epoch(members, batch_queries=8, max_examples=3, chained=False, seed=1, epoch=0)
    seen = [group for batch in batches for group in batch.groups]
    assert sorted(seen) == sorted(members)
    assert all({group.task for group in batch.groups} == {batch.task} for batch in batches)
    sizes = [len(batch.groups) for batch in batches if batch.task != "c"]
    assert all(4 <= size <= 12 for size in sizes)


def test_epochs_differ_in_groups_order_and_examples_and_tasks_are_mixed() -> None:
    members = groups("a", 80) + groups("b", 80)

    def epoch(number: int) -> list[Batch]:
        return plan_epoch(members, batch_queries=8, max_examples=3, chained=False, seed=1, epoch=number)

    first, second = epoch(0), epoch(1)
    assert epoch(0) == first
    together = [{frozenset(batch.groups) for batch in batches} for batches in (first, second)]
    assert not together[0] & together[1], "other groups meet"
    assert [len(batch.examples) for batch in first] != [len(batch.examples) for batch in second]
    tasks = [[batch.task for batch in batches] for batches in (first, second)]
    assert tasks[0] != tasks[1]
    assert all(sorted(order) != order for order in tasks), "tasks do not come one after the other"


@pytest.mark.parametrize(("count", "sizes"), [(12, [8, 4]), (11, [11]), (8, [8]), (3, [3])])
def test_half_a_batch_stands_alone_and_less_joins_another(count: int, sizes: list[int]) -> None:
    batches = plan_epoch(groups("a", count), batch_queries=8, max_examples=0, chained=False, seed=1, epoch=0)
    assert sorted((len(batch.groups) for batch in batches), reverse=True) == sizes


def test_each_epoch_shows_one_of_a_groups_positives_with_all_its_negatives() -> None:
    scores = np.array([2.0, 1.0, -0.5, 0.3, -1.0])  # three positives, two negatives
    soft_labels = tuple(np.exp(scores) / np.exp(scores).sum())
    several = [Group(f"q{n}", "a", ("p0", "p1", "p2", "n0", "n1"), soft_labels, 3) for n in range(3000)]
    members = [*several, *groups("b", 8)]

    def shown(epoch: int) -> dict[str, Group]:
        batches = plan_epoch(members, batch_queries=8, max_examples=0, chained=True, seed=1, epoch=epoch)
        return {group.query_id: group for batch in batches for group in batch.groups}

    first, second = shown(0), shown(1)
    assert first.keys() == {group.query_id for group in members}
    assert [first[group.query_id] for group in groups("b", 8)] == groups("b", 8)
    for place, positive in enumerate(("p0", "p1", "p2")):
        drawn = [first[group.query_id] for group in several if first[group.query_id].doc_ids[0] == positive]
        assert 900 < len(drawn) < 1100
        own = np.exp(scores[[place, 3, 4]])
        for group in drawn:
            assert (group.doc_ids[1:], group.num_positives) == (("n0", "n1"), 1)
            np.testing.assert_allclose(group.soft_labels, own / own.sum(), rtol=1e-12)
    again = [first[group.query_id] == second[group.query_id] for group in several]
    assert 900 < sum(again) < 1100, "each epoch draws anew"


def test_examples_show_a_positive_that_was_drawn() -> None:
    several = [Group(f"q{n}", "a", (f"p{n}", f"r{n}", f"n{n}"), (0.5, 0.3, 0.2), 2) for n in range(40)]
    batches = plan_epoch(several, batch_queries=4, max_examples=4, chained=False, seed=1, epoch=0)
    shown = {example.doc_ids[0][0] for batch in batches for example in batch.examples}
    assert shown == {"p", "r"}
    assert all(example.num_positives == 1 for batch in batches for example in batch.examples)


def test_groups_with_one_positive_are_as_they_were() -> None:
    members = groups("a", 5)
    assert draw_positives(members, seeding.rng(0)) == members


def test_a_group_without_soft_labels_has_none_when_its_positive_is_drawn() -> None:
    several = [Group("q", "a", ("p0", "p1", "n0"), (), num_positives=2)] * 20
    drawn = draw_positives(several, seeding.rng(0))
    assert {*drawn} == {Group("q", "a", (positive, "n0"), ()) for positive in ("p0", "p1")}


def test_no_example_answers_with_a_query_of_the_batch() -> None:
    members = [Group("a:q:00", "a", ("a:d:01", "a:d:02"), ()), Group("a:q:03", "a", ("a:d:00", "a:d:04"), ())]
    rng = np.random.default_rng(0)
    assert all(draw_examples(members, members[:1], 5, rng) == () for _ in range(20))


def test_no_example_shows_a_text_that_the_batch_embeds_on_the_other_side() -> None:
    """In a symmetric task a text is a query in one group and a document in another; ids end in the text's hash."""
    members = [
        Group(f"a:q:{n:02d}", "a", (f"a:d:{(n + 1) % 40:02d}", f"a:d:{(n + 7) % 40:02d}"), ()) for n in range(40)
    ]
    batches = plan_epoch(members, batch_queries=4, max_examples=5, chained=False, seed=0, epoch=0)
    shown = 0
    for batch in batches:
        embedded = {name[-2:] for group in batch.groups for name in (group.query_id, *group.doc_ids)}
        for example in batch.examples:
            assert not embedded & {example.query_id[-2:], example.doc_ids[0][-2:]}
            shown += 1
    assert shown > 5


def test_a_chain_leads_from_a_hard_negative_to_the_query_that_it_answers() -> None:
    members = [
        Group("q0", "a", ("d0", "d9", "d2"), (0.6, 0.2, 0.2)),  # d9 answers no query
        Group("q1", "a", ("d1", "d0"), (0.7, 0.3)),
        Group("q2", "a", ("d2", "d2b"), (0.7, 0.3)),
        Group("q3", "a", ("d3", "d1"), (0.7, 0.3)),
        Group("q4", "a", ("d2", "d3"), (0.7, 0.3)),  # the same positive as q2
    ]
    assert chain(members, np.array([3, 0, 4, 2, 1])).tolist() == [3, 1, 0, 4, 2]
    assert chain(members, np.array([2, 1, 3, 4, 0])).tolist() == [2, 1, 0, 4, 3]


def test_chained_batches_hold_fewer_documents_and_every_group_once() -> None:
    members = groups("a", 64)  # the hard negative of each is the positive of the next
    sizes = {}
    for chained in (False, True):
        batches = plan_epoch(members, batch_queries=8, max_examples=0, chained=chained, seed=1, epoch=0)
        assert sorted(group for batch in batches for group in batch.groups) == sorted(members)
        sizes[chained] = sum(len({d for group in batch.groups for d in group.doc_ids}) for batch in batches)
    assert sizes[True] < 0.7 * sizes[False]


def test_the_plan_depends_on_seed_and_epoch_alone() -> None:
    members = groups("a", 40) + groups("b", 40)

    def plan(members: list[Group], seed: int, epoch: int) -> list[Batch]:
        return plan_epoch(members, batch_queries=8, max_examples=3, chained=False, seed=seed, epoch=epoch)

    assert plan(members, 1, 0) == plan(members[::-1], 1, 0)
    assert plan(members, 1, 0) != plan(members, 2, 0)
    assert plan(members, 1, 0) != plan(members, 1, 1)


def test_examples_share_no_query_and_no_document_with_the_batch() -> None:
    batches = plan_epoch(groups("a", 60), batch_queries=6, max_examples=4, chained=False, seed=0, epoch=0)
    counts = set()
    for batch in batches:
        queries = {group.query_id for group in batch.groups}
        docs = {doc_id for group in batch.groups for doc_id in group.doc_ids}
        assert not queries & {example.query_id for example in batch.examples}
        assert not docs & {example.doc_ids[0] for example in batch.examples}
        counts.add(len(batch.examples))
    assert len(counts) > 1
    assert max(counts) <= 4


def test_number_of_examples_is_uniform_and_so_are_they() -> None:
    members = groups("a", 10)  # of which the batch leaves the last five
    drawn = [draw_examples(members, members[:4], 2, seeding.rng(0, n)) for n in range(3000)]
    sizes = [len(examples) for examples in drawn]
    assert [sizes.count(k) / 3000 for k in range(3)] == pytest.approx([1 / 3] * 3, abs=0.04)
    for place in range(2):
        shown = [examples[place] for examples in drawn if len(examples) == 2]
        assert [shown.count(group) / len(shown) for group in members[5:]] == pytest.approx([1 / 5] * 5, abs=0.05)
    assert all(len({*examples}) == len(examples) for examples in drawn)


def test_a_task_with_fewer_examples_than_are_asked_for_gives_what_it_has() -> None:
    members = groups("a", 6)
    assert {len(draw_examples(members, members[:4], 5, seeding.rng(0, n))) for n in range(50)} == {0, 1}


def test_a_batch_with_too_little_for_the_ranks_is_refused() -> None:
    with pytest.raises(InputError, match="task 'a' has a batch of 3 queries and 4 documents for 4 ranks"):
        check_world([Batch("a", tuple(groups("a", 3)), ())], 4)
    same = [Group(f"q{n}", "a", ("d0", "d1"), (0.5, 0.5)) for n in range(4)]
    check_world([Batch("a", tuple(same), ())], 2)
    with pytest.raises(InputError, match="task 'a' has a batch of 4 queries and 2 documents for 3 ranks"):
        check_world([Batch("a", tuple(same), ())], 3)
