"""An encoder of any shape with random weights, and texts of random words for it."""

from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

from anna.modeling.encoder import Encoder
from anna.modeling.encoder_config import EncoderConfig, TaskPrompt
from anna.modeling.student import append_eos
from anna.prompts import Example
from anna.training.batches import Batch, Group, Texts

TASK = "Benchmark"


class Size(NamedTuple):
    """A model's shape, and how much work it is given."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    key_heads: int
    vocabulary: int
    window: int
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


SIZES = {
    "mistral-7b": Size(
        32, 4096, 14336, 32, 8, 32000, 4096, 16, 8, (8, 64), (32, 512), 128, encoded=(2048, 512), tokens_per_batch=65536
    ),
    "tiny": Size(2, 64, 128, 4, 2, 300, 64, 4, 2, (3, 9), (4, 30), 6, encoded=(12, 6), tokens_per_batch=200),
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


def new_causal(size: Size) -> MistralForCausalLM:
    """Return a causal model of random weights, in bfloat16 on the GPU or float32 on the CPU."""
    device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
    config = MistralConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.ffn,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.key_heads,
        sliding_window=size.window,
        max_position_embeddings=32768,
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
    words = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"w{n}": n for n in range(3, size.vocabulary)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>", pad_token="</s>")


def new_encoder(size: Size, kind: type[Encoder]) -> Encoder:
    """Return an encoder of random weights, in bfloat16 on the GPU or float32 on the CPU."""
    backbone, tokenizer = new_causal(size).base_model, new_tokenizer(size)
    append_eos(tokenizer)
    shown = Words(size.vocabulary).texts(10, (size.example_tokens, size.example_tokens))
    examples = tuple(Example(query, response) for query, response in zip(shown[:5], shown[5:], strict=True))
    prompt = TaskPrompt(instruction="given a question retrieve passages", symmetric=False, examples=examples)
    told = EncoderConfig(
        base="random", layers=None, max_tokens=4096, example_tokens=size.example_tokens, tasks={TASK: prompt}
    )
    return kind(backbone, tokenizer, told, backbone.dtype)


def make_batch(encoder: Encoder, size: Size, num_examples: int) -> tuple[Batch, Texts]:
    """Return a batch of random texts, and the examples that it shows: the encoder's own."""
    words = Words(size.vocabulary)
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
    return Batch(TASK, tuple(groups), tuple(examples)), Texts(queries, docs, {}, frozenset())
