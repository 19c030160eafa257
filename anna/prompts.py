r"""The prompt: one function for training, evaluation and export.

`Instruct: {task}\nQuery: {q}\nResponse: {p}\n\n` for each in-context example, then `Instruct: {task}\nQuery: {q}`.
The tokenizer appends EOS. Documents of asymmetric tasks are bare text.

Reference: LGAI-Embedding-Preview, arXiv:2506.07438 (paper: the parts and their order); the text form is E5-Mistral's,
arXiv:2401.00368.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Example(NamedTuple):
    """An in-context example: a query and a document that answers it."""

    query: str
    response: str


def query_prefix(instruction: str, examples: Sequence[Example] = ()) -> str:
    """Return all of the prompt that comes before the query text.

    Args:
        instruction: One sentence that says what the task is.
        examples: In-context examples, shown in this order.
    """
    shown = "".join(f"{_opening(instruction)}{e.query}\nResponse: {e.response}\n\n" for e in examples)
    return shown + _opening(instruction)


def _opening(instruction: str) -> str:
    return f"Instruct: {instruction}\nQuery: "
