"""Which groups meet in a batch, and what each query is compared with."""

from collections.abc import Iterable

import numpy as np
import pytest

from anna import seeding
from anna.errors import InputError
from anna.folding import normalise
from anna.training.batches import Batch, Group, Texts, chain, check_world, deal, draw_examples, lay_out, plan_epoch


def texts(groups: Iterable[Group]) -> Texts:
    """Texts that differ from one another, without positives beyond the groups' own."""
    queries = {group.query_id: f"query {group.query_id}" for group in groups}
    docs = {doc_id: f"document {doc_id}" for group in groups for doc_id in group.doc_ids}
    return Texts(queries, docs, {})


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


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_layout_names_each_document_once_and_masks_labelled_positives(world_size: int) -> None:
    members = [Group(f"q{n}", "a", (f"d{2 * n}", f"d{2 * n + 1}"), (0.7, 0.3)) for n in range(6)]
    members.append(Group("q6", "a", ("d12", "d0"), (0.6, 0.4)))  # its hard negative is the positive of q0
    batch = Batch("a", tuple(members), ())
    known = texts(members)._replace(positives={"q2": frozenset({"d4", "d10"})})
    layouts = [lay_out(batch, rank, world_size, known) for rank in range(world_size)]
    ids = [doc_id for layout in layouts for doc_id in layout.doc_ids]
    assert sorted(ids) == sorted(f"d{n}" for n in range(13))
    queries = [group.query_id for layout in layouts for group in layout.share]
    assert sorted(queries) == [f"q{n}" for n in range(7)]
    for rank, layout in enumerate(layouts):
        assert layout.text_ids == [*queries, *ids]
        own = [*(group.query_id for group in layout.share), *layout.doc_ids]
        assert [layout.text_ids[place] for place in layout.own] == own
        assert (layout.sizes.queries[rank], layout.sizes.docs[rank]) == (len(layout.share), len(layout.doc_ids))
        for group, columns, masked in zip(layout.share, layout.columns, layout.is_masked, strict=True):
            assert tuple(ids[column] for column in columns) == group.doc_ids
            assert [ids[column] for column in masked] == (["d10"] if group.query_id == "q2" else [])


@pytest.mark.parametrize("seed", range(20))
def test_masks_are_those_of_every_query_beside_every_document(seed: int) -> None:
    random = np.random.default_rng(seed)
    drawn = [random.permutation(30)[: random.integers(1, 5)] for _ in range(12)]
    members = [Group(f"q{n}", "a", tuple(f"d{doc}" for doc in docs), ()) for n, docs in enumerate(drawn)]
    names = [*(f"q{n}" for n in range(12)), *(f"d{n}" for n in range(30))]
    said = {name: ("One, two", "one two", "Three", name)[random.integers(4)] for name in names}
    known = Texts(
        queries=said,
        docs=said,
        positives={f"q{n}": frozenset(f"d{doc}" for doc in random.permutation(30)[:3]) for n in range(0, 12, 2)},
        spared={f"q{n}": frozenset(f"d{doc}" for doc in random.permutation(30)[:3]) for n in range(0, 12, 3)},
        labels={name: "xyz"[random.integers(3)] for name in names if random.random() < 0.4},
    )
    batch, found = Batch("a", tuple(members), ()), set()
    for rank in range(3):
        layout = lay_out(batch, rank, 3, known)
        texts_of = [normalise(said[text_id]) for text_id in layout.text_ids]
        assert [layout.contents.index(content) for content in layout.contents] == [*map(texts_of.index, texts_of)]
        for group, masked in zip(layout.share, layout.is_masked, strict=True):
            query = group.query_id
            expected = [
                column
                for column, doc in enumerate(layout.text_ids[12:])
                if doc not in group.doc_ids
                and (
                    doc in known.positives.get(query, ())
                    or doc in known.spared.get(query, ())
                    or normalise(said[doc]) == normalise(said[query])
                    or (query in known.labels and known.labels[query] == known.labels.get(doc))
                )
            ]
            assert masked == expected
            found |= {*masked}
    assert found


def test_a_question_that_is_asked_twice_is_no_negative_of_itself() -> None:
    members = groups("a", 4)  # d1 is q0's own negative and q1's positive
    known = texts(members)
    same = {"a-q000": known.docs["a-d1"], "a-q002": known.docs["a-d1"], "a-q003": known.docs["a-d0"]}
    layout = lay_out(Batch("a", tuple(members), ()), 0, 1, known._replace(queries={**known.queries, **same}))
    named = [[layout.doc_ids[column] for column in masked] for masked in layout.is_masked]
    assert named == [[], [], ["a-d1"], ["a-d0"]]


def test_of_a_label_task_the_same_class_is_no_negative_and_every_other_is() -> None:
    members = groups("a", 4)
    labels = {"a-q000": "x", "a-d0": "x", "a-d1": "y", "a-q001": "y", "a-d2": "y", "a-q002": "y", "a-d3": "x"}
    known = texts(members)._replace(labels=labels)  # of q3 and d4 none is known
    layout = lay_out(Batch("a", tuple(members), ()), 0, 1, known)
    named = [[layout.doc_ids[column] for column in masked] for masked in layout.is_masked]
    assert named == [["a-d3"], [], ["a-d1"], []]


def test_ranks_embed_as_many_documents_each_and_none_twice() -> None:
    chained = [Group(f"q{n}", "a", (f"d{n}", f"d{n + 1}"), (0.5, 0.5)) for n in range(8)]
    layouts = [lay_out(Batch("a", tuple(chained), ()), rank, 4, texts(chained)) for rank in range(4)]
    assert sorted(doc_id for layout in layouts for doc_id in layout.doc_ids) == [f"d{n}" for n in range(9)]
    (sizes,) = {tuple(layout.sizes.docs) for layout in layouts}
    assert sorted(sizes) == [2, 2, 2, 3]


@pytest.mark.parametrize("world_size", [1, 2, 8, 64])
def test_ranks_are_dealt_as_much_text_each(world_size: int) -> None:
    sizes = np.random.default_rng(1).gamma(3.4, 160, size=1021).astype(int).tolist()  # lengths as BoolQ's
    blocks = deal(range(1021), sizes, world_size)
    assert sorted(number for block in blocks for number in block) == list(range(1021))
    assert {len(block) for block in blocks} <= {1021 // world_size, -(-1021 // world_size)}
    totals = [sum(sizes[number] for number in block) for block in blocks]
    assert max(totals) < 1.12 * sum(sizes) / world_size
    in_order = [sum(sizes[rank::world_size]) for rank in range(world_size)]
    assert max(totals) - min(totals) <= (max(in_order) - min(in_order)) / 2
    assert blocks[0] == list(range(1021)) or world_size > 1


def test_a_batch_with_too_little_for_the_ranks_is_refused() -> None:
    with pytest.raises(InputError, match="task 'a' has a batch of 3 queries and 4 documents for 4 ranks"):
        check_world([Batch("a", tuple(groups("a", 3)), ())], 4)
    same = [Group(f"q{n}", "a", ("d0", "d1"), (0.5, 0.5)) for n in range(4)]
    check_world([Batch("a", tuple(same), ())], 2)
    with pytest.raises(InputError, match="task 'a' has a batch of 4 queries and 2 documents for 3 ranks"):
        check_world([Batch("a", tuple(same), ())], 3)
