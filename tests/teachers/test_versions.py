"""No stored score outlives the code that gave it: code that scores changes together with its version.

If this fails, decide whether the same texts can get other scores now. If so, raise the version that the message names,
and in any case put the new hash here. Comments and docstrings do not count.
"""

import ast
import hashlib
from pathlib import Path

import pytest

from anna.teachers import bi_encoder, scoring

TEACHERS = Path(bi_encoder.__file__).parent

VERSIONS = {
    "bi_encoder.VERSION": bi_encoder.VERSION,
    "scoring.VERSIONS['cross_encoder']": scoring.VERSIONS["cross_encoder"],
    "scoring.VERSIONS['query_likelihood']": scoring.VERSIONS["query_likelihood"],
}

SEEN = {
    "bi_encoder.VERSION": (3, "bi_encoder padding", "fcf1b0745123bfaa dcb45fcb0c477c7f"),
    "scoring.VERSIONS['cross_encoder']": (3, "cross_encoder padding", "03dd3dc385e3ab0b dcb45fcb0c477c7f"),
    "scoring.VERSIONS['query_likelihood']": (3, "query_likelihood", "27063bb289107565"),
}
"""Version, modules that score, and hash of their code."""


def code_hash(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [part for part in body if not is_text(part)]  # type: ignore[attr-defined]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@pytest.mark.parametrize("name", VERSIONS)
def test_code_that_scores_changes_with_its_version(name: str) -> None:
    version, modules, expected = SEEN[name]
    hashes = [code_hash((TEACHERS / f"{module}.py").read_text(encoding="utf-8")) for module in modules.split()]
    now = (VERSIONS[name], " ".join(hashes))
    assert now == (version, expected), f"{modules} changed: can the same texts get other scores? See above: {name}"


def test_comments_and_docstrings_do_not_count() -> None:
    plain = 'def f(x):\n    return x + 1\n\nNAME = "n"\n'
    said = '"""M."""\ndef f(x):\n    """D."""\n    # C\n    return x + 1\n\nNAME = "n"\n"""N."""\n'
    assert code_hash(said) == code_hash(plain)
    assert code_hash(plain.replace("+ 1", "+ 2")) != code_hash(plain)
