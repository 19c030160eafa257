"""No stored score outlives the code that gave it: code that scores changes together with its version.

If this fails, decide whether the same texts can get other scores now. If so, raise the version that the message names,
and in any case put the new hash here. Comments and docstrings do not count.
"""

import hashlib
from pathlib import Path

import pytest

from anna.fingerprints import code_hash
from anna.teachers import bi_encoder, reranker
from tests.test_contracts import CARRIERS, REPO, reachable

VERSIONS = {
    "bi_encoder.VERSION": bi_encoder.VERSION,
    "reranker.VERSIONS['cross_encoder']": reranker.VERSIONS["cross_encoder"],
    "reranker.VERSIONS['query_likelihood']": reranker.VERSIONS["query_likelihood"],
}

SCORED_BY = {
    "bi_encoder.VERSION": ("teachers.dense", "teachers.bi_encoder"),
    "reranker.VERSIONS['cross_encoder']": ("teachers.reranker", "teachers.cross_encoder"),
    "reranker.VERSIONS['query_likelihood']": (
        "teachers.reranker",
        "modeling.checkpoint",
        "teachers.likelihood_batches",
        "teachers.query_likelihood",
    ),
}
"""The module that loads a teacher, and those that it loads it with: these and all that they reach give its scores."""

SEEN = {
    "bi_encoder.VERSION": (4, "09fe16341a0adfb8"),
    "reranker.VERSIONS['cross_encoder']": (5, "aa05d8792102b513"),
    "reranker.VERSIONS['query_likelihood']": (4, "bcd14b6e96d049a5"),
}
"""Version, and hash of the code of that version."""


def scoring_code(name: str) -> set[str]:
    """Return the modules that decide a teacher's scores."""
    loader, *own = (f"anna.{module}" for module in SCORED_BY[name])
    return {loader, *own}.union(*map(reachable, own)) - CARRIERS


def hash_of(modules: set[str]) -> str:
    """Return one hash of their code, whatever they are called."""
    hashes = sorted(code_hash((REPO / Path(*name.split("."))).with_suffix(".py")) for name in modules)
    return hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", VERSIONS)
def test_code_that_scores_changes_with_its_version(name: str) -> None:
    modules = scoring_code(name)
    now = (VERSIONS[name], hash_of(modules))
    assert now == SEEN[name], (
        f"one of {sorted(modules)} changed: can the same texts get other scores? See above: {name}"
    )


@pytest.mark.parametrize("loader", ["teachers.dense", "teachers.reranker"])
def test_all_that_a_teacher_reaches_is_looked_at(loader: str) -> None:
    looked_at = set().union(*(scoring_code(name) for name, modules in SCORED_BY.items() if modules[0] == loader))
    assert reachable(f"anna.{loader}") - CARRIERS <= looked_at
