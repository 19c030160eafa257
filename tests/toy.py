"""A toy corpus in local files: small enough for a pipeline of tests, with every kind of source and type of task."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ANIMALS = (
    "otter badger heron lynx beaver falcon salmon hedgehog squirrel owl tortoise fox marten stork viper newt bison "
    "crane weasel raven dormouse pike swallow boar ibex vole trout hare kestrel toad mole wolf eagle carp shrew finch "
    "perch moth beetle hornet"
).split()
HELD_OUT_ANIMALS = "penguin camel walrus gecko panda koala zebra parrot lobster jaguar tapir lemur".split()
PLACES = ("a cold river", "an old forest", "the high mountains", "a wide marsh", "the dry meadows")
FOODS = ("small fish", "berries and roots", "insects", "young leaves")
HABITS = ("sleeps through the winter", "hunts at night", "builds a nest of twigs", "wanders far in spring")

CLASSES = {
    "weather": ("rain over the coast", "snow on every hill", "strong wind tonight", "a bright warm morning"),
    "sport": (
        "a late goal in the match",
        "the runner broke a record",
        "their team lost the cup",
        "a long tennis final",
    ),
    "money": ("the bank raised its rates", "shares fell at noon", "a new tax on fuel", "prices rose again in May"),
}
TURNS = ("", "Reported today: ", "People talked about ", "In brief, ", "They say ", "Once more: ")

SIMILAR = (
    ("A man plays a guitar.", "A man is playing the guitar.", 4.8),
    ("A woman slices an onion.", "Someone cuts up an onion.", 4.2),
    ("Two dogs run on the beach.", "Two dogs are running along the shore.", 4.4),
    ("The child rides a red bicycle.", "A man reads a newspaper.", 0.4),
)


def write_toy_project(folder: Path) -> dict[str, Any]:
    """Write the source files to `folder` and return the `ingest` section of params that reads them.

    Training: Animals (retrieval, 40 documents, 30 queries), Pairs (sts, 20 pairs), News (classification, 24 texts
    in 3 classes). Held out: one task of each of MTEB's seven categories, with two in-context examples each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "max_faulty_share": 0.1,
        "near_duplicate": 0.8,
        "validation_share": 0.1,
        "examples_per_task": 2,
        "train": [_animals(folder), _pairs(folder), _news(folder)],
        "held_out": [*_ranked(folder), *_scored(folder), *_labelled(folder), _summaries(folder)],
    }


def describe(animal: str, number: int) -> str:
    """Return the toy document about an animal."""
    place, food = PLACES[number % len(PLACES)], FOODS[number % len(FOODS)]
    habit = HABITS[number // 3 % len(HABITS)]
    return f"The {animal} lives in {place}. It eats {food} and {habit}, as every {animal} does."


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Write rows as JSONL and return the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def source(path: Path, **others: Any) -> dict[str, Any]:
    """Return a source of kind `files` that reads JSONL at `path`."""
    return {"origin": {"kind": "files", "path": str(path)}, "format": "jsonl", **others}


def _animals(folder: Path) -> dict[str, Any]:
    rows = []
    for number, animal in enumerate(ANIMALS):
        others = [describe(ANIMALS[(number + step) % len(ANIMALS)], (number + step) % len(ANIMALS)) for step in (1, 11)]
        rows.append({"query": f"where does the {animal} live", "pos": [describe(animal, number)], "neg": others})
    path = write_jsonl(folder / "animals.jsonl", rows[:30])
    return source(path, task="Animals", kind="retrieval", columns={"query": "query", "docs": "pos", "negatives": "neg"})


def _pairs(folder: Path) -> dict[str, Any]:
    rows = [
        {"a": f"{left[:-1]} near house {number}.", "b": f"{right[:-1]} by house {number}.", "score": score}
        for number in range(5)
        for left, right, score in SIMILAR
    ]
    path = write_jsonl(folder / "pairs.jsonl", rows)
    columns = {"text1": "a", "text2": "b", "score": "score"}
    return source(path, task="Pairs", kind="sts", columns=columns, positive_at=4.0)


def _texts(turns: Iterable[str]) -> list[dict[str, Any]]:
    turns = list(turns)
    return [
        {"text": f"{turn}{text}", "label": label}
        for label, texts in CLASSES.items()
        for text in texts
        for turn in turns
    ]


def _news(folder: Path) -> dict[str, Any]:
    path = write_jsonl(folder / "news.jsonl", _texts(TURNS[:2]))
    return source(path, task="News", kind="classification", columns={"text": "text", "label": "label"})


def _ranked(folder: Path) -> list[dict[str, Any]]:
    rows = [
        {"query": f"what does the {animal} eat", "doc": describe(animal, number)}
        for number, animal in enumerate(HELD_OUT_ANIMALS)
    ]
    zoo = write_jsonl(folder / "zoo.jsonl", rows)
    extra = write_jsonl(folder / "extra.jsonl", [{"doc": f"A {place} lies to the north of here."} for place in PLACES])
    judged = [
        {
            "query": f"which animal eats {food} in {place}",
            "doc": describe(animal, number),
            "relevant": food in FOODS[number % 4],
        }
        for place in PLACES[:2]
        for food in FOODS
        for number, animal in enumerate(HELD_OUT_ANIMALS[:4])
    ]
    for number, row in enumerate(judged):
        row["doc"] += f" Seen {number} times."
    ranked = write_jsonl(folder / "ranked.jsonl", judged)
    columns = {"query": "query", "doc": "doc", "relevance": "relevant"}
    return [
        source(
            zoo,
            task="Zoo",
            type="Retrieval",
            columns={"query": "query", "doc": "doc"},
            rows=8,
            distractors=[source(extra, columns={"doc": "doc"})],
        ),
        source(ranked, task="ZooRanked", type="Reranking", columns=columns, relevant=["True"], rows=4),
    ]


def _scored(folder: Path) -> list[dict[str, Any]]:
    similar = write_jsonl(
        folder / "similar.jsonl",
        [
            {"a": f"{left[:-1]} in year {number}.", "b": f"{right[:-1]} in the year {number}.", "score": score}
            for number in range(4)
            for left, right, score in SIMILAR
        ],
    )
    same = write_jsonl(
        folder / "same.jsonl",
        [
            {"a": f"the home of a {animal}", "b": f"where any {other} lives", "same": int(animal == other)}
            for number, animal in enumerate(HELD_OUT_ANIMALS)
            for other in (animal, HELD_OUT_ANIMALS[number - 1])
        ],
    )
    columns = {"text1": "a", "text2": "b"}
    return [
        source(similar, task="Similar", type="STS", columns={**columns, "score": "score"}),
        source(same, task="Same", type="PairClassification", columns={**columns, "score": "same"}),
    ]


def _labelled(folder: Path) -> list[dict[str, Any]]:
    columns = {"text": "text", "label": "label"}
    topics = write_jsonl(folder / "topics.jsonl", _texts(TURNS[2:4]))
    desks = write_jsonl(folder / "desks.jsonl", _texts(TURNS[4:6]))
    return [
        source(topics, task="Topics", type="Classification", columns=columns, rows=9, train_rows=9),
        source(desks, task="Desks", type="Clustering", columns=columns, rows=18),
    ]


def _summaries(folder: Path) -> dict[str, Any]:
    rows = [
        {
            "source": f"On day {number} the {animal} crossed the bridge while a crowd looked on.",
            "good": f"The {animal} crossed the bridge on day {number}.",
            "bad": f"The crowd crossed the {animal} on day {number}.",
        }
        for number, animal in enumerate(HELD_OUT_ANIMALS[:8])
    ]
    path = write_jsonl(folder / "summaries.jsonl", rows)
    return source(
        path, task="Bridges", type="Summarization", columns={"source": "source", "good": "good", "bad": "bad"}
    )
