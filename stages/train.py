"""Train the student on the groups: InfoNCE + soft labels, in-context examples in the prompt, DeepSpeed ZeRO.

The most expensive stage on a laptop: about five minutes at the embedded default, GPU hours at the paper's size. It
runs no teacher: `prompts`, `student` and `train` can be changed freely, and only what comes after reruns. A run that
was killed goes on from its last checkpoint in `runs/checkpoints`; `dvclive/` shows how it goes.
"""

from pathlib import Path

from anna import io, log, parts, schemas
from anna.allocation import keep_freed_memory
from anna.modeling.encoder_config import PromptParams
from anna.modeling.hardware import pick_device
from anna.modeling.student import StudentParams
from anna.training import checks, data, launch, run
from anna.training.recipe import TrainParams
from anna.training.results import Outputs

CORPUS, QUERIES = Path("data/corpus.parquet"), Path("data/queries.parquet")
QRELS, GROUPS, DROPS = Path("data/qrels.parquet"), Path("data/groups.parquet"), Path("data/drops.parquet")
EXAMPLES, VECTORS = Path("data/eval/examples.parquet"), Path("data/dense_vectors.parquet")
ENCODER, METRICS = Path("models/encoder"), Path("metrics/train.json")
CURVE, VALIDATION = Path("metrics/training.csv"), Path("metrics/validation.csv")
CHECKPOINTS, LIVE = Path("runs/checkpoints"), Path("dvclive")

INPUTS = (CORPUS, QUERIES, QRELS, GROUPS, DROPS, VECTORS, EXAMPLES)
OUTPUTS = (ENCODER, METRICS, CURVE, VALIDATION)
PARAMS = (TrainParams, StudentParams, PromptParams)


def main() -> None:
    """Train on this process, or on `train.processes` of them."""
    params = TrainParams.load()
    if launch.relaunch("stages.train", params.processes):
        return
    # On a GPU what is large here are the weights before they move there, not what each step asks for again.
    keep_freed_memory(even_large=pick_device() == "cpu")
    prompts = PromptParams.load()
    run.train_encoder(
        data=read_data(params, prompts),
        student=StudentParams.load(),
        prompts=prompts,
        recipe=params,
        outputs=Outputs(ENCODER, METRICS, CURVE, VALIDATION),
        scratch=run.Scratch(CHECKPOINTS, LIVE),
    )


def read_data(params: TrainParams, prompts: PromptParams) -> run.TrainingData:
    """Return what the tables say to train on; whole tables, which every rank reads, stay in memory no longer."""
    corpus, queries = io.read(CORPUS, schemas.CORPUS), io.read(QUERIES, schemas.QUERIES)
    checks.check_sides(data.kinds(queries), prompts.tasks)
    qrels, groups = io.read(QRELS, schemas.QRELS), io.read(GROUPS, schemas.GROUPS)
    drops = data.needed_drops(parts.row_groups(DROPS, schemas.DROPS), groups, queries)
    trained_on = data.training_groups(groups, queries)
    validated_on = data.validation_groups(groups, drops, queries)
    vectors = parts.row_groups(VECTORS, schemas.VECTORS) if params.batch_kd_weight else ()
    return run.TrainingData(
        groups=trained_on,
        validation=validated_on,
        texts=data.training_texts(
            [*trained_on, *validated_on],
            corpus=corpus,
            queries=queries,
            qrels=qrels,
            drops=drops,
            vectors=vectors,
        ),
        examples=data.examples_by_task(io.read(EXAMPLES, schemas.EXAMPLES)),
    )


if __name__ == "__main__":
    log.run_stage("train", main)
