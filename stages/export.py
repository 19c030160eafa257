"""Merge the trained student into a model that plain sentence-transformers loads, and prove that it is the same.

Seconds. Writes `models/sentence-transformer/`: weights, a tokenizer that appends EOS by itself, and as named prompts
every task's, with and without in-context examples; a model card says what it is made of. Fails if its vectors differ
from the training encoder's.
"""

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from anna import io, log, schemas
from anna.modeling import export
from anna.modeling.encoder_config import CARD_FILE
from anna.modeling.student import StudentParams
from anna.params import Params, recorded
from anna.reporting import card

ENCODER, CORPUS, QUERIES = Path("models/encoder"), Path("data/corpus.parquet"), Path("data/queries.parquet")
MODEL, METRICS = Path("models/sentence-transformer"), Path("metrics/export.json")


class ExportParams(Params):
    """How the export is checked."""

    section: ClassVar[str] = "export"

    check_texts: int = Field(gt=0)
    """Queries and documents, half and half, whose vectors are compared."""
    min_cosine: float = Field(gt=0, lt=1)
    """Smallest cosine with the training encoder's vector of the same text."""


TOLD = tuple(recorded(section) for section in card.SECTIONS)
INPUTS, OUTPUTS, PARAMS = (ENCODER, CORPUS, QUERIES), (MODEL, METRICS), (ExportParams, StudentParams, *TOLD)
CODE_FILES = (Path("anna/reporting/card.md.j2"),)


def main() -> None:
    """Export, then compare."""
    params = ExportParams.load()
    corpus, queries = io.read(CORPUS, schemas.CORPUS), io.read(QUERIES, schemas.QUERIES)
    encoder = export.load_trained(ENCODER, StudentParams.load())
    texts = export.samples(queries, corpus, params.check_texts, encoder.config)
    expected = export.embed(encoder, texts)
    export.export(encoder, MODEL)
    made = card.Made.read(MODEL, {section.section: section.load().values() for section in TOLD})
    io.write_text(MODEL / CARD_FILE, card.render(made))
    worst = export.compare(expected, texts, MODEL, params.min_cosine)
    io.write_json(METRICS, {"texts": sum(map(len, texts.values())), "smallest_cosine": round(worst, 6)})


if __name__ == "__main__":
    log.run_stage("export", main)
