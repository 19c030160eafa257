"""The memory of training a transformer, by ZeRO stage. Pure arithmetic, in bytes.

DeepSpeed has estimators of its own (`estimate_zero2_model_states_mem_needs`, `estimate_zero3_...`). They are of no use
here: they count 16 bytes of optimizer and gradients for *every* weight, where LoRA or a frozen token table trains few;
they assume 16-bit weights, also on a CPU; they know no ZeRO 0 and 1, no activations, and no GPU that must hold the
whole weights before ZeRO 3 shards them. Where all weights are trained in 16 bits the two agree: a test says how nearly.

Legend: T trained weights, b bytes of a number (2: bfloat16, 4: float32), n ranks.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from anna.errors import InputError
from anna.shapes import Shape

GIB = 2**30

NF4_BYTES = (4 + 0.127) / 8
"""Of a weight in 4 bits and its share of its block's constants (double quantised: Dettmers et al. 2023, section 3)."""

BUCKET = 500_000_000
"""Numbers that DeepSpeed reduces at once: `reduce_bucket_size`, its default. A GPU allocates them all."""

LIVE = 1_000_000_000
"""Weights that ZeRO 3 keeps gathered at once, at most: `stage3_max_live_parameters`, its default."""

SMALLEST_STEP = 1024
"""Tokens of a micro-step below which nothing is proposed: a text with its examples has to fit."""

GPU_BASE = 1.5 * GIB
"""CUDA's context, NCCL's buffers and what kernels need to work (assumed)."""

_NOT_FIRST = "train.last_layer_first: null"
"""What goes with a last layer that begins as pretrained, for people."""


class Setup(NamedTuple):
    """What decides how much memory a device needs for training."""

    shape: Shape
    """Of the student, with the layers that are kept."""
    ranks: int
    tokens: int
    """Computed at once by a rank, at most; 0: not known yet."""
    is_gpu: bool
    zero_stage: int
    method: Literal["full", "lora"]
    lora_rank: int
    freeze_token_table: bool
    recomputed: int
    """Number of layers, counted from the first, that keep only their input for the backward pass."""
    is_quantized: bool
    weight_bytes: int
    """2 where a GPU computes in bfloat16; on a CPU weights are kept in float32 whatever is computed in."""
    start: float = 0.0
    """Bytes of a process while it writes the last layer (`student.last_layer`) or trains it first
    (`train.last_layer_first`), for which weights are whole and in float32; 0: it does neither."""

    def is_compiled(self, layer: int) -> bool:
        """Return whether a layer before the last is compiled (`anna.modeling.fused`): at ZeRO 3 the first is not."""
        return self.is_gpu and not self.is_quantized and not (self.zero_stage == 3 and layer == 0)

    @property
    def trained(self) -> int:
        """Weights that the optimizer moves."""
        if self.method == "lora":
            return self.shape.adapters(self.lora_rank)
        return self.shape.parameters - self.shape.table * self.freeze_token_table


class States(NamedTuple):
    """Bytes on each device that do not depend on the batch."""

    weights: float
    gradients: float
    optimizer: float
    buffers: float
    """DeepSpeed's: the bucket that gradients are reduced in, and what ZeRO 3 keeps gathered."""


def recomputed_layers(gradient_checkpointing: bool | int, layers: int) -> int:
    """Return how many of a student's layers `train.gradient_checkpointing` means: all, none, or so many.

    Raises:
        InputError: If there are fewer.
    """
    if isinstance(gradient_checkpointing, bool):
        return layers * gradient_checkpointing
    if gradient_checkpointing > layers:
        raise InputError(
            f"train.gradient_checkpointing is {gradient_checkpointing}, but the student has {layers} layers; set it to "
            "true"
        )
    return gradient_checkpointing


def whole_weights(setup: Setup) -> float:
    """Return the bytes of all weights: frozen ones in 4 bits if quantised, all others in b bytes."""
    shape = setup.shape
    if setup.method == "full":
        return float(shape.parameters * setup.weight_bytes)
    in_layers = shape.layers * shape.matrices
    narrow = NF4_BYTES if setup.is_quantized else setup.weight_bytes
    return in_layers * narrow + (shape.parameters - in_layers + setup.trained) * setup.weight_bytes


def states(setup: Setup) -> States:
    """Return what DeepSpeed 0.19 keeps for T trained weights of b bytes under AdamW.

    weights    all of them; at stage 3 divided by n
    gradients  T b, at stages 2 and 3 divided by n; and for the step a flat copy in float32, 4 T, from stage 1 on
               divided by n (at stage 0 where b is 2 alone)
    optimizer  two moments and a copy of the weights in float32, 12 T, from stage 1 on divided by n; 8 T where there is
               no copy: at stages 0 and 3 where weights are in float32 anyway
    buffers    from stage 1 on a bucket of b bytes each (a CPU fills no more of it than T); at stage 3 gathered weights
    """
    trained, b, stage = setup.trained, setup.weight_bytes, setup.zero_stage
    share = setup.ranks if stage else 1
    weights = whole_weights(setup)
    gathered = min(weights, LIVE * b) if stage == 3 else 0.0
    copy_bytes = 0 if b == 4 and stage in (0, 3) else 4
    flat = 0 if b == 4 and stage == 0 else 4 * trained / share
    bucket = (BUCKET if setup.is_gpu else min(BUCKET, trained)) * b * (stage > 0)
    return States(
        weights=weights / (setup.ranks if stage == 3 else 1),
        gradients=trained * b / (setup.ranks if stage >= 2 else 1) + flat,
        optimizer=(8 + copy_bytes) * trained / share,
        buffers=bucket + gathered,
    )


def saved_by_layer(setup: Setup) -> float:
    """Return the bytes that one layer keeps of a token for its backward pass.

    Two norms, each its input in float32 and two numbers per dimension in b bytes; queries, keys, values, and the
    attention's output twice; of the MLP gate, its activation, the other half, and their product. An adapter keeps its
    input after dropout, where dropout fell (one byte), and its middle.
    """
    shape, b = setup.shape, setup.weight_bytes
    own = 2 * (4 + 2 * b) * shape.hidden + (3 * shape.query_dims + 2 * shape.key_dims + 4 * shape.ffn) * b
    if setup.method == "full":
        return float(own)
    return float(own + sum(inputs * (b + 1) + setup.lora_rank * b for inputs, _ in shape.linears))


def saved_by_compiled_layer(setup: Setup) -> float:
    """Return the bytes that one layer keeps of a token where it is compiled (`anna.modeling.fused`).

    Inputs and outputs of both norms; queries, keys, values and the attention's output; both halves of the MLP;
    adapters' middles. All else is computed again.
    """
    shape = setup.shape
    middles = len(shape.linears) * setup.lora_rank * (setup.method == "lora")
    numbers = 4 * shape.hidden + 2 * shape.query_dims + 2 * shape.key_dims + 2 * shape.ffn + middles
    return float(numbers * setup.weight_bytes)


def saved_by_last_layer(setup: Setup) -> float:
    """Return the bytes that the last layer keeps of a token for the backward pass: keys, values and their inputs."""
    shape, b = setup.shape, setup.weight_bytes
    return (4 + 2 * b) * shape.hidden + 2 * shape.key_dims * b


def activations(setup: Setup) -> float:
    """Return the bytes kept for the backward pass of `tokens`.

    A recomputed layer keeps its input; the last layer what `saved_by_last_layer` says; every other layer all that its
    backward pass needs. Recomputing a layer takes as much for a while, but by then the others are done with theirs.
    """
    shape, b = setup.shape, setup.weight_bytes
    compiled, plain = saved_by_compiled_layer(setup), saved_by_layer(setup)
    inputs = setup.recomputed * shape.hidden * b
    whole = [compiled if setup.is_compiled(layer) else plain for layer in range(setup.recomputed, shape.layers - 1)]
    last = saved_by_last_layer(setup) * (setup.recomputed < shape.layers)
    return setup.tokens * (inputs + max(sum(whole) + last, plain * (setup.recomputed > 0)))


def peak(setup: Setup) -> float:
    """Return the estimated peak of a GPU's memory, or of a process on a CPU without its libraries."""
    base = GPU_BASE if setup.is_gpu else 0.0
    return base + max(sum(states(setup)) + activations(setup), whole_weights(setup))


def floor(setup: Setup) -> float:
    """Return the bytes without which training cannot run at all: no activations, buffers, copies or libraries.

    Every GPU holds all weights for a moment, also at stage 3: DeepSpeed moves a loaded model there whole, then shards
    it.
    """
    own, trained = states(setup), setup.trained
    gradients = trained * setup.weight_bytes / (setup.ranks if setup.zero_stage >= 2 else 1)
    return max(own.weights + own.optimizer + gradients, whole_weights(setup) if setup.is_gpu else 0.0)


def remedies(setup: Setup, memory: float, needed: Callable[[Setup], float] = peak) -> list[str]:
    """Return changes of params of which each is enough, cheapest first, such as "train.zero_stage: 3 (12.1 GiB)".

    Where no single change is enough, one entry with several; where those are not either, none.

    Args:
        setup: What needs too much.
        memory: Bytes of a device.
        needed: What of a setup must fit.
    """
    enough: dict[str, str] = {}
    for key, value, changed in _changes(setup):
        if key not in enough and needed(changed) <= memory:
            enough[key] = f"{key}: {value} ({needed(changed) / GIB:.1f} GiB)"
    if enough:
        return list(enough.values())
    together: dict[str, str] = {}
    while True:
        tried = [change for change in _changes(setup) if change[0] not in together]
        better = min(tried, key=lambda change: needed(change[2]), default=None)
        if better is None or needed(better[2]) >= needed(setup):
            return []
        key, value, setup = better
        together[key] = f"{key}: {value}"
        if needed(setup) <= memory:
            return [f"{' and '.join(together.values())} ({needed(setup) / GIB:.1f} GiB)"]


def _changes(setup: Setup) -> Sequence[tuple[str, str, Setup]]:
    """Return what could be changed, cheapest first: key, value, and the setup that it makes."""
    found = []
    largest = 2 ** max(setup.tokens - 1, 1).bit_length() // 2
    for tokens in (largest, largest // 2, largest // 4):
        if tokens >= SMALLEST_STEP:
            found.append(("train.max_micro_step_tokens", str(tokens), setup._replace(tokens=tokens)))
    for layers in range(setup.recomputed + 1, setup.shape.layers + 1):
        value = "true" if layers == setup.shape.layers else str(layers)
        found.append(("train.gradient_checkpointing", value, setup._replace(recomputed=layers)))
    for stage in range(setup.zero_stage + 1, 4):
        if setup.ranks > 1 and not (setup.is_quantized and stage == 3):
            found.append(("train.zero_stage", str(stage), setup._replace(zero_stage=stage)))
    if setup.start:
        setup = setup._replace(start=0.0)
        found.append(("student.last_layer", f"pretrained, with {_NOT_FIRST}", setup))
        if setup.method == "full":
            value = f"lora, with student.last_layer: pretrained and {_NOT_FIRST}"
            found.append(("train.method", value, setup._replace(method="lora")))
    elif setup.method == "full":
        found.append(("train.method", "lora", setup._replace(method="lora")))
    elif setup.is_gpu and not setup.is_quantized and setup.zero_stage < 3:
        found.append(("train.quantize", "nf4", setup._replace(is_quantized=True)))
    return found
