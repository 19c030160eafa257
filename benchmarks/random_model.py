"""An encoder of any shape with random weights, and texts of random words for it."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from anna.known_shapes import KNOWN
from anna.modeling.encoder import Encoder
from anna.modeling.encoder_config import EncoderConfig, TaskPrompt
from anna.modeling.student import append_eos
from anna.prompts import Example
from anna.shapes import Shape
from anna.training.batches import Batch, Group, Texts

TASK = "Benchmark"

REPO = Path(__file__).parents[1]


class Size(NamedTuple):
    """A model's shape, whose params it is trained with, and how much work it is given."""

    shape: Shape
    kind: str
    """As transformers calls the architecture."""
    params: Path
    task: str
    """Of the params' training tasks, for its prompt."""
    window: int | None
    """Of attention; None: all that came before."""
    queries: int
    """Of a training batch."""
    documents: int
    """Of a query: its positive and its negatives."""
    query_tokens: tuple[int, int]
    """Fewest and most."""
    doc_tokens: tuple[int, int]
    example_tokens: int
    """Of an example's query, and of its response."""
    encoded: tuple[int, int]
    """Documents encoded bare, and queries encoded with examples."""
    tokens_per_batch: int
    """Computed at once in encoding."""

    def cut(self, layers: int | None) -> "Size":
        """Return the same with the first `layers` layers; None: all."""
        return self._replace(shape=self.shape.cut(layers))


_MISTRAL = REPO / "presets" / "mistral-7b.yaml"
_QWEN3 = REPO / "presets" / "qwen3-0.6b.yaml"
_DEFAULT = REPO / "params.yaml"

SIZES = {
    "mistral-7b": Size(
        shape=KNOWN["mistral-7b"],
        kind="mistral",
        params=_MISTRAL,
        task="NQ",
        window=4096,
        queries=16,  # of 8 GPUs, one's share of a batch
        documents=8,
        query_tokens=(8, 64),
        doc_tokens=(32, 512),
        example_tokens=128,
        encoded=(2048, 512),
        tokens_per_batch=65536,
    ),
    "qwen3-0.6b": Size(
        shape=KNOWN["qwen3-0.6b"],
        kind="qwen3",
        params=_QWEN3,
        task="HotpotQA",
        window=None,
        queries=64,
        documents=4,
        query_tokens=(8, 64),
        doc_tokens=(32, 255),
        example_tokens=128,
        encoded=(4096, 1024),
        tokens_per_batch=65536,
    ),
    "smollm2-135m": Size(
        shape=KNOWN["smollm2-135m"],
        kind="llama",
        params=_DEFAULT,
        task="BoolQ",
        window=None,
        queries=16,
        documents=2,
        query_tokens=(8, 32),
        doc_tokens=(16, 47),
        example_tokens=32,
        encoded=(4096, 1024),
        tokens_per_batch=65536,
    ),
    "tiny": Size(
        shape=Shape(3, 64, 128, 4, 2, 16, 300, is_tied=False),
        kind="mistral",
        params=_MISTRAL,
        task="NQ",
        window=64,
        queries=4,
        documents=2,
        query_tokens=(3, 9),
        doc_tokens=(4, 30),
        example_tokens=6,
        encoded=(12, 6),
        tokens_per_batch=200,
    ),
}


class Words:
    """Texts of random words, one token each, of lengths that are spread evenly in their logarithm."""

    def __init__(self, vocabulary: int) -> None:
        """Begin the same for every side."""
        self._random, self._vocabulary = np.random.default_rng(0), vocabulary

    def texts(self, count: int, lengths: tuple[int, int]) -> list[str]:
        """Return `count` texts; their lengths do not count EOS."""
        low, high = np.log(lengths[0]), np.log(lengths[1] + 1)
        chosen = np.exp(self._random.uniform(low, high, count)).astype(int)
        return [" ".join(f"w{n}" for n in self._random.integers(3, self._vocabulary, size)) for size in chosen]


def new_causal(size: Size) -> PreTrainedModel:
    """Return a causal model of random weights, in bfloat16 on the GPU or float32 on the CPU."""
    device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
    shape = size.shape
    config = AutoConfig.for_model(
        size.kind,
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.ffn,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        head_dim=shape.head_dim,
        sliding_window=size.window,
        max_position_embeddings=32768,
        tie_word_embeddings=shape.is_tied,
        bos_token_id=1,
        eos_token_id=2,
        use_cache=False,
        attn_implementation="sdpa",
    )
    torch.manual_seed(0)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype)


def new_tokenizer(size: Size) -> PreTrainedTokenizerFast:
    """Return a tokenizer of whole words, that of `Words` among them."""
    words = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"w{n}": n for n in range(3, size.shape.vocabulary)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>", pad_token="</s>")


def new_encoder(size: Size, kind: type[Encoder]) -> Encoder:
    """Return an encoder of random weights, in bfloat16 on the GPU or float32 on the CPU."""
    backbone, tokenizer = new_causal(size).base_model, new_tokenizer(size)
    append_eos(tokenizer)
    shown = Words(size.shape.vocabulary).texts(10, (size.example_tokens, size.example_tokens))
    examples = tuple(Example(query, response) for query, response in zip(shown[:5], shown[5:], strict=True))
    prompt = TaskPrompt(instruction="given a question retrieve passages", symmetric=False, examples=examples)
    told = EncoderConfig(
        base="random", layers=None, max_tokens=4096, example_tokens=size.example_tokens, tasks={TASK: prompt}
    )
    return kind(backbone, tokenizer, told, backbone.dtype)


def make_batch(encoder: Encoder, size: Size, num_examples: int) -> tuple[Batch, Texts]:
    """Return a batch of random texts, and the examples that it shows: the encoder's own."""
    words = Words(size.shape.vocabulary)
    queries = {f"q{n}": text for n, text in enumerate(words.texts(size.queries, size.query_tokens))}
    docs = {f"d{n}": text for n, text in enumerate(words.texts(size.queries * size.documents, size.doc_tokens))}
    shown = encoder.config.task(TASK).examples[:num_examples]
    share = (1 / size.documents,) * size.documents
    groups = [
        Group(f"q{n}", TASK, tuple(f"d{n * size.documents + place}" for place in range(size.documents)), share)
        for n in range(size.queries)
    ]
    examples = [Group(f"example-q{n}", TASK, (f"example-d{n}",), (1.0,)) for n in range(len(shown))]
    queries |= {f"example-q{n}": example.query for n, example in enumerate(shown)}
    docs |= {f"example-d{n}": example.response for n, example in enumerate(shown)}
    return Batch(TASK, tuple(groups), tuple(examples)), Texts(queries, docs, {})
