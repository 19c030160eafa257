"""Retrieval data sets in BEIR's form: a folder of documents, queries and judgements, which name each other by id.

`corpus.jsonl` has `_id`, `text` and perhaps `title`; `queries.jsonl` has `_id` and `text`; `qrels/<split>.tsv` begins
with the line `query-id corpus-id score`, divided by tabs. MTEB's repositories on the hub have `qrels/<split>.jsonl`
with these keys. Each may be a .gz. Reference: Thakur et al. 2021, arXiv 2104.08663.
"""

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from anna.corpus.clean import UnusableError, clean_text
from anna.corpus.drops import Drop
from anna.corpus.files import json_lines, json_object, open_text
from anna.errors import InputError

CORPUS, QUERIES = "corpus.jsonl", "queries.jsonl"
QRELS = ("tsv", "jsonl")
HEADER = ["query-id", "corpus-id", "score"]

_SHOWN = 3
"""Ids of either side that an error shows where no two are equal."""

_log = logging.getLogger(__name__)

_Object = dict[str, Any]


def documents(folder: Path) -> Iterator[_Object | None]:
    """Yield each document as `doc`, its title before its text as BEIR reads it; None for a line that is none.

    Raises:
        InputError: If the folder has no corpus.
    """
    for row in _objects(_file(folder, CORPUS)):
        yield None if row is None else {"doc": _document(row)}


def queries(folder: Path, split: str, drop: Drop) -> Iterator[_Object]:
    """Yield each judged query of a split, in the order of its first judgement.

    A row has `query-id`, `query`, `docs` (judged above 0), their scores as `relevances`, and `negatives` (judged 0 or
    below). `query` is None if it is not there, and `docs` if no relevant one is. Memory holds what is judged and no
    other text.

    Args:
        folder: Where the files lie.
        split: Whose judgements are read.
        drop: Counts judgements of documents that are not there or empty, as `absent_document`.

    Raises:
        InputError: If a file is missing, a line of the judgements is none, or the files have no id in common.
    """
    path = _file(folder, *(f"qrels/{split}.{form}" for form in QRELS))
    judged = _judgements(path)
    named = {doc_id: None for own in judged.values() for doc_id in own}
    docs = _texts(_file(folder, CORPUS), named, _document, path)
    asked = _texts(_file(folder, QUERIES), judged, lambda row: row["text"], path)
    for what, absent in ((QUERIES, judged.keys() - asked.keys()), (CORPUS, named.keys() - docs.keys())):
        if absent:
            _log.warning(
                "%s judges %d that %s does not have with a text, among them %r", path, len(absent), what, min(absent)
            )
    if empty := {doc_id for doc_id, text in docs.items() if _is_empty(text)}:
        _log.warning("%s judges %d that are empty in %s, among them %r", path, len(empty), CORPUS, min(empty))
    there = {doc_id: text for doc_id, text in docs.items() if doc_id not in empty}
    for query_id, own in judged.items():
        for doc_id in own:
            if doc_id not in there:
                drop("absent_document", f"{path}: {doc_id!r}, judged for {query_id!r}")
        yield {"query-id": query_id, "query": asked.get(query_id), **_judged(own, there)}


def _judged(own: Mapping[str, float], there: Mapping[str, str]) -> _Object:
    """Return what a query's judgements say of the documents that are there; None for `docs` if no relevant one is."""
    relevant = {doc_id: score for doc_id, score in own.items() if score > 0}
    left = {doc_id: score for doc_id, score in relevant.items() if doc_id in there}
    return {
        "docs": [there[doc_id] for doc_id in left] if left or not relevant else None,
        "relevances": list(left.values()),
        "negatives": [there[doc_id] for doc_id in own if doc_id in there and doc_id not in relevant],
    }


def _document(row: _Object) -> str:
    return f"{row.get('title') or ''} {row['text']}".strip()


def _is_empty(text: str) -> bool:
    try:
        clean_text(text)
    except UnusableError as error:
        return error.reason == "empty_text"
    return False


def _texts(path: Path, wanted: Collection[str], text: Callable[[_Object], str], judgements: Path) -> dict[str, str]:
    """Return the text of each row of `path` whose id is wanted, which is one that `judgements` name.

    Raises:
        InputError: If none has, or one id has two texts.
    """
    found: dict[str, str] = {}
    others: list[str] = []
    for row in filter(None, _objects(path)):
        own = row["_id"]
        if own not in wanted:
            others += [own] if len(others) < _SHOWN else []
        elif found.setdefault(own, text(row)) != text(row):
            raise InputError(f"{path} has id {own!r} twice, with different texts; rename or remove one of them")
    if wanted and not found:
        raise InputError(
            f"{path} has no id that {judgements} names, such as {list(islice(wanted, _SHOWN))}, only {others}; give "
            "each line `_id` and `text`, and the same ids to both files"
        )
    return found


def _objects(path: Path) -> Iterator[_Object | None]:
    """Yield the object of each line that is not blank; None where it is not JSON, or lacks an id or a text.

    An id that is a whole number becomes its digits, here and in judgements, which is how TSV names it.
    """
    for row in json_lines(path):
        if row:
            row["_id"] = _id(row.get("_id"))
        yield row if row and all(isinstance(row.get(name), str) for name in ("_id", "text")) else None


def _id(value: Any) -> Any:
    return str(value) if type(value) is int else value


def _judgements(path: Path) -> dict[str, dict[str, float]]:
    """Return the score of each document by query; of two of one pair, the higher."""
    judged: defaultdict[str, dict[str, float]] = defaultdict(dict)
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            parts = _parts(line)
            if not line.strip() or (number == 1 and parts == HEADER):
                continue
            if not _is_judgement(parts):
                raise InputError(
                    f"{path} line {number} is {line.rstrip()[:80]!r}, expected {' '.join(HEADER)} divided by tabs, or "
                    "a JSON object of these, the score a number; correct the file"
                )
            query_id, doc_id, score = parts[0], parts[1], float(parts[2])
            judged[query_id][doc_id] = max(score, judged[query_id].get(doc_id, score))
    return judged


def _parts(line: str) -> list[Any]:
    """Return the parts of a line of judgements, as `HEADER` names them where it is well formed."""
    row = json_object(line)
    if row is None:
        return line.rstrip("\r\n").split("\t")
    query_id, doc_id, score = map(row.get, HEADER)
    return [_id(query_id), _id(doc_id), score]


def _is_judgement(parts: list[Any]) -> bool:
    """Return whether these are two ids and a finite number, or the text of one."""
    if len(parts) != len(HEADER) or not all(isinstance(part, str) for part in parts[:2]):
        return False
    try:
        return math.isfinite(float(parts[2]))
    except (TypeError, ValueError, OverflowError):
        return False


def _file(folder: Path, *names: str) -> Path:
    """Return the first of the files that is there."""
    for name in names:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    splits = sorted({path.name.split(".")[0] for path in folder.glob("qrels/*")})
    raise InputError(
        f"{folder} has no {' or '.join(names)}, expected {CORPUS}, {QUERIES} and qrels/<split>.tsv or .jsonl as in "
        f"BEIR (splits there: {splits}); correct path or split in params.yaml"
    )
