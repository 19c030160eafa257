"""Retrieval data sets in BEIR's form: a folder of documents, queries and judgements, which name each other by id.

`corpus.jsonl` has `_id`, `text` and perhaps `title`; `queries.jsonl` has `_id` and `text`; `qrels/<split>.tsv` begins
with the line `query-id corpus-id score`, divided by tabs. MTEB's repositories on the hub have `qrels/<split>.jsonl`
with these keys. Each may be a .gz. Reference: Thakur et al. 2021, arXiv 2104.08663.
"""

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from anna.corpus.files import json_lines, json_object, open_text
from anna.errors import InputError

CORPUS, QUERIES = "corpus.jsonl", "queries.jsonl"
QRELS = ("tsv", "jsonl")
HEADER = ["query-id", "corpus-id", "score"]

_log = logging.getLogger(__name__)

_Object = dict[str, Any]


def documents(folder: Path) -> Iterator[_Object | None]:
    """Yield each document as `doc`, its title before its text as BEIR reads it; None for a line that is none.

    Raises:
        InputError: If the folder has no corpus.
    """
    for row in _objects(_file(folder, CORPUS)):
        yield None if row is None else {"doc": _document(row)}


def queries(folder: Path, split: str) -> Iterator[_Object]:
    """Yield each judged query of a split, in the order of its first judgement.

    A row has `query-id`, `query`, `docs` (judged above 0), their scores as `relevances`, and `negatives` (judged 0 or
    below). Texts that are not there are left out of it: it lacks `query`, or all three lists. A document that is there
    but empty is as if nobody had judged it. Memory holds what is judged and no other text.

    Raises:
        InputError: If a file is missing, or a line of the judgements is none.
    """
    path = _file(folder, *(f"qrels/{split}.{form}" for form in QRELS))
    judged = _judgements(path)
    named = {doc_id for own in judged.values() for doc_id in own}
    docs = _texts(_file(folder, CORPUS), named, _document)
    asked = _texts(_file(folder, QUERIES), judged, lambda row: row["text"])
    for what, absent in ((QUERIES, judged.keys() - asked.keys()), (CORPUS, named - docs.keys())):
        if absent:
            _log.warning(
                "%s judges %d that %s does not have with a text, among them %r", path, len(absent), what, min(absent)
            )
    empty = {doc_id for doc_id, text in docs.items() if not text}
    if empty:
        _log.warning("%s judges %d that are empty in %s, among them %r", path, len(empty), CORPUS, min(empty))
    for query_id, own in judged.items():
        row: _Object = {"query-id": query_id}
        if query_id in asked:
            row["query"] = asked[query_id]
        if own.keys() <= docs.keys():
            relevant = {doc_id: score for doc_id, score in own.items() if score > 0 and doc_id not in empty}
            row["docs"] = [docs[doc_id] for doc_id in relevant]
            row["relevances"] = list(relevant.values())
            row["negatives"] = [docs[doc_id] for doc_id, score in own.items() if score <= 0 and doc_id not in empty]
        yield row


def _document(row: _Object) -> str:
    return f"{row.get('title') or ''} {row['text']}".strip()


def _texts(path: Path, wanted: Collection[str], text: Callable[[_Object], str]) -> dict[str, str]:
    """Return the text of each row of `path` whose id is wanted; two texts of one id are an InputError."""
    found: dict[str, str] = {}
    for row in filter(None, _objects(path)):
        own = row["_id"]
        if own in wanted and found.setdefault(own, text(row)) != text(row):
            raise InputError(f"{path} has id {own!r} twice, with different texts; rename or remove one of them")
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
