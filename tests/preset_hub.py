"""What a preset fetches from the hub, made here at tiny size: models of the real architectures, data of the real form.

The models have random weights and the real configurations' keys, the data sets the preset's ids, configurations, splits
and columns. `ANNA_HUB_DIR` names the folder.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, DatasetDict
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
    XLMRobertaModel,
)

from anna.evaluation.data import english_task
from tests.evaluation.mteb_data import write_all

THINGS = "otter badger heron lynx beaver falcon salmon hedgehog squirrel tortoise marten stork".split()
PLACES = "river forest mountain marsh meadow island harbour desert".split()
ROWS = 12
"""Per training set."""


def write_hub(root: Path, params: dict[str, Any], tasks: Iterable[str]) -> None:
    """Write all models and data sets that `params` name, and those of mteb's `tasks`, to `root`.

    A repository that mteb reads, too, is a copy of its files; all others are saved to disk by the library `datasets`.
    """
    write_mistral(root / "models" / params["student"]["model"]["repo"])
    write_embedder(root / "models" / params["retrieve_dense"]["model"]["repo"])
    write_reranker(root / "models" / params["rerank"]["model"]["repo"])
    evaluated = [english_task(name) for name in tasks]
    evaluated += [english_task(source["task"]) for source in params["ingest"]["examples"]]
    write_all(root, evaluated)
    splits: defaultdict[Path, dict[str, Dataset]] = defaultdict(dict)
    for source in params["ingest"]["train"]:
        origin = source["origin"]
        folder = root / "datasets" / origin["repo"]
        if not (folder / "README.md").is_file():
            rows = training_rows(source["task"], source["kind"], source["columns"])
            splits[folder / origin.get("name", "")][origin.get("split", "train")] = Dataset.from_list(rows)
    for folder, by_split in splits.items():
        DatasetDict(by_split).save_to_disk(str(folder))


def training_rows(task: str, kind: str, columns: dict[str, str]) -> list[dict[str, Any]]:
    """Return rows of a training source, by the source's own column names."""
    found = [
        (
            thing,
            PLACES[number % len(PLACES)],
            f"note {number} of {task}: the {thing} of the {PLACES[number % 8]} is here",
        )
        for number, thing in enumerate(THINGS[:ROWS])
    ]
    if kind == "classification":
        ours = [{"text": text, "label": number % 2} for number, (_, _, text) in enumerate(found)]
    elif kind == "sts":
        ours = [
            {"text1": text, "text2": f"where a {thing} lives by the {place}", "score": 5.0 - number % 5}
            for number, (thing, place, text) in enumerate(found)
        ]
    else:
        others = "unjudged" if "unjudged" in columns else "negatives"
        ours = [
            {
                "query": f"where is the {thing} of {task}",
                "docs": [text],
                others: [f"in {task} the {other} was never at any {place}" for other in THINGS[:2]],
            }
            for thing, place, text in found
        ]
    return [{columns[name]: value for name, value in row.items()} for row in ours]


def corpus() -> list[str]:
    """Return text to train tokenizers on."""
    return [text for task in ("Some", "Other") for text in (f"Instruct: Query: Response: {task}", *THINGS, *PLACES)] * 3


def write_mistral(folder: Path) -> None:
    """Write a two-layer model with every key of Mistral-7B-v0.1's config.json, in bfloat16, and its kind of tokenizer.

    Grouped queries (4 to 1) and a sliding window as there; the tokenizer is byte-fallback BPE that adds BOS alone.
    """
    special = ["<unk>", "<s>", "</s>"]
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    alphabet = sorted({character for text in corpus() for character in text} | set("abcdefghijklmnopqrstuvwxyz"))
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[*special, *(f"<0x{byte:02X}>" for byte in range(256))],
        initial_alphabet=alphabet,
        show_progress=False,
        max_token_length=8,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    size = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 8}
    config = {
        "architectures": ["MistralForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": 32768,
        "model_type": "mistral",
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "sliding_window": 4096,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.34.0.dev0",
        "use_cache": True,
        "vocab_size": tokenizer.get_vocab_size(),
        **size,
    }
    torch.manual_seed(0)
    model = MistralForCausalLM(MistralConfig.from_dict({**config, "initializer_range": 0.2}))
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"add_bos_token": True, "add_eos_token": False, "bos_token": "<s>", "eos_token": "</s>"}
    settings |= {"unk_token": "<unk>", "pad_token": None, "model_max_length": 1000000000000000019884624838656}
    settings |= {"tokenizer_class": "LlamaTokenizer", "legacy": True, "clean_up_tokenization_spaces": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def roberta(folder: Path) -> XLMRobertaConfig:
    """Write a Unigram tokenizer as XLM-RoBERTa's to `folder` and return the configuration of a tiny model."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=200,
        special_tokens=special,
        unk_token="<unk>",
        initial_alphabet=list("abcdefghijklmnopqrstuvwxyz0123456789"),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        sep_token="</s>",
        unk_token="<unk>",
        model_max_length=8192,
    ).save_pretrained(folder)
    return XLMRobertaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=8194,
        type_vocab_size=1,
        initializer_range=0.2,
        pad_token_id=1,
    )


def write_embedder(folder: Path) -> None:
    """Write a sentence-transformers model of XLM-RoBERTa that reads its first token."""
    base = folder.parent / f"{folder.name}-base"
    config = roberta(base)
    torch.manual_seed(1)
    XLMRobertaModel(config).save_pretrained(base)
    modules = [Transformer(str(base)), Pooling(config.hidden_size, pooling_mode="cls")]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))


def write_reranker(folder: Path) -> None:
    """Write an XLM-RoBERTa cross-encoder of one score."""
    config = roberta(folder)
    config.num_labels = 1
    torch.manual_seed(2)
    XLMRobertaForSequenceClassification(config).save_pretrained(folder)
