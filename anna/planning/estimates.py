"""One estimate per stage: tokens, operations, memory, disk and time.

Constants of time and memory that no formula gives are of the default's run on two CPU cores (metrics/cost/).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from anna.footprint import Setup, whole_weights
from anna.planning import held_out, training, work
from anna.planning.counts import BYTES_PER_TOKEN, Counts, mean, tokens
from anna.planning.hardware import GPUS_OF_MACHINE, HOST_BANDWIDTH, Hardware
from anna.planning.memory import LIBRARIES, MIB, host_memory, inference_memory, needed_memory
from anna.planning.settings import Settings
from anna.shapes import Shape

START = {"retrieve_dense": 8.0, "rerank": 9.0, "train": 14.0, "evaluate": 20.0, "export": 6.0}
"""Seconds of imports, loading and saving (default)."""

INGEST_SECONDS, LABEL_SECONDS = 2.5e-4, 4e-6
"""Of a document and its query in `ingest` (200,000, of 65 words and 8), and of a candidate in `label` and `filter`
(default)."""

INGEST_BYTES = 1700
"""Of a document and its query in `ingest`, beside three copies of the text (200,000)."""

BM25_INDEX_SECONDS, BM25_SECONDS = 8.5e-5, 5.2e-9
"""Of a document, and of a query and a document of its task on one core, in `retrieve_bm25` (a million documents of 40
words, queries of 7)."""

BM25_BYTES = 50
"""Of a token of the largest task's documents in `retrieve_bm25`, which indexes one task at a time (default)."""

DOC_BYTES = 340
"""Of a document, its text not counted, in `label` and `filter`, which number all ids (400,000 documents)."""

TEXT_COPIES = 2
"""Of all documents' texts in `filter` (400,000 documents of 400 characters)."""

EVALUATION_SECONDS = 0.4
"""Of a task and contender, beside embedding: mteb's classifiers, clusterings and scores (default)."""

ROW_BYTES = 40
"""Of a row of a run or of labels on disk (default: 8 to 14; ids of larger collections compress worse)."""

AROUND_PASSAGE = 9
"""Tokens that query likelihood puts around a passage."""

LOGITS_AT_ONCE = 128
"""Query tokens over whose vocabularies it takes the softmax at once, as in `anna.teachers.query_likelihood`."""

DISTINCT_PASSAGES = 0.8
"""Passages of a pair (default: 486 of 607)."""

OUTSIDE, JUDGED = 0.2, 4
"""Positives of a query that are not among its best candidates (default), and judged negatives scored at most, as in
`anna.teachers.shortlist`."""

PADDED_TO = 16
"""Tokens that a row of a teacher is padded to a multiple of, as in `anna.teachers.padding`."""


class Estimate(NamedTuple):
    """What a stage takes."""

    stage: str
    tokens: float
    operations: float
    memory: float
    """Peak of each device: of the GPU where the stage runs on one, else of the machine."""
    disk: float
    """Bytes that stay, or are written at one time."""
    seconds: float
    note: str = ""


class Models(NamedTuple):
    """Shapes of the three models."""

    student: Shape
    """With the layers that are kept."""
    dense: Shape
    reranker: Shape
    checkpoint: Shape
    """The student's, whole."""


@dataclass(frozen=True)
class Case:
    """All that estimates are made from, and what of training several of them need."""

    settings: Settings
    counts: Counts
    models: Models
    hardware: Hardware
    ranks: int
    """Processes that train."""

    @cached_property
    def work(self) -> training.Work:
        """What training computes."""
        return training.plan(self.settings, self.counts, self.models.student, self.ranks)

    @cached_property
    def setup(self) -> Setup:
        """What decides the memory of training."""
        return training.setup(self.settings.train, self.models.student, self.hardware, self.ranks, self.work.largest)


def estimate(case: Case) -> list[Estimate]:
    """Return the estimates of all stages, in the order of the pipeline."""
    makers: Mapping[str, Callable[[Case], Estimate]] = {
        "ingest": _ingest,
        "retrieve_bm25": _bm25,
        "retrieve_dense": _dense,
        "rerank": _rerank,
        "label": lambda case: _tables("label", case),
        "filter": lambda case: _tables("filter", case),
        "train": train,
        "export": _export,
        "evaluate": _evaluate,
        "report": _report,
    }
    return [make(case) for make in makers.values()]


def _ingest(case: Case) -> Estimate:
    docs = sum(task.docs for task in case.counts.tasks)
    text = text_bytes(case)
    memory = LIBRARIES["ingest"] + 3 * text + INGEST_BYTES * docs
    return Estimate("ingest", 0, 0, memory, 0.7 * text, 14 + docs * INGEST_SECONDS, f"{docs:,} documents")


def _bm25(case: Case) -> Estimate:
    pairs = sum(float(task.queries) * task.docs for task in case.counts.tasks)
    largest = max(task.docs * mean(task.doc_lengths, 1e9) for task in case.counts.tasks)
    rows = sum(task.queries for task in case.counts.tasks) * case.settings.retrieve_bm25.depth
    memory = LIBRARIES["retrieve_bm25"] + BM25_BYTES * largest
    cores = case.hardware.cores
    seconds = 1 + sum(task.docs for task in case.counts.tasks) * BM25_INDEX_SECONDS + pairs * BM25_SECONDS / cores
    return Estimate("retrieve_bm25", 0, 0, memory, rows * ROW_BYTES, seconds, f"on {cores} CPU cores")


def _dense(case: Case) -> Estimate:
    params, shape, hardware = case.settings.retrieve_dense, case.models.dense, case.hardware
    total = texts = operations = search = 0.0
    for task in case.counts.tasks:
        for count, lengths in ((task.docs, task.doc_lengths), (task.queries, task.query_lengths)):
            length = mean(lengths + 1, params.max_tokens, PADDED_TO)
            texts, total = texts + count, total + count * length
            operations += count * length * work.forward(shape, length)
        lists = params.index.nlist or 4 * task.docs**0.5
        compared = task.docs * lists if task.docs >= params.index.min_docs else float(task.docs) * task.queries
        search += 2.0 * shape.hidden * compared
    disk = 2 * texts * shape.hidden * 4 + sum(task.queries for task in case.counts.tasks) * params.depth * ROW_BYTES
    seconds = START["retrieve_dense"] + operations / (hardware.rate * scorers(case)) + search / hardware.search_rate
    memory = scoring_memory("retrieve_dense", case, params.tokens_per_batch)
    return Estimate("retrieve_dense", total, operations, memory, disk, seconds, f"{texts:,.0f} texts{_where(case)}")


def _rerank(case: Case) -> Estimate:
    params, shape, hardware = case.settings.rerank, case.models.reranker, case.hardware
    total = pairs = operations = 0.0
    for task in case.counts.tasks:
        queries = min(task.queries, params.queries_per_task or task.queries)
        depth = min(params.depth + OUTSIDE + (JUDGED if task.has_negatives else 0), task.docs)
        read, asked = mean(task.doc_lengths, params.doc_tokens), mean(task.query_lengths, params.query_tokens)
        number = queries * depth
        if params.kind == "cross_encoder":
            length = -(-(read + asked + 2) // PADDED_TO) * PADDED_TO
            own = number * length
            operations += own * work.forward(shape, length)
        else:
            own = number * (DISTINCT_PASSAGES * (read + AROUND_PASSAGE) + asked)
            operations += own * work.forward(shape, read / 2) + number * asked * 2 * shape.table
        total, pairs = total + own, pairs + number
    memory = scoring_memory("rerank", case, params.tokens_per_batch)
    seconds = START["rerank"] + operations / (hardware.rate * scorers(case))
    note = f"{pairs:,.0f} pairs{_where(case)}"
    return Estimate("rerank", total, operations, memory, pairs * ROW_BYTES, seconds, note)


def _tables(stage: str, case: Case) -> Estimate:
    """`label` and `filter`: the union of both runs, of which most of the default's are distinct."""
    settings = case.settings
    depth = settings.retrieve_bm25.depth + settings.retrieve_dense.depth
    rows = sum(task.queries * min(depth, task.docs) for task in case.counts.tasks) * 0.85
    memory = LIBRARIES["tables"] + _documents(case, copies=TEXT_COPIES if stage == "filter" else 0)
    return Estimate(stage, 0, 0, memory, rows * ROW_BYTES, 0.3 + rows * LABEL_SECONDS)


def _report(case: Case) -> Estimate:
    """Count the margins once more, as `filter` reads the documents."""
    return Estimate("report", 0, 0, LIBRARIES["report"] + _documents(case, copies=TEXT_COPIES), MIB, 3.0)


def _documents(case: Case, *, copies: int) -> float:
    """Return the memory of all documents' ids and of so many copies of their texts."""
    return DOC_BYTES * sum(task.docs for task in case.counts.tasks) + copies * text_bytes(case)


def text_bytes(case: Case) -> float:
    """Return the bytes of all documents' texts."""
    return sum(task.docs * mean(task.doc_lengths, 1e9) for task in case.counts.tasks) * BYTES_PER_TOKEN


def train(case: Case) -> Estimate:
    """Return the estimate of training; on a CPU the memory is that of all ranks together."""
    params, hardware, done, own = case.settings.train, case.hardware, case.work, case.setup
    devices = case.ranks if hardware.is_gpu else 1
    reading = host_memory(case.models.checkpoint, own._replace(ranks=1)) / HOST_BANDWIDTH if hardware.is_gpu else 0.0
    seconds = START["train"] + reading + done.operations / (hardware.rate * devices)
    kept = own.trained * own.weight_bytes if params.method == "lora" else whole_weights(own)
    state = own.trained * (12 + own.weight_bytes)
    disk = kept + (2 * state if params.checkpoint_steps else 0) + 2 * own.trained * own.weight_bytes
    note = f"{done.steps:,} steps"
    if params.max_micro_step_tokens:
        note += f", {done.cut_share:.0%} of tokens embedded twice"
    memory = needed_memory(own)
    if hardware.is_gpu:
        is_begun = case.settings.student.last_layer == "weighted_mean" or params.last_layer_first is not None
        memory = max(memory, is_begun * 4.0 * own.shape.parameters)  # whole, in float32, at every ZeRO stage
    else:
        first = whole_weights(own) + training.last_layer_memory(case.settings, case.counts, own)
        memory = max(memory, case.ranks * (LIBRARIES["train"] + first))
    return Estimate("train", done.tokens, done.operations, memory, disk, seconds, note)


def _export(case: Case) -> Estimate:
    size = 4.0 * case.models.student.parameters
    seconds = START["export"] + 4 * size / HOST_BANDWIDTH
    memory = LIBRARIES["export"] + 2 * size
    return Estimate("export", 0, 0, memory, size, seconds, "float32, in the machine's memory")


def _evaluate(case: Case) -> Estimate:
    params, models, hardware = case.settings.evaluate, case.models, case.hardware
    found = held_out.texts(case.settings)
    student = [sum(values) for values in zip(*(_embedded(part, case, 0) for part in found), strict=True)] or [0.0] * 2
    examples = case.settings.ingest.examples_per_task if params.with_examples else 0
    shown = [_embedded(part, case, examples) for part in found if part.prompt_tokens and examples]
    times = 1 + ("untrained" in params.baselines)
    total = times * student[0] + sum(part[0] for part in shown)
    operations = times * student[1] + sum(part[1] for part in shown)
    if "teacher" in params.baselines:
        for part in found:
            length = mean(part.lengths + 1, case.settings.retrieve_dense.max_tokens, PADDED_TO)
            total += part.number * length
            operations += part.number * length * work.forward(models.dense, length)
    tasks = len({part.task for part in found})
    rounds = tasks * (1 + len(params.baselines) + params.with_examples)
    memory = scoring_memory("evaluate", case, params.tokens_per_batch)
    disk = sum(part.number for part in found) * models.dense.hidden * 4.0 * ("teacher" in params.baselines)
    used = local_gpus(case, None if case.settings.scoring.engine == "ray" else case.settings.scoring.workers)
    seconds = START["evaluate"] + rounds * EVALUATION_SECONDS + operations / (hardware.rate * used)
    return Estimate("evaluate", total, operations, memory, disk, seconds, f"{tasks} tasks{_gpus(case, used)}")


def scored_by(stage: str, case: Case) -> Shape:
    """Return the shape of the model that a stage encodes or scores with."""
    return {"retrieve_dense": case.models.dense, "rerank": case.models.reranker, "evaluate": case.models.student}[stage]


def scoring_memory(stage: str, case: Case, at_once: int) -> float:
    """Return the peak memory of a stage that encodes or scores `at_once` tokens."""
    shape = scored_by(stage, case)
    memory = inference_memory(stage, shape, at_once, case.hardware)
    if stage == "rerank" and case.settings.rerank.kind == "query_likelihood":
        memory += 2 * LOGITS_AT_ONCE * shape.vocabulary * 4  # logits, and their logarithms of softmax
    return memory


def longest_text(stage: str, case: Case) -> int:
    """Return the tokens of the longest text, or pair, of a stage that encodes or scores; it is computed at once."""
    params = getattr(case.settings, stage)
    return int(params.query_tokens + params.doc_tokens if stage == "rerank" else params.max_tokens)


def _embedded(part: held_out.Texts, case: Case, examples: int) -> tuple[float, float]:
    """Return the student's tokens and operations for texts of one task."""
    settings, shape = case.settings, case.models.student
    own = mean(part.lengths, settings.evaluate.max_tokens)
    shown = 2 * settings.prompts.example_tokens + tokens("Response: ")
    prompt = part.prompt_tokens and part.prompt_tokens + examples * (part.prompt_tokens + shown)
    is_shared = settings.student.attention == "causal"
    number = part.number * (own + (0 if is_shared else prompt)) + (prompt if is_shared else 0)
    reads_early = settings.student.pooling == "last_token"
    each = work.forward_read(shape, prompt + own / 2, part.number / number if reads_early else 1.0)
    return number, number * each


def scorers(case: Case) -> int:
    """Return the GPUs that teachers compute on."""
    scoring, hardware = case.settings.scoring, case.hardware
    if scoring.engine == "local" or not hardware.is_gpu:
        return local_gpus(case, scoring.workers)
    wanted = hardware.devices if scoring.workers is None else int(scoring.workers * scoring.gpus)
    return max(1, min(hardware.devices, wanted))


def local_gpus(case: Case, workers: int | None) -> int:
    """Return the GPUs that so many models on one machine compute on."""
    return min(case.hardware.devices, workers or case.hardware.devices, GPUS_OF_MACHINE)


def _where(case: Case) -> str:
    return _gpus(case, scorers(case))


def _gpus(case: Case, used: int) -> str:
    return f", on {used} of {case.hardware.devices} GPUs" if used < case.hardware.devices else ""


def downloads(case: Case) -> float:
    """Return the bytes of the three models as they are published: two of a weight of a decoder, four of an encoder."""
    shapes = (case.models.checkpoint, case.models.dense, case.models.reranker)
    return float(sum(shape.parameters * (2 if shape.is_decoder else 4) for shape in shapes))
