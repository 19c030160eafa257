"""Ids made from a task's name and a text: the same for any order of the input, and on every machine."""

import hashlib


def text_id(task: str, mark: str, *texts: str) -> str:
    """Return `<task>:<mark>:<hash>`.

    Args:
        task: Name of the task.
        mark: `d` document, `q` query, `p` pair, `t` labelled or summarised text.
        texts: What is hashed; more than one for a pair.
    """
    digest = hashlib.blake2b("\x1f".join(texts).encode(), digest_size=8).hexdigest()
    return f"{task}:{mark}:{digest}"
