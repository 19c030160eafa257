"""Estimates of the stages that encode or score without training: `retrieve_dense`, `rerank` and `evaluate`.

Constants of time that no formula gives are of the default's run on two CPU cores (metrics/cost/).
"""

from anna.planning import held_out, work
from anna.planning.case import Case, Estimate
from anna.planning.counts import mean, tokens
from anna.planning.hardware import GPUS_OF_MACHINE
from anna.planning.memory import inference_memory
from anna.planning.tables import ROW_BYTES
from anna.shapes import Shape

START = {"retrieve_dense": 8.0, "rerank": 9.0, "evaluate": 20.0}
"""Seconds of imports and loading (default)."""

EVALUATION_SECONDS = 0.4
"""Of a task and contender, beside embedding: mteb's classifiers, clusterings and scores (default)."""

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


def dense(case: Case) -> Estimate:
    """Return the estimate of `retrieve_dense`, its search included."""
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
    # In the store, where they are searched, and in the table of vectors, all at once.
    disk = 3 * texts * shape.hidden * 4 + case.counts.queries * params.depth * ROW_BYTES
    used = scorers(case)
    seconds = START["retrieve_dense"] + operations / (hardware.rate * used) + search / hardware.search_rate
    memory = scoring_memory("retrieve_dense", case, params.tokens_per_batch)
    note = f"{texts:,.0f} texts{_gpus(case, used)}"
    return Estimate("retrieve_dense", total, operations, memory, disk, seconds, note)


def rerank(case: Case) -> Estimate:
    """Return the estimate of `rerank`."""
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
    used = scorers(case)
    seconds = START["rerank"] + operations / (hardware.rate * used)
    note = f"{pairs:,.0f} pairs{_gpus(case, used)}"
    return Estimate("rerank", total, operations, memory, pairs * ROW_BYTES, seconds, note)


def evaluate(case: Case) -> Estimate:
    """Return the estimate of `evaluate`: the student with and without examples, and its baselines."""
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
    memory = max(scoring_memory("evaluate", case, params.tokens_per_batch), _baseline_memory(case))
    disk = sum(part.number for part in found) * models.dense.hidden * 4.0 * ("teacher" in params.baselines)
    used = _local_gpus(case, None if case.settings.scoring.engine == "ray" else case.settings.scoring.workers)
    seconds = START["evaluate"] + rounds * EVALUATION_SECONDS + operations / (hardware.rate * used)
    return Estimate("evaluate", total, operations, memory, disk, seconds, f"{tasks} tasks{_gpus(case, used)}")


def scored_by(stage: str, case: Case) -> Shape:
    """Return the shape of the model that a stage encodes or scores with."""
    return {"retrieve_dense": case.models.dense, "rerank": case.models.reranker, "evaluate": case.models.student}[stage]


def scoring_memory(stage: str, case: Case, at_once: int) -> float:
    """Return the peak memory of a stage that encodes or scores `at_once` tokens."""
    shape = scored_by(stage, case)
    memory = inference_memory(stage, shape, at_once, case.hardware, is_wide=is_wide(stage, case))
    if stage == "rerank" and case.settings.rerank.kind == "query_likelihood":
        memory += 2 * LOGITS_AT_ONCE * shape.vocabulary * 4  # logits, and their logarithms of softmax
    return memory


def is_wide(stage: str, case: Case) -> bool:
    """Return whether a stage computes in float32 on a GPU, too: all, or the texts of which it compares two orders."""
    params = getattr(case.settings, stage)
    return params.dtype == "float32" or (stage != "evaluate" and params.check_queries > 0)


def _baseline_memory(case: Case) -> float:
    """Return the peak memory of the dense teacher as a baseline of `evaluate`; 0: it is none."""
    if "teacher" not in case.settings.evaluate.baselines:
        return 0.0
    params = case.settings.retrieve_dense
    return inference_memory(
        "retrieve_dense",
        case.models.dense,
        params.tokens_per_batch,
        case.hardware,
        is_wide=params.dtype == "float32",
    )


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
    context = prompt + (own / 2 if is_shared else own)  # otherwise a token sees its whole text
    each = work.forward_read(shape, context, part.number / number if reads_early else 1.0)
    return number, number * each


def scorers(case: Case) -> int:
    """Return the GPUs that teachers compute on."""
    scoring, hardware = case.settings.scoring, case.hardware
    if scoring.engine == "local" or not hardware.is_gpu:
        return _local_gpus(case, scoring.workers)
    wanted = hardware.devices if scoring.workers is None else int(scoring.workers * scoring.gpus)
    return max(1, min(hardware.devices, wanted))


def _local_gpus(case: Case, workers: int | None) -> int:
    """Return the GPUs that so many models on one machine compute on."""
    return min(case.hardware.devices, workers or case.hardware.devices, GPUS_OF_MACHINE)


def _gpus(case: Case, used: int) -> str:
    return f", on {used} of {case.hardware.devices} GPUs" if used < case.hardware.devices else ""
