"""What the benchmarks of teachers work on: the default's text, and a cross-encoder of the dense model's size."""

import json
from pathlib import Path
from typing import NamedTuple

from anna.errors import InputError
from anna.origins import HubOrigin, Origin, fetch
from stages.ingest import IngestParams

SPREAD = 100.0
"""Multiplies the weights of a random head: pairs then differ by as many logits as those of a trained cross-encoder."""


class Texts(NamedTuple):
    """What is mined from."""

    queries: list[str]
    positives: list[str]
    """Of each query."""
    docs: list[str]
    """All different, positives among them."""


def fetch_file(origin: Origin) -> Path:
    """Return the file of a source that the default has as one."""
    if isinstance(origin, HubOrigin):
        raise InputError(f"{origin.repo} is a data set of the hub; the benchmarks read the default's params.yaml")
    return fetch(origin)


def read_texts(num_docs: int, num_queries: int) -> Texts:
    """Return the default's texts: questions of BoolQ with their passages, other passages, leads of Wikipedia."""
    sources = {source.task: source.origin for source in IngestParams.load().train}
    boolq, wikipedia = (fetch_file(sources[task]) for task in ("BoolQ", "WikipediaLeads"))
    lines = boolq.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    articles = json.loads(wikipedia.read_text(encoding="utf-8"))
    leads = [row["extract"] for row in articles.values()]
    asked = {row["question"]: row["passage"] for row in rows if "label" in row}
    chosen = dict(list(asked.items())[:: max(1, len(asked) // num_queries)][:num_queries])
    docs = dict.fromkeys([*chosen.values(), *(row["passage"] for row in rows), *leads])
    return Texts(list(chosen), list(chosen.values()), [doc for doc in docs if doc.strip()][:num_docs])


def make_cross_encoder(dense: Path, folder: Path) -> Path:
    """Write the dense model with a head of one score, of random weights, and return its folder."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(dense, num_labels=1)
    with torch.no_grad():
        model.classifier.weight *= SPREAD
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(dense).save_pretrained(folder)
    return folder
