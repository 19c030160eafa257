"""Everything the tables on disk know about one training query: candidates, scores, verdicts and reasons."""

import bisect
import difflib
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from anna import io, schemas
from anna.errors import InputError
from anna.folding import fold, normalise
from anna.reporting import style

DATA = Path("data")

SIGNALS = {"bm25": "bm25_run", "dense": "dense_run", "reranker": "reranker_run"}
"""Teachers and their tables."""

ID = r"\S+:q:[0-9a-f]+"
"""What looks like the id of a query (`corpus.ids`); a text may have colons, too."""

LIKENESS, LONGEST = 0.8, 400
"""How alike (`difflib`'s ratio) a text must be to be offered, and how long one may be that others are sought for."""

Rows = list[dict[str, Any]]

_SCHEMAS = {
    "bm25_run": schemas.RUN,
    "dense_run": schemas.RUN,
    "reranker_run": schemas.RUN,
    "qrels": schemas.QRELS,
    "labels": schemas.LABELS,
    "groups": schemas.GROUPS,
    "drops": schemas.DROPS,
}
_TEXT_WIDTH = 72


class Candidate(NamedTuple):
    """A document that a query was compared with, or that the qrels judge."""

    doc_id: str
    text: str
    relevance: int | None
    """From the qrels; None: not judged."""
    signals: Mapping[str, tuple[int, float]]
    """Rank and raw score by teacher, those that listed it."""
    label: tuple[int, float, float] | None
    """Rank, fused score and soft label."""
    verdict: str


class Story(NamedTuple):
    """One query and all its candidates, best first."""

    query: Mapping[str, Any]
    candidates: Sequence[Candidate]
    outcome: str
    missing: Sequence[str]
    """Tables that are not there yet."""


def explain(asked: str, folder: Path = DATA) -> Story:
    """Return everything known about a query.

    Args:
        asked: Its id as in `data/queries.parquet`, or its text; case, punctuation and spacing do not matter then.
        folder: Where the tables lie; those of stages that have not run may be missing.

    Raises:
        InputError: If corpus or queries are missing, there is no such query, or more than one of such a text, or a
            table breaks its schema.
    """
    asked = asked.encode("utf-8", "replace").decode()  # bytes of a command line that are no UTF-8
    queries = io.read(folder / "queries.parquet", schemas.QUERIES)
    query: Rows = queries.filter(pc.equal(queries["query_id"], asked)).to_pylist() or _of_text(queries, asked)
    if not query:
        raise InputError(f"query {asked!r} is not in {folder}/queries.parquet{_nearest(asked, queries)}")
    if len(query) > 1:
        raise InputError(f"{asked!r} is the text of several queries; choose of {[row['query_id'] for row in query]}")
    query_id = query[0]["query_id"]
    known = {name: schema for name, schema in _SCHEMAS.items() if (folder / f"{name}.parquet").is_file()}
    found: dict[str, Rows] = {
        name: io.read_rows(folder / f"{name}.parquet", schema, "query_id", [query_id]).to_pylist()
        for name, schema in known.items()
    }
    missing = [name for name in _SCHEMAS if name not in known]
    return Story(query[0], _candidates(found, folder / "corpus.parquet"), _outcome(query[0], found), missing)


def describe(story: Story) -> str:
    """Return the story as text of about 100 columns."""
    query = story.query
    kind = ", ".join(query[key] for key in ("task", "kind", "split")) + (
        f", {query['label']}" if query["label"] else ""
    )
    lines = [f"{query['query_id']}  ({kind})", *_indent(query["text"]), "", story.outcome]
    if story.missing:
        lines.append(f"Not run yet, so not shown: {', '.join(story.missing)}.")
    for candidate in story.candidates:
        lines += ["", *_describe_candidate(candidate)]
    return "\n".join(lines)


def _candidates(found: Mapping[str, Rows], corpus: Path) -> list[Candidate]:
    """Return all documents that any table names for the query: labelled ones by rank, others after them by id."""
    labels = {row["doc_id"]: (row["rank"], row["fused_score"], row["soft_label"]) for row in found.get("labels", [])}
    relevance = {row["doc_id"]: row["relevance"] for row in found.get("qrels", [])}
    scores = {
        name: {row["doc_id"]: (row["rank"], row["score"]) for row in found.get(table, [])}
        for name, table in SIGNALS.items()
    }
    verdicts = _verdicts(found)
    ids = {doc_id for part in (labels, relevance, *scores.values()) for doc_id in part}
    rows = io.read_rows(corpus, schemas.CORPUS, "doc_id", sorted(ids))
    texts = dict(zip(rows["doc_id"].to_pylist(), rows["text"].to_pylist(), strict=True))
    last = len(ids)
    return [
        Candidate(
            doc_id,
            texts.get(doc_id, "(not in corpus)"),
            relevance.get(doc_id),
            {name: ranked[doc_id] for name, ranked in scores.items() if doc_id in ranked},
            labels.get(doc_id),
            verdicts.get(doc_id, "not judged yet"),
        )
        for doc_id in sorted(ids, key=lambda each: (labels[each][0] if each in labels else last + 1, each))
    ]


def _verdicts(found: Mapping[str, Rows]) -> dict[str, str]:
    """Return what the filter made of each candidate."""
    verdicts = {row["doc_id"]: _reason(row) for row in found.get("drops", []) if row["doc_id"]}
    for group in found.get("groups", []):
        members = [(doc_id, "POSITIVE") for doc_id in group["positive_ids"]]
        members += [(doc_id, f"NEGATIVE {place}") for place, doc_id in enumerate(group["negative_ids"], start=1)]
        shares = [f", with {share:.3f} of its soft labels" for share in group["soft_labels"]]
        for (doc_id, part), share in zip(members, shares or [""] * len(members), strict=True):
            verdicts[doc_id] = f"{part} of the group{share}"
    return verdicts


def _reason(row: Mapping[str, Any]) -> str:
    if row["reason"] == "labelled_positive":
        return "labelled positive, so no negative"
    if row["reason"] == "relabelled":
        return "relabelled: the reranker takes it for a positive, so no negative"
    margin = row["margin"]
    gap = "" if margin is None else f", {abs(margin):.3f} {'below' if margin >= 0 else 'above'} the positive"
    return f"dropped: {style.words(row['reason'])}{gap}"


def _outcome(query: Mapping[str, Any], found: Mapping[str, Rows]) -> str:
    """Return in one sentence what came of the query."""
    use = {"train": "training", "validation": "validation"}[query["split"]]
    if "groups" not in found or "drops" not in found:
        return "The filter has not run, so there is no group yet."
    for group in found["groups"]:
        positives, negatives = (len(group[name]) for name in ("positive_ids", "negative_ids"))
        return f"Gives a {use} group: {_counted(positives, 'positive')}, {_counted(negatives, 'hard negative')}."
    reasons = [style.words(row["reason"]) for row in found["drops"] if not row["doc_id"]]
    return f"Gives no {use} group: {', '.join(reasons) or 'no reason recorded'}."


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _describe_candidate(candidate: Candidate) -> list[str]:
    if candidate.label:
        rank, fused, soft = candidate.label
        place = f"{rank:>3}. fused {fused:+.3f}, soft label {soft:.3f}"
    else:
        place = "  -  not labelled"
    signals = [f"{name} {score:.4g} (rank {rank})" for name, (rank, score) in candidate.signals.items()]
    judged = "not judged" if candidate.relevance is None else f"relevance {candidate.relevance}"
    return [
        f"{place}  {candidate.verdict}",
        f"     {candidate.doc_id}, {judged}; {', '.join(signals) or 'no teacher lists it'}",
        *_indent(textwrap.shorten(candidate.text, 2 * _TEXT_WIDTH, placeholder=" ..."), "       "),
    ]


def _indent(text: str, by: str = "  ") -> list[str]:
    return textwrap.wrap(text, _TEXT_WIDTH, initial_indent=by, subsequent_indent=by)


def _of_text(queries: pa.Table, text: str) -> Rows:
    """Return the queries that have this text."""
    folded = pl.DataFrame(queries.select(["text"])).select(fold(pl.col("text"))).to_series()
    rows: Rows = queries.filter(pa.array((folded == normalise(text)).to_list(), pa.bool_())).to_pylist()
    return rows


def _nearest(asked: str, queries: pa.Table) -> str:
    """Return a hint: if an id was asked for, the one that begins most like it, a neighbour in the table's order."""
    ids = queries["query_id"].to_pylist()
    if not ids:
        return "; it is empty, run: dvc repro ingest"
    if re.fullmatch(r"\S+:d:[0-9a-f]+", asked):
        return ": it is the id of a document; ask for a query that data/qrels.parquet judges it for"
    if not re.fullmatch(ID, asked):
        return f", neither as an id, such as {ids[0]!r}, nor as a whole text{_alike(asked, queries)}"
    place = bisect.bisect(ids, asked)
    near = max(ids[max(0, place - 1) : place + 1], key=lambda each: _shared(each, asked))
    return f"; did you mean {near!r}?"


def _alike(asked: str, queries: pa.Table) -> str:
    """Return the text most like the one that was asked for, if one is."""
    texts = queries["text"].to_pylist()
    found = difflib.get_close_matches(asked, texts, n=1, cutoff=LIKENESS) if len(asked) <= LONGEST else []
    return f"; did you mean {found[0]!r} ({queries['query_id'][texts.index(found[0])]})?" if found else ""


def _shared(one: str, other: str) -> int:
    """Return how many leading characters two texts share."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
