"""No stored score outlives the code that gave it: code that scores changes together with its version.

If this fails, decide whether the same texts can get other scores now. If so, raise the version that the message names,
and in any case put the new hash here. Comments and docstrings do not count.
"""

import ast
import hashlib
from pathlib import Path

import pytest

from anna.teachers import bi_encoder, scoring
from tests.test_contracts import CARRIERS, REPO, reachable

VERSIONS = {
    "bi_encoder.VERSION": bi_encoder.VERSION,
    "scoring.VERSIONS['cross_encoder']": scoring.VERSIONS["cross_encoder"],
    "scoring.VERSIONS['query_likelihood']": scoring.VERSIONS["query_likelihood"],
}

SCORED_BY = {
    "bi_encoder.VERSION": ("teachers.dense", "teachers.bi_encoder"),
    "scoring.VERSIONS['cross_encoder']": ("teachers.scoring", "teachers.cross_encoder"),
    "scoring.VERSIONS['query_likelihood']": (
        "teachers.scoring",
        "modeling.checkpoint",
        "teachers.likelihood_batches",
        "teachers.query_likelihood",
    ),
}
"""The module that loads a teacher, and those that it loads it with: these and all that they reach give its scores."""

SEEN = {
    "bi_encoder.VERSION": (3, "196030044eed53e0"),
    "scoring.VERSIONS['cross_encoder']": (3, "50bf2d1ac64767ba"),
    "scoring.VERSIONS['query_likelihood']": (3, "7fcc83963c604e0f"),
}
"""Version, and hash of the code of that version."""


def scoring_code(name: str) -> set[str]:
    """Return the modules that decide a teacher's scores."""
    loader, *own = (f"anna.{module}" for module in SCORED_BY[name])
    return {loader, *own}.union(*map(reachable, own)) - CARRIERS


def code_hash(*sources: str) -> str:
    """Return one hash of some modules, in whatever order."""
    hashes = [hashlib.sha256(plain(source).encode()).hexdigest() for source in sources]
    return hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest()[:16]


def plain(source: str) -> str:
    """Return what counts of a module, the same in each version of Python: some show lists that are empty."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for field, value in list(ast.iter_fields(node)):
            if isinstance(value, list):
                setattr(node, field, [part for part in value if not is_text(part)])
                if not getattr(node, field):
                    delattr(node, field)
    return ast.dump(tree)


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@pytest.mark.parametrize("name", VERSIONS)
def test_code_that_scores_changes_with_its_version(name: str) -> None:
    modules = sorted(scoring_code(name))
    sources = [(REPO / Path(*module.split("."))).with_suffix(".py").read_text(encoding="utf-8") for module in modules]
    now = (VERSIONS[name], code_hash(*sources))
    assert now == SEEN[name], f"one of {modules} changed: can the same texts get other scores? See above: {name}"


@pytest.mark.parametrize("loader", ["teachers.dense", "teachers.scoring"])
def test_all_that_a_teacher_reaches_is_looked_at(loader: str) -> None:
    looked_at = set().union(*(scoring_code(name) for name, modules in SCORED_BY.items() if modules[0] == loader))
    assert reachable(f"anna.{loader}") - CARRIERS <= looked_at


def test_comments_and_docstrings_do_not_count() -> None:
    bare = 'def f(x):\n    return x + 1\n\nNAME = "n"\n'
    said = '"""M."""\ndef f(x):\n    """D."""\n    # C\n    return x + 1\n\nNAME = "n"\n"""N."""\n'
    assert code_hash(said) == code_hash(bare)
    assert code_hash(bare.replace("+ 1", "+ 2")) != code_hash(bare)
    assert "[]" not in plain(bare)  # which Python 3.11 to 3.13 write differently
