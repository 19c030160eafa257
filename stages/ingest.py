"""Read every source, clean it, and write the training collections and the held-out tasks.

Under 20 seconds for the default once the wheels are fetched, most of it reading and near-duplicate search.
`rows` of any source and all shares are safe to change; every teacher then runs again.
"""

from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, field_validator, model_validator

from anna import io, log, schemas
from anna.corpus import examples, ingest
from anna.corpus.collection import training_tables
from anna.corpus.drops import DropLog
from anna.corpus.held_out_tables import SCHEMAS, held_out_tables
from anna.corpus.sources import Cleaning, HeldOutSource, TrainSource
from anna.params import Params, RandomParams, recorded
from anna.seeding import derive_seed

CORPUS, QUERIES, QRELS = Path("data/corpus.parquet"), Path("data/queries.parquet"), Path("data/qrels.parquet")
EVAL_TABLES = {name: Path(f"data/eval/{name}.parquet") for name in SCHEMAS}
DROPS, METRICS = Path("data/ingest_drops.parquet"), Path("metrics/ingest.json")


class IngestParams(Params):
    """Sources and how they are cleaned."""

    section: ClassVar[str] = "ingest"

    max_faulty_share: float = Field(ge=0, le=1)
    """Share of a source's rows that may be empty, undecodable, malformed or without a value."""
    near_duplicate: float | None = Field(ge=0.06, le=1)
    """Jaccard similarity of 3-word shingles from which two texts count as one; null: equal texts only.

    Less alike ones `minhash` cannot find with so few misses as it promises."""
    validation_share: float = Field(ge=0, lt=1)
    """Share of each task's queries that is kept out of training."""
    examples_per_task: int = Field(ge=0)
    """In-context examples set aside from each held-out task, and of each entry of `examples`."""
    train: tuple[TrainSource, ...] = Field(min_length=1)
    """What the model is trained on."""
    held_out: tuple[HeldOutSource, ...] = ()
    """What it is scored on, besides a benchmark of mteb's own."""
    examples: tuple[TrainSource, ...] = ()
    """Where in-context examples of mteb's own tasks come from, by task. None is a text that the task scores."""

    @field_validator("examples")
    @classmethod
    def _have_no_distractors(cls, examples: tuple[TrainSource, ...]) -> tuple[TrainSource, ...]:
        for source in examples:
            if source.distractors:
                raise ValueError(
                    f"{source.task}: has distractors, which no example is taken from; delete `distractors`"
                )
        return examples

    @model_validator(mode="after")
    def _stand_together(self) -> Self:
        ingest.check_sources(self.train, self.held_out, self.examples)
        return self

    @property
    def tasks(self) -> set[str]:
        """Names of all tasks."""
        trained_or_shown = {source.task for source in (*self.train, *self.examples)}
        return trained_or_shown | {source.task for source in self.held_out}


WATCHED = (Path("sources"),)
"""Where files of users' own sources lie: when one is changed, DVC runs this stage again."""

INPUTS, OUTPUTS = (), (CORPUS, QUERIES, QRELS, *EVAL_TABLES.values(), DROPS, METRICS)
PARAMS = (RandomParams, IngestParams)
PROMPTS = recorded("prompts")
HOW = (PROMPTS,)


def main() -> None:
    """Run the stage."""
    params, drops = IngestParams.load(), DropLog()
    ingest.check_prompts(params.tasks, PROMPTS.load().values().get("tasks") or {})
    seed = derive_seed(RandomParams.load().seed, "ingest")
    cleaning = Cleaning(params.max_faulty_share, params.near_duplicate, seed)
    held_out = ingest.load_held_out(params.held_out, drops, cleaning, num_examples=params.examples_per_task)
    collections = ingest.load_training(params.train, held_out, drops, cleaning)
    corpus, queries, qrels = training_tables(collections, validation_share=params.validation_share, seed=seed)
    io.write(CORPUS, corpus, schemas.CORPUS)
    io.write(QUERIES, queries, schemas.QUERIES)
    io.write(QRELS, qrels, schemas.QRELS)
    shown = examples.load_examples(params.examples, scored_texts, cleaning, count=params.examples_per_task)
    for name, table in held_out_tables(held_out, shown).items():
        io.write(EVAL_TABLES[name], table, SCHEMAS[name])
    io.write(DROPS, drops.table(), schemas.INGEST_DROPS)
    io.write_json(METRICS, ingest.summarise(collections, held_out, drops))


def scored_texts(task: str) -> set[str]:
    """Return the texts that mteb's task of this name scores in English."""
    from anna.evaluation import data  # mteb is heavy, and only examples of its own tasks need it

    return data.scored_texts(data.english_task(task))


if __name__ == "__main__":
    log.run_stage("ingest", main)
