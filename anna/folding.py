"""The normal form under which two texts count as equal: for one text (`normalise`) and for a polars column (`fold`).

Both give the same for every text; a test compares them character by character.
"""

import unicodedata
from functools import cache

import polars as pl

_CASED = range(0x20000)
"""Code points among which all letters with case and all punctuation lie; above there are ideographs."""


class _Folding(dict[int, int]):
    """Code point -> itself, or a space where it is punctuation; filled as it is asked."""

    def __missing__(self, code: int) -> int:
        is_punctuation = unicodedata.category(chr(code)).startswith("P")
        self[code] = ord(" ") if is_punctuation else code
        return self[code]


_FOLDING = _Folding()

_ASCII = bytes(_FOLDING[code] for code in range(128)) + bytes(128)
"""The same of ASCII: most texts are nothing else, and bytes are translated ten times as fast."""


def normalise(text: str) -> str:
    """Return the form in which texts count as equal: case, punctuation and whitespace folded.

    Empty only for an empty text: one that is all punctuation stays as it is.
    """
    folded = text.casefold()
    spaced = folded.encode().translate(_ASCII).decode() if folded.isascii() else folded.translate(_FOLDING)
    return " ".join(spaced.split()) or folded


def fold(text: pl.Expr) -> pl.Expr:
    """Return `normalise` of a whole column at once."""
    folded = _foldings()
    words = text.str.replace_many(list(folded), list(folded.values()))
    words = words.str.replace_all(" {2,}", " ").str.strip_chars(" ")
    # A text that is all punctuation stays as it is.
    return pl.when(words == "").then(text).otherwise(words)


@cache
def _foldings() -> dict[str, str]:
    """Return what is put in place of each character that is not its own: case folded, punctuation and spaces a space.

    A table of Python's own: lower case and classes of characters in polars are not quite those of `normalise`.
    """
    folded = {char: "".join(map(_spaced, char.casefold())) for char in map(chr, _CASED)}
    return {char: other for char, other in folded.items() if other != char}


def _spaced(char: str) -> str:
    return " " if char.isspace() or unicodedata.category(char).startswith("P") else char
