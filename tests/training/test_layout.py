"""What each rank embeds of a batch, and what its queries are compared with."""

from collections.abc import Iterable

import numpy as np
import pytest

from anna.folding import normalise
from anna.training.batches import Batch, Group, Texts
from anna.training.layout import deal, lay_out


def texts(groups: Iterable[Group]) -> Texts:
    """Texts that differ from one another, without positives beyond the groups' own."""
    queries = {group.query_id: f"query {group.query_id}" for group in groups}
    docs = {doc_id: f"document {doc_id}" for group in groups for doc_id in group.doc_ids}
    return Texts(queries, docs, {})


def groups(task: str, count: int) -> list[Group]:
    return [Group(f"{task}-q{n:03d}", task, (f"{task}-d{n}", f"{task}-d{n + 1}"), (0.7, 0.3)) for n in range(count)]


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
        for group, columns, masked in zip(layout.share, layout.columns, layout.masked, strict=True):
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
        for group, masked in zip(layout.share, layout.masked, strict=True):
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
    named = [[layout.doc_ids[column] for column in masked] for masked in layout.masked]
    assert named == [[], [], ["a-d1"], ["a-d0"]]


def test_of_a_label_task_the_same_class_is_no_negative_and_every_other_is() -> None:
    members = groups("a", 4)
    labels = {"a-q000": "x", "a-d0": "x", "a-d1": "y", "a-q001": "y", "a-d2": "y", "a-q002": "y", "a-d3": "x"}
    known = texts(members)._replace(labels=labels)  # of q3 and d4 none is known
    layout = lay_out(Batch("a", tuple(members), ()), 0, 1, known)
    named = [[layout.doc_ids[column] for column in masked] for masked in layout.masked]
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
