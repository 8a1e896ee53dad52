"""What several tests share: a tiny PLM on disk and a small synthetic data set."""

import os
import re
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two processes share the cores; notebooks inherit it

import hypothesis
import pytest
import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    BertConfig,
    BertForMaskedLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from altlib.data import sources
from altlib.data.frame import Dataset

hypothesis.settings.register_profile("any speed", deadline=None)  # also on a busy machine
hypothesis.settings.load_profile("any speed")

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps artefacts of a test out of the project."""
    monkeypatch.setenv("ALTLIB_HOME", str(tmp_path))
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def synthetic() -> Dataset:
    return sources.load("synthetic", {"rows": 600, "seed": 1})


@pytest.fixture(scope="session")
def sentences(synthetic: Dataset) -> list[str]:
    """Words that the tiny tokenizers are trained on."""
    frame = synthetic.frame[synthetic.schema.field_names].astype(str)
    return [
        " ".join(
            f"{field.words} is {value}."
            for field, value in zip(synthetic.schema.fields, row, strict=True)
        )
        for row in frame.itertuples(index=False)
    ]


@pytest.fixture(scope="session")
def wordpiece(sentences: list[str]) -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer as BERT's, which cuts words of more than eight letters.

    Its vocabulary is written, not trained: training breaks ties as it likes.
    """
    text = " ".join(sentences).lower()
    letters = sorted(set(text) - {" "})
    words = sorted({word for word in re.findall("[a-z]+", text) if 1 < len(word) <= 8})
    tokens = [*SPECIALS, *letters, *(f"##{letter}" for letter in letters), *words]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    raw = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    raw.normalizer = normalizers.BertNormalizer()
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.decoder = decoders.WordPiece()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(name, raw.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


@pytest.fixture(scope="session")
def byte_level(sentences: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer as RoBERTa's."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.train_from_iterator(
        sentences,
        trainers.BpeTrainer(
            vocab_size=500,
            special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    raw.post_processor = processors.RobertaProcessing(
        ("</s>", raw.token_to_id("</s>")), ("<s>", raw.token_to_id("<s>")), add_prefix_space=False
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",
        unk_token="<unk>",
        cls_token="<s>",
        sep_token="</s>",
        mask_token="<mask>",
    )


@pytest.fixture(scope="session")
def metaspace(sentences: list[str]) -> PreTrainedTokenizerFast:
    """A Unigram tokenizer as T5's, which takes the space before a word into its first token."""
    letters = sorted(set("".join(sentences)) | {"▁"} - {" "})
    words = sorted({f"▁{word}" for word in re.findall("[a-z]+", " ".join(sentences))})
    specials = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    scored = [(letter, -9.0) for letter in letters] + [(word, -5.0) for word in words]
    scored += [("▁yes", -5.0), ("▁no", -5.0)] if "▁no" not in words else [("▁yes", -5.0)]
    raw = Tokenizer(models.Unigram([*specials, *scored], unk_id=2))
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    raw.decoder = decoders.Metaspace()
    raw.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture(scope="session")
def tiny_t5(metaspace: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a T5 with one layer of 16 and random weights."""
    folder = tmp_path_factory.mktemp("tiny-t5")
    torch.manual_seed(0)
    T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(metaspace),
            d_model=16,
            d_kv=8,
            d_ff=32,
            num_layers=1,
            num_heads=2,
            decoder_start_token_id=0,
        )
    ).save_pretrained(folder)
    metaspace.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_plm(wordpiece: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a BERT with two layers of 32 and random weights."""
    folder = tmp_path_factory.mktemp("tiny-plm")
    torch.manual_seed(0)
    BertForMaskedLM(
        BertConfig(
            vocab_size=len(wordpiece),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
        )
    ).save_pretrained(folder)
    wordpiece.save_pretrained(folder)
    return str(folder)
