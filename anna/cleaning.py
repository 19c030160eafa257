"""What a text looks like in every table, and a query of `anna search`."""

import re
import unicodedata

_NOT_TEXT = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u200b\ufeff]")
"""Control characters that are no whitespace, the zero-width space and the byte-order mark."""

_LINE_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
"""The one HTML tag that is common in otherwise plain text. It counts as whitespace."""


def clean(text: str) -> str:
    """Return `text` in Unicode NFC, without control characters, whitespace runs made one space, ends stripped.

    The model card has the same in two lines, for users of the model.
    """
    if not text.isascii():
        # Removal comes first: NFC composes characters only once nothing stands between them.
        text = unicodedata.normalize("NFC", _NOT_TEXT.sub("", text))
    elif not text.isprintable():
        text = _NOT_TEXT.sub("", text)
    if "<" in text:
        text = _LINE_BREAK.sub(" ", text)
    return " ".join(text.split())
