"""Rows from two knowledge bases: OBO ontologies (terms and synonyms) and STIX bundles (ATT&CK)."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from anna.folding import normalise

MAX_OVERLAP = 1 / 3
"""Two names count as worded differently up to this Jaccard similarity of their words; more would give the answer of
`synonym_pairs` away."""

_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\(.)")
_SAME_WORDS = re.compile(r" [A-Z]+ (uk_spelling|plural_form|obsolete_synonym)\b")
"""Synonym types that say nothing new, or nothing true any more."""

_CITATION = re.compile(r"\(Citation: [^()]*(?:\([^()]*\)[^()]*)*\)")
_LINK = re.compile(r"\[([^\]]*)\]\([^)\s]*\)")
_TAG = re.compile(r"</?code>")


@dataclass
class Term:
    """A term of an ontology."""

    id: str
    name: str = ""
    definition: str = ""
    synonyms: list[str] = field(default_factory=list)
    parents: list[str] = field(default_factory=list)
    is_obsolete: bool = False


def parse_obo(lines: Iterable[str]) -> list[Term]:
    """Return the terms of an OBO file that are not obsolete, by id.

    Reference: OBO flat file format 1.4, tags id, name, def, synonym, is_a, is_obsolete of [Term] stanzas.
    """
    terms: list[Term] = []
    is_term = False
    for line in lines:
        if line.startswith("["):
            is_term = line.strip() == "[Term]"
        tag, separator, value = line.partition(": ")
        if not (is_term and separator):
            continue
        value = value.strip()
        if tag == "id":
            terms.append(Term(value))
        elif terms:
            _set(terms[-1], tag, value)
    return sorted((term for term in terms if not term.is_obsolete), key=lambda term: term.id)


def _set(term: Term, tag: str, value: str) -> None:
    quoted = _QUOTED.match(value)
    text = _ESCAPE.sub(r"\1", quoted[1]) if quoted else ""
    if tag == "name":
        term.name = value
    elif tag == "def":
        term.definition = text
    elif tag == "synonym" and text and not _SAME_WORDS.match(value, quoted.end() if quoted else 0):
        term.synonyms.append(text)
    elif tag == "is_a":
        term.parents.append(re.split(" [!{]", value, maxsplit=1)[0])
    elif tag == "is_obsolete":
        term.is_obsolete = value == "true"


def synonyms(terms: Iterable[Term]) -> Iterator[dict[str, Any]]:
    """Yield a row {synonym, name, definition} per synonym of each term that has a definition."""
    for term in terms:
        for synonym in sorted(set(term.synonyms)) if term.definition else ():
            yield {"synonym": synonym, "name": term.name, "definition": term.definition}


def synonym_pairs(terms: list[Term]) -> Iterator[dict[str, Any]]:
    """Yield rows {name, synonym, is_own} in pairs: a name with a synonym of its own, then with one of a sibling.

    Both are worded differently from the name. Of the siblings' synonyms, the one is taken whose overlap with the name
    is nearest to that of the term's own synonym, so that shared words do not give the answer away.
    """
    siblings = _siblings(terms)
    for term in terms:
        own_names = {_words(text) for text in (term.name, *term.synonyms)}
        own = sorted((word_overlap(term.name, text), text) for text in set(term.synonyms))
        others = [
            (word_overlap(term.name, text), text)
            for sibling in siblings[term.id]
            for text in sibling.synonyms
            if _words(text) not in own_names
        ]
        if own and others and own[0][0] <= MAX_OVERLAP and min(others)[0] <= MAX_OVERLAP:
            overlap, text = own[0]
            _, other = min((abs(other_overlap - overlap), other) for other_overlap, other in others)
            yield {"name": term.name, "synonym": text, "is_own": 1}
            yield {"name": term.name, "synonym": other, "is_own": 0}


def _siblings(terms: list[Term]) -> dict[str, list[Term]]:
    """Return the terms that share a parent with each term, but neither it nor its parents nor its children."""
    children: defaultdict[str, list[Term]] = defaultdict(list)
    for term in terms:
        for parent in term.parents:
            children[parent].append(term)
    found: dict[str, list[Term]] = {}
    for term in terms:
        near = {sibling.id: sibling for parent in term.parents for sibling in children[parent]}
        found[term.id] = [
            near[key]
            for key in sorted(near)
            if key not in (term.id, *term.parents) and term.id not in near[key].parents
        ]
    return found


def word_overlap(text: str, other: str) -> float:
    """Return the Jaccard similarity of two texts' sets of words, in [0, 1]."""
    words, other_words = _words(text), _words(other)
    return len(words & other_words) / len(words | other_words)


@lru_cache(maxsize=2**17)
def _words(text: str) -> frozenset[str]:
    return frozenset(normalise(text).split())


def procedures(objects: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield a row {procedure, technique, description} per observed use of each technique among a bundle's objects.

    Reference: STIX 2.1, relationships of type "uses" whose target is an attack-pattern that is neither revoked nor
    deprecated. Markdown links become their text; citations go.
    """
    objects = [item for item in objects if isinstance(item, dict)]
    patterns = (item for item in objects if item.get("type") == "attack-pattern" and _is_current(item))
    techniques = {item["id"]: item for item in patterns if "id" in item}  # nothing can name one without
    for item in objects:
        target = techniques.get(item.get("target_ref", ""))
        if target is not None and item.get("relationship_type") == "uses" and _is_current(item):
            yield {
                "procedure": strip_markup(item.get("description", "")),
                "technique": target.get("name", ""),
                "description": strip_markup(target.get("description", "")),
            }


def _is_current(item: dict[str, Any]) -> bool:
    return not item.get("revoked") and not item.get("x_mitre_deprecated")


def strip_markup(text: str) -> str:
    """Return `text` with Markdown links as their text, and without citations and code tags."""
    return _TAG.sub("", _LINK.sub(r"\1", _CITATION.sub("", text)))
