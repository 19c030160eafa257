"""`encoder.json`: instructions, in-context examples and limits, written by training and read by all after it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, ValidationError, field_validator
from transformers import PreTrainedTokenizerFast

from anna import io
from anna.errors import InputError
from anna.modeling.hardware import Quantize
from anna.params import Params, Strict
from anna.prompts import Example, query_prefix

CONFIG_FILE = "encoder.json"
CARD_FILE = "README.md"
"""The model card, where the hub looks for it: words, which decide no vector."""
ADAPTER_FOLDER = "adapter"
"""Where a LoRA adapter lies in an encoder's folder; without one, the folder holds whole weights."""

WITH_EXAMPLES = "+examples"
"""Ending of the name of a task's prompt with in-context examples; the bare name is the zero-shot prompt."""

OF_DOCUMENTS = "-document"
"""Ending of the name of what stands before a task's documents, as mteb looks for it."""

ROLES = ("query", "document", "passage", "corpus")
"""Names of prompts by which `encode_query` and `encode_document` of sentence-transformers choose one."""

Pooling = Literal["last_token", "mean"]
"""The hidden state at EOS, or the mean over all tokens, prompt included."""

Attention = Literal["causal", "bidirectional"]
"""Whether a token sees what comes before it, or its whole text."""


class TaskInstruction(Strict):
    """What params say of a task's prompt."""

    instruction: str = Field(min_length=1)
    """One sentence that says what the task is."""
    symmetric: bool
    """Whether both sides get the prompt (STS, clustering, pairs, classes), or queries only (retrieval)."""


class PromptParams(Params):
    """Instructions of all tasks; copied into encoder.json by training, and read only from there afterwards."""

    section: ClassVar[str] = "prompts"

    tasks: dict[str, TaskInstruction]
    """By name of training or evaluation task."""
    example_tokens: int = Field(gt=0)
    """Each in-context example's query and response are cut to this many tokens (BGE-EN-ICL: 256)."""
    max_tokens: int = Field(gt=0)
    """Longest input that the exported model takes, prompt included."""

    @field_validator("tasks")
    @classmethod
    def _are_not_taken(cls, tasks: dict[str, TaskInstruction]) -> dict[str, TaskInstruction]:
        taken = next((name for name in tasks if name in ROLES or name.endswith((WITH_EXAMPLES, OF_DOCUMENTS))), None)
        if taken is not None:
            raise ValueError(
                f"a task is called {taken!r}, but the exported model has prompts of its own that end in "
                f"{WITH_EXAMPLES!r} and {OF_DOCUMENTS!r}, and sentence-transformers gives those called "
                f"{', '.join(ROLES)} to the texts of every task; call it otherwise, where its sources name it, too"
            )
        return tasks


class TaskPrompt(Strict):
    """A task's prompt as the trained encoder carries it."""

    instruction: str
    symmetric: bool
    examples: tuple[Example, ...] = ()


class EncoderConfig(Strict):
    """`encoder.json`: all that turns a text into the tokens that the encoder was trained on."""

    base: str
    """Checkpoint and revision that training started from."""
    layers: int | None
    pooling: Pooling = "last_token"
    attention: Attention = "causal"
    quantize: Quantize | None = None
    """What the frozen matrices were rounded to while the adapter was trained; the export adds it to the same."""
    max_tokens: int
    """Longest input, prompt included."""
    example_tokens: int
    """Tokens of an in-context example's query, and of its response."""
    tasks: dict[str, TaskPrompt]

    def prefix(self, task: str, num_examples: int = 0) -> str:
        """Return the prompt of `task` before the query text, with its first `num_examples` in-context examples.

        A task with fewer shows all that it has; `ingest` has said which tasks those are.

        Raises:
            InputError: If the encoder has no prompt for the task.
        """
        prompt = self.task(task)
        return query_prefix(prompt.instruction, prompt.examples[:num_examples])

    def doc_prefix(self, task: str, prefix: str) -> str:
        """Return the prompt before a document of `task`: that of its queries where the task is symmetric, else none."""
        return prefix if self.task(task).symmetric else ""

    def task(self, name: str) -> TaskPrompt:
        """Return the prompt of task `name`; an unknown one is an InputError."""
        if name not in self.tasks:
            raise InputError(
                f"{CONFIG_FILE} has no prompt for task {name!r} (it has {sorted(self.tasks)}); add it to prompts.tasks "
                "in params.yaml and run: dvc repro"
            )
        return self.tasks[name]

    def save(self, folder: Path) -> None:
        """Write `encoder.json` into `folder`."""
        io.write_json(folder / CONFIG_FILE, self.model_dump(mode="json"))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read `encoder.json` of `folder`; an InputError says what is wrong with it."""
        try:
            return cls.model_validate(io.read_json(folder / CONFIG_FILE))
        except ValidationError as error:
            raise InputError(f"{folder / CONFIG_FILE} is not of this version ({error}); run: dvc repro train") from None


def task_prompts(
    prompts: PromptParams, examples: Mapping[str, Sequence[tuple[str, str]]], tokenizer: PreTrainedTokenizerFast
) -> dict[str, TaskPrompt]:
    """Return each task's prompt for encoder.json, its in-context examples cut to `example_tokens` tokens per text."""

    def cut(text: str) -> str:
        return cut_text(text, tokenizer, prompts.example_tokens)

    return {
        name: TaskPrompt(
            instruction=task.instruction,
            symmetric=task.symmetric,
            examples=tuple(Example(cut(query), cut(response)) for query, response in examples.get(name, ())),
        )
        for name, task in prompts.tasks.items()
    }


def cut_text(text: str, tokenizer: PreTrainedTokenizerFast, max_tokens: int) -> str:
    """Return `text` cut after its first `max_tokens` tokens, at a character that the tokenizer names."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    offsets = encoded["offset_mapping"]
    return text if len(offsets) <= max_tokens else text[: offsets[max_tokens - 1][1]].rstrip()
