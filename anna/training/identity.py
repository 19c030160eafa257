"""What makes two training runs the same run: everything that changes the weights they end with, by name."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anna.fingerprints import code_hash
from anna.modeling.encoder import Encoder
from anna.modeling.student import StudentParams
from anna.training.batches import Group, Texts
from anna.training.recipe import TrainParams
from anna.training.validation import HeldOut

_CODE = ("folding.py", "footprint.py", "prompts.py", "seeding.py", "modeling/*.py", "training/*.py")
"""Files of the package: a test holds that whatever else training reaches leaves the weights as they are."""

_LIBRARIES = ("numpy", "torch", "transformers", "peft", "deepspeed", "tokenizers")

_OF_THE_FILE = {"_name_or_path", "transformers_version"}
"""Of a model's config: where it lies, and what wrote it."""

_WITHOUT_EFFECT = {"processes", "checkpoint_steps"}
"""Parameters of `train` that leave the weights as they are; the number of processes is among `conditions`."""


def identify(
    *,
    recipe: TrainParams,
    student: StudentParams,
    encoder: Encoder,
    groups: Sequence[Group],
    held_out: Sequence[HeldOut],
    texts: Texts,
) -> dict[str, Any]:
    """Return parameters, and hashes of data, first weights, code and libraries. A difference can only begin a new run.

    Args:
        recipe: How to train.
        student: What is trained.
        encoder: The same, as loaded, before its weights are sharded.
        groups: What it is trained on.
        held_out: What it is validated on.
        texts: What both name.
    """
    judged = ((name, sorted(docs[name])) for docs in (texts.positives, texts.spared) for name in sorted(docs))
    vectors = (part for name in sorted(texts.vectors) for part in (name, texts.vectors[name].tobytes()))
    return {
        **flatten(recipe.model_dump(mode="json", exclude=_WITHOUT_EFFECT), "train"),
        **flatten(student.model_dump(mode="json"), "student"),
        **flatten(encoder.config.model_dump(mode="json"), "prompts"),
        "data.groups": digest(groups),
        "data.validation": digest(held_out),
        "data.texts": digest(
            chain(*(sorted(part.items()) for part in (texts.queries, texts.docs, texts.labels)), judged)
        ),
        "data.vectors": digest(vectors),
        "weights": digest_weights(encoder.backbone.state_dict()),
        "model config": digest([_config(encoder)]),
        "tokenizer": digest([_tokenizer(encoder)]),
        "dtype": str(encoder.dtype),
        "code": digest(code_hash(path) for path in code()),
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def _config(encoder: Encoder) -> str:
    """Return what the model's config says of the model."""
    told: dict[str, Any] = encoder.backbone.config.to_dict()
    return json.dumps({key: value for key, value in told.items() if key not in _OF_THE_FILE}, sort_keys=True)


def _tokenizer(encoder: Encoder) -> str:
    """Return all that cuts a text into tokens; truncation and padding are as the last call left them."""
    told = json.loads(encoder.tokenizer.backend_tokenizer.to_str())
    special = {name: str(token) for name, token in encoder.tokenizer.special_tokens_map.items()}
    return json.dumps({**told, "truncation": None, "padding": None, "special": special}, sort_keys=True)


def code() -> list[Path]:
    """Return the files whose code decides what is computed."""
    return [path for name in _CODE for path in sorted(Path(__file__).parents[1].glob(name))]


def conditions(world_size: int) -> dict[str, Any]:
    """Return what has to stay as it is for the same sums in the same order: ranks, device, and on a CPU its threads."""
    if torch.cuda.is_available():
        return {"train.processes": world_size, "device": torch.cuda.get_device_name()}
    device = f"CPU, {torch.backends.cpu.get_cpu_capability()}"
    return {"train.processes": world_size, "device": device, "threads per process": torch.get_num_threads()}


def digest(items: Iterable[object]) -> str:
    """Return a hash of the items, bytes or whatever has a representation, in their order."""
    hasher = hashlib.blake2b(digest_size=16)
    for item in items:
        hasher.update(item if isinstance(item, bytes) else repr(item).encode())
        hasher.update(b"\x1f")
    return hasher.hexdigest()


def digest_weights(weights: Mapping[str, Tensor]) -> str:
    """Return a hash of names, types, shapes and bytes."""
    with ThreadPoolExecutor() as pool:  # hashing lets go of the interpreter
        return digest(pool.map(_digest_tensor, *zip(*weights.items(), strict=True)))


def _digest_tensor(name: str, tensor: Tensor) -> bytes:
    hasher = hashlib.blake2b(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), digest_size=16)
    hasher.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return hasher.digest()


def flatten(value: Any, name: str) -> dict[str, Any]:
    """Return nested mappings as dotted names, so that a difference can be named."""
    if not isinstance(value, Mapping):
        return {name: value}
    return {key: leaf for part, inner in value.items() for key, leaf in flatten(inner, f"{name}.{part}").items()}


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the names under which two runs have other values, in alphabetical order."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
