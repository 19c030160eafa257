"""What of params.yaml a plan reads."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self


class Settings(NamedTuple):
    """Sections of params.yaml, each as its stage reads it: untyped, since nothing in `anna` imports a stage."""

    ingest: Any
    retrieve_bm25: Any
    retrieve_dense: Any
    rerank: Any
    scoring: Any
    filter: Any
    student: Any
    train: Any
    prompts: Any
    evaluate: Any

    @classmethod
    def of(cls, sections: Mapping[str, Any]) -> Self:
        """Return those that a plan reads, of all that `anna.check` gives."""
        return cls(*(sections[name] for name in cls._fields))
