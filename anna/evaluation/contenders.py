"""What is compared: the trained student, the same model untrained, the dense teacher and BM25.

Building one loads nothing: a contender whose results are all known from an earlier run is never loaded.
"""

import hashlib
import inspect
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from mteb.types import PromptType
from transformers import AutoTokenizer

from anna import prompts
from anna.engine import Engine, Local, ModelSpec
from anna.errors import InputError
from anna.evaluation import encoding, mteb_model, tasks
from anna.evaluation.encoding import EncodeSettings
from anna.evaluation.mteb_model import CachedEmbedder, Embed, PromptedModel, Search, SearchModel
from anna.fingerprints import code_hash
from anna.modeling import attention, batching, checkpoint, encoder, encoder_config, flex, packing, pooling, split
from anna.modeling import student as initial
from anna.modeling.encoder_config import EncoderConfig
from anna.modeling.student import StudentParams
from anna.scores import WITH_EXAMPLES, ZERO_SHOT

SCORING_CODE = (
    prompts,
    checkpoint,
    initial,
    batching,
    encoder,
    encoder_config,
    packing,
    attention,
    flex,
    split,
    pooling,
    encoding,
    mteb_model,
    tasks,
    sys.modules[__name__],
)
"""Modules that decide a score, this one by which side gets which prompt; another line of code there makes every stored
result miss."""


@dataclass(frozen=True)
class Contender:
    """A model to score, in each of its modes."""

    name: str
    models: Mapping[str, PromptedModel | SearchModel]
    """By mode."""
    identity: Callable[[str, str], Mapping[str, Any]]
    """(task, mode) -> everything that decides the score beside the task's data; what results are stored under."""
    types: frozenset[str] | None
    """mteb types that it can be scored on; None: all."""
    embedder: CachedEmbedder | None
    """What holds its vectors, to be dropped after each task."""


def student(
    folder: Path,
    settings: EncodeSettings,
    where: Engine | None = None,
    *,
    with_examples: bool = True,
    trained_on: Collection[str] | None = None,
) -> Contender:
    """Return the exported model at `folder`.

    Args:
        folder: Written by `export`.
        settings: How its texts are encoded.
        where: What computes; None: this process.
        with_examples: Whether there is a second mode, whose prompts show all in-context examples that it carries.
        trained_on: Names of its training tasks, for its results' metadata; None: not known.

    Raises:
        InputError: If there is none.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist; make it with: dvc repro export")
    modes = (ZERO_SHOT, WITH_EXAMPLES) if with_examples else (ZERO_SHOT,)
    return _prompted(encoding.student(folder, settings), folder, modes, settings, where, trained_on=trained_on)


def untrained(params: StudentParams, folder: Path, settings: EncodeSettings, where: Engine | None = None) -> Contender:
    """Return the student before training, with the prompts of the exported model at `folder`, without examples."""
    return _prompted(encoding.untrained(params, folder, settings), folder, (ZERO_SHOT,), settings, where)


def _prompted(
    spec: ModelSpec,
    folder: Path,
    modes: Sequence[str],
    settings: EncodeSettings,
    where: Engine | None,
    *,
    trained_on: Collection[str] | None = None,
) -> Contender:
    """Return an encoder of ours as a contender, with the prompts of the export at `folder`, in each of the modes."""
    config = EncoderConfig.load(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    embedder = CachedEmbedder(partial(encoding.embed, where or Local(), spec))

    @cache
    def prefix_of(task: str, mode: str) -> str:
        return _prefix(config, tokenizer, task, mode, settings.max_tokens)

    def prefix(mode: str, task: str, side: PromptType | None) -> str:
        own = prefix_of(task, mode)
        return config.doc_prefix(task, own) if side == PromptType.document else own

    def identify(task: str, mode: str) -> Mapping[str, Any]:
        prompt = {"prefix": prefix_of(task, mode), "symmetric": config.task(task).symmetric}
        reads = {"limit": config.max_tokens, "pooling": config.pooling, "attention": config.attention}
        return {**spec.decisive, **prompt, **reads, "code": _scoring_code()}

    models = {mode: PromptedModel(spec.kind, mode, embedder, partial(prefix, mode), trained_on) for mode in modes}
    return Contender(spec.kind, models, identify, None, embedder)


def _prefix(config: EncoderConfig, tokenizer: Any, task: str, mode: str, max_tokens: int) -> str:
    """Return the prompt of a task's queries in a mode, which is the one that the export names.

    Raises:
        InputError: If the model has no prompt for the task, or no example to show, or the prompt leaves less than
            `max_tokens` for a text.
    """
    examples = config.task(task).examples if mode == WITH_EXAMPLES else ()
    if mode == WITH_EXAMPLES and not examples:
        raise InputError(
            f"evaluate.with_examples is true, but {task!r} has no in-context examples; declare a source of them in "
            "ingest.examples (a held-out task sets its own aside) and run: dvc repro, or set it to false"
        )
    prefix = config.prefix(task, len(examples))
    room = config.max_tokens - (len(tokenizer(prefix)["input_ids"]) - 1)  # EOS counts as the text's
    if max_tokens > room:
        raise InputError(
            f"evaluate.max_tokens is {max_tokens}, but the prompt of {task!r} with {len(examples)} examples leaves "
            f"{room} of prompts.max_tokens ({config.max_tokens}); lower it, or, which trains again, raise that or "
            "shorten the examples by prompts.example_tokens"
        )
    return prefix


def dense(decisive: Mapping[str, Any], prompts: tuple[str, str], embed: Embed, *code: Any) -> Contender:
    """Return the dense teacher, with its own prompts on the two sides of searches and none elsewhere.

    Args:
        decisive: What decides its vectors, besides prompts and code.
        prompts: What it wants before a search query and before a document; may be "".
        embed: Embeds texts after a prompt.
        code: Modules behind `embed`; their code is part of what results are stored under.
    """
    embedder = CachedEmbedder(embed)
    by_side = {PromptType.query: prompts[0], PromptType.document: prompts[1], None: ""}

    def identify(task: str, mode: str) -> Mapping[str, Any]:
        return {**decisive, "prompts": prompts, "code": _scoring_code(*code)}

    model = PromptedModel("teacher", ZERO_SHOT, embedder, lambda task, side: by_side[side])
    return Contender("teacher", {ZERO_SHOT: model}, identify, None, embedder)


def bm25(search: Search, settings: Mapping[str, Any], *code: Any) -> Contender:
    """Return BM25, for retrieval tasks.

    Args:
        search: Finds documents for queries.
        settings: What decides its scores.
        code: Modules behind `search`, as for `dense`.
    """

    def identify(task: str, mode: str) -> Mapping[str, Any]:
        return {**settings, "code": _scoring_code(*code)}

    models = {ZERO_SHOT: SearchModel("bm25", ZERO_SHOT, search)}
    return Contender("bm25", models, identify, frozenset({"Retrieval"}), None)


@cache
def _scoring_code(*more: Any) -> str:
    """Return a hash of all code that decides a score, and of that of the modules `more`."""
    files = [inspect.getfile(thing) for thing in (*SCORING_CODE, *more)]
    return hashlib.sha256("".join(code_hash(Path(file)) for file in files).encode()).hexdigest()
