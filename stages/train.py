"""Train the student on the groups: InfoNCE + soft labels, in-context examples in the prompt, DeepSpeed ZeRO.

The most expensive stage on a laptop: about six minutes at the embedded default, GPU hours at the paper's size. Reads no
teacher: `prompts`, `student` and `train` can be changed freely, and only what comes after reruns.
"""

from pathlib import Path

from anna import io, log, schemas
from anna.modeling.encoder_config import PromptParams
from anna.modeling.student import StudentParams
from anna.training import data, launch, run
from anna.training.recipe import TrainParams

CORPUS, QUERIES = Path("data/corpus.parquet"), Path("data/queries.parquet")
QRELS, GROUPS = Path("data/qrels.parquet"), Path("data/groups.parquet")
EXAMPLES = Path("data/eval/examples.parquet")
ENCODER, METRICS, CURVE = Path("models/encoder"), Path("metrics/train.json"), Path("metrics/training.csv")

INPUTS = (CORPUS, QUERIES, QRELS, GROUPS, EXAMPLES)
OUTPUTS = (ENCODER, METRICS, CURVE)
PARAMS = (TrainParams, StudentParams, PromptParams)


def main() -> None:
    """Train on this process, or on `train.processes` of them."""
    params = TrainParams.load()
    if launch.relaunch("stages.train", params.processes):
        return
    corpus, queries = io.read(CORPUS, schemas.CORPUS), io.read(QUERIES, schemas.QUERIES)
    qrels, groups = io.read(QRELS, schemas.QRELS), io.read(GROUPS, schemas.GROUPS)
    run.train_encoder(
        groups=data.training_groups(groups, queries),
        texts=data.training_texts(corpus, queries, qrels),
        examples=data.examples_by_task(io.read(EXAMPLES, schemas.EXAMPLES)),
        student=StudentParams.load(),
        prompts=PromptParams.load(),
        recipe=params,
        outputs=run.Outputs(ENCODER, METRICS, CURVE),
    )


if __name__ == "__main__":
    log.run_stage("train", main)
