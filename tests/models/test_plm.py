"""A PLM in parts computes what transformers computes as a whole."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn

from altlib.models import plm

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}
FAMILIES = {
    "Bert": SMALL,
    "Roberta": SMALL | {"pad_token_id": 0},
    "MPNet": SMALL | {"pad_token_id": 0},
    "DistilBert": {
        "dim": 16,
        "n_layers": 3,
        "n_heads": 2,
        "hidden_dim": 32,
        "max_position_embeddings": 40,
    },
}
OTHERS = {
    "XLMRoberta": SMALL | {"pad_token_id": 0},
    "Camembert": SMALL | {"pad_token_id": 0},
    "Electra": SMALL | {"embedding_size": 8},
    "Albert": SMALL | {"embedding_size": 8},
    "ModernBert": SMALL
    | {"cls_token_id": 2, "bos_token_id": 2, "sep_token_id": 3, "eos_token_id": 3}
    | {"pad_token_id": 0, "mlp_dropout": 0.3, "embedding_dropout": 0.3},
    "DebertaV2": SMALL | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "Longformer": SMALL | {"pad_token_id": 0, "attention_window": 8},
    "RemBert": SMALL | {"input_embedding_size": 8, "output_embedding_size": 12},
}
TOKENS = torch.tensor([[2, 7, 9, 8, 3], [2, 6, 3, 0, 0]])  # [B, L]
ATTENTION = TOKENS != 0


def make_tokenizer(folder: Path, **special: str) -> None:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=40, special_tokens=names)
    tokenizer.train_from_iterator(["user is male", "movie is a toy story"], trainer)
    kinds = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", **kinds, **special
    ).save_pretrained(folder)


@pytest.fixture(params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return make_checkpoint(request.param, tmp_path)


def make_checkpoint(family: str, folder: Path) -> Path:
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(vocab_size=50, **(FAMILIES | OTHERS)[family])
    model = getattr(transformers, f"{family}ForMaskedLM")(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)  # biases and norms too, so that none goes unseen
    model.save_pretrained(folder)
    make_tokenizer(folder, mask_token="[MASK]")
    return folder


def drop_weights(folder: Path, *words: str) -> list[str]:
    file = folder / "model.safetensors"
    kept = load_file(file)
    gone = [key for key in kept if any(word in key for word in words)]
    save_file({k: v for k, v in kept.items() if k not in gone}, file, metadata={"format": "pt"})
    return gone


def states(part: plm.Plm, tokens: torch.Tensor = TOKENS) -> torch.Tensor:
    with torch.no_grad():
        return plm.encode(part.encoder, tokens, ATTENTION)


def test_states_and_logits_are_those_of_transformers(folder: Path) -> None:
    whole = transformers.AutoModelForMaskedLM.from_pretrained(folder)
    with torch.no_grad():
        reference = whole(TOKENS, attention_mask=ATTENTION.long(), output_hidden_states=True)
    part = plm.load(str(folder))
    assert part.head is not None
    found = states(part)
    torch.testing.assert_close(found[ATTENTION], reference.hidden_states[-1][ATTENTION])
    logits = part.head(found)
    torch.testing.assert_close(logits[ATTENTION], reference.logits[ATTENTION])
    assert (part.hidden_size, part.vocab_size, part.layers) == (16, 50, 3)
    assert not any("pooler" in name for name, _ in part.encoder.named_parameters())


@pytest.mark.parametrize("family", OTHERS)
def test_families_of_another_layout_give_the_same(family: str, tmp_path: Path) -> None:
    make_checkpoint(family, tmp_path)
    whole = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path)
    with torch.no_grad():
        reference = whole(TOKENS, attention_mask=ATTENTION.long(), output_hidden_states=True)
    part = plm.load(str(tmp_path), dropout=0.0)
    found = states(part)
    torch.testing.assert_close(found[ATTENTION], reference.hidden_states[-1][ATTENTION])
    assert part.head is not None
    torch.testing.assert_close(part.head(found)[ATTENTION], reference.logits[ATTENTION])
    part.encoder.train()  # without dropout that changes nothing
    first = plm.encode_first(part.encoder, TOKENS, ATTENTION)
    torch.testing.assert_close(first, found[:, 0])


def test_a_head_without_biases_is_none(tmp_path: Path) -> None:
    config = transformers.ModernBertConfig(
        vocab_size=50, decoder_bias=False, **OTHERS["ModernBert"]
    )
    transformers.ModernBertForMaskedLM(config).save_pretrained(tmp_path)
    make_tokenizer(tmp_path, mask_token="[MASK]")
    assert plm.load(str(tmp_path)).head is None


@pytest.mark.parametrize("family", ["FNet", "causal Bert", "Bart"])
def test_what_cannot_read_sentences_is_refused_at_once(family: str, tmp_path: Path) -> None:
    kind = family.removeprefix("causal ")
    own = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1} if kind == "Bart" else SMALL
    config = getattr(transformers, f"{kind}Config")(vocab_size=50, **own)
    config.is_decoder = family == "causal Bert"
    name = "BartForConditionalGeneration" if kind == "Bart" else f"{kind}ForMaskedLM"
    getattr(transformers, name)(config).save_pretrained(tmp_path)
    make_tokenizer(tmp_path, mask_token="[MASK]")
    fault = {
        "FNet": "depend on the padding",
        "causal Bert": "first token does not read those behind it",
        "Bart": "has an encoder and a decoder",
    }
    with pytest.raises(ValueError, match=fault[family]):
        plm.load(str(tmp_path))


def test_weights_that_are_all_zero_are_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "zero")
    weights = tmp_path / "zero" / "model.safetensors"
    zeros = {name: torch.zeros_like(value) for name, value in load_file(weights).items()}
    save_file(zeros, weights, {"format": "pt"})
    with pytest.raises(ValueError, match="first token does not read those behind it"):
        plm.load(str(tmp_path / "zero"))


@pytest.mark.parametrize("family", [*FAMILIES, "Electra", "Albert", "Longformer", "XLMRoberta"])
def test_sentences_are_as_long_as_the_positions_allow(family: str, tmp_path: Path) -> None:
    make_checkpoint(family, tmp_path)
    longest = plm.load(str(tmp_path)).longest
    assert longest in (38, 39, 40)  # RoBERTa and MPNet keep some for padding
    part = plm.load(str(tmp_path), length=longest)
    tokens = torch.full((1, longest + 1), 7)
    plm.encode(part.encoder, tokens[:, 1:], tokens[:, 1:] > 0)
    with pytest.raises((IndexError, RuntimeError)):
        plm.encode(part.encoder, tokens, tokens > 0)
    with pytest.raises(ValueError, match=rf"text\.max_length is 41, .* lower .* to {longest}\."):
        plm.load(str(tmp_path), length=41)


def test_the_head_stays_tied_inside_another_module(folder: Path) -> None:
    part = plm.load(str(folder))
    other = plm.load(str(folder))
    assert part.head is not None and other.head is not None
    bigger = nn.ModuleDict({"encoder": part.encoder, "head": part.head})
    copy = nn.ModuleDict({"encoder": other.encoder, "head": other.head})
    with torch.no_grad():
        for parameter in bigger.parameters():
            parameter.mul_(1.5)
    copy.load_state_dict(bigger.state_dict())
    for module in (bigger, copy):
        assert module["head"].decoder.weight is module["encoder"].get_input_embeddings().weight
    torch.testing.assert_close(copy["head"](states(other)), bigger["head"](states(part)))


def test_padding_gets_no_attention(folder: Path) -> None:
    part = plm.load(str(folder))
    other = TOKENS.masked_fill(~ATTENTION, 11)
    torch.testing.assert_close(states(part)[ATTENTION], states(part, other)[ATTENTION])


def test_the_state_of_cls_alone_is_that_of_all_states(folder: Path) -> None:
    part = plm.load(str(folder), dropout=0.0)
    weights = list(part.encoder.parameters())
    seen: list[int] = []  # tokens that the last linear layer of the encoder works on
    linear = [module for module in part.encoder.modules() if isinstance(module, nn.Linear)][-1]
    linear.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[1]))
    first = plm.encode_first(part.encoder, TOKENS, ATTENTION)
    whole = plm.encode(part.encoder, TOKENS, ATTENTION)
    assert seen == [1, TOKENS.shape[1]]
    torch.testing.assert_close(first, whole[:, 0])
    found, expected = (
        torch.autograd.grad(state.square().sum(), weights, allow_unused=True)
        for state in (first, whole[:, 0])
    )
    for f, e in zip(found, expected, strict=True):
        assert (f is None) == (e is None)
        if f is not None:
            torch.testing.assert_close(f, e)


def test_a_compiled_encoder_gives_the_same_state_of_cls(tmp_path: Path) -> None:
    part = plm.load(str(make_checkpoint("Bert", tmp_path)))
    expected = plm.encode_first(part.encoder, TOKENS, ATTENTION)
    part.encoder.compile(backend="eager")  # follows the graph, and needs no C++ compiler
    torch.testing.assert_close(plm.encode_first(part.encoder, TOKENS, ATTENTION), expected)


def test_compiled_layers_know_nothing_of_cls_alone(tmp_path: Path) -> None:
    make_checkpoint("Bert", tmp_path)
    part = plm.load(f"{tmp_path}:1", dropout=0.0)
    expected = states(part)
    (layer,) = part.encoder.encoder.layer
    layer.compile(backend="eager")  # the first call makes the graph
    first = plm.encode_first(part.encoder, TOKENS, ATTENTION)
    torch.testing.assert_close(first, expected[:, 0])
    torch.testing.assert_close(states(part), expected)


def test_depth_keeps_the_first_layers(folder: Path) -> None:
    whole, part = plm.load(str(folder)), plm.load(f"{folder}:2")
    with torch.no_grad():
        deep = whole.encoder(TOKENS, attention_mask=ATTENTION.long(), output_hidden_states=True)
    torch.testing.assert_close(states(part)[ATTENTION], deep.hidden_states[2][ATTENTION])
    assert (part.layers, part.encoder.config.num_hidden_layers) == (2, 2)
    assert part.head is not None
    assert sum(".2." in name for name, _ in part.encoder.named_parameters()) == 0


@pytest.mark.parametrize("depth", ["0", "4", "-1", "two"])
def test_a_depth_out_of_range_is_refused(tmp_path: Path, depth: str) -> None:
    make_checkpoint("Bert", tmp_path)
    with pytest.raises(ValueError, match=f"first '{depth}' layers.*from 1 to 3"):
        plm.load(f"{tmp_path}:{depth}")


def test_dropout_is_that_of_the_argument(folder: Path) -> None:
    part = plm.load(str(folder), dropout=0.0)
    part.encoder.train()
    torch.testing.assert_close(states(part), states(part))
    dropouts = [m.p for m in part.encoder.modules() if isinstance(m, nn.Dropout)]
    assert dropouts and set(dropouts) == {0.0}
    part = plm.load(str(folder), dropout=0.25)
    assert {m.p for m in part.encoder.modules() if isinstance(m, nn.Dropout)} == {0.25}


def test_a_missing_weight_of_the_encoder_is_refused(folder: Path) -> None:
    gone = drop_weights(folder, "layer.1.attention")
    assert gone
    with pytest.raises(ValueError, match=rf"lacks {len(gone)} weights.*layer\.1\.attention"):
        plm.load(str(folder))
    assert plm.load(f"{folder}:1").layers == 1


def test_without_a_whole_head_there_is_none(folder: Path) -> None:
    with_head = states(plm.load(str(folder)))
    drop_weights(folder, "transform.", "lm_head.dense", "vocab_transform")
    part = plm.load(str(folder))
    assert part.head is None
    torch.testing.assert_close(states(part), with_head)


def test_a_tokenizer_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    make_checkpoint("Bert", tmp_path)
    make_tokenizer(tmp_path)
    with pytest.raises(ValueError, match="has no mask_token"):
        plm.load(str(tmp_path))
    for file in tmp_path.glob("*token*"):
        file.unlink()
    with pytest.raises(ValueError, match="a tokenizer file is missing"):
        plm.load(str(tmp_path))


DAMAGES = {
    "cut": lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100]),
    "empty": lambda folder: (folder / WEIGHTS).write_bytes(b""),
    "gone": lambda folder: (folder / WEIGHTS).unlink(),
    "pickle": lambda folder: (folder / WEIGHTS).rename(folder / "pytorch_model.bin"),
    "shapes": lambda folder: change_config(folder, hidden_size=20, num_attention_heads=4),
    "fewer layers": lambda folder: change_config(folder, num_hidden_layers=2),
    "more layers": lambda folder: change_config(folder, num_hidden_layers=4),
    "not finite": lambda folder: save_file(
        {name: values / 0 for name, values in load_file(folder / WEIGHTS).items()},
        folder / WEIGHTS,
        metadata={"format": "pt"},
    ),
    "no JSON": lambda folder: (folder / "config.json").write_text('{"model_type": "bert"'),
    "a list": lambda folder: (folder / "config.json").write_text("[]"),
    "no UTF-8": lambda folder: (folder / "config.json").write_bytes(b'{"a": "\xff"}'),
    "no kind": lambda folder: (folder / "config.json").write_text("{}"),
    "another kind": lambda folder: change_config(folder, model_type="brt"),
    "words for numbers": lambda folder: change_config(folder, hidden_size="many"),
    "own code": lambda folder: change_config(
        folder, model_type="mine", auto_map={"AutoConfig": "mine.MyConfig"}
    ),
    "tokenizer": lambda folder: (folder / "tokenizer.json").write_text("{"),
}
WEIGHTS = "model.safetensors"


def change_config(folder: Path, **entries: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_named(damage: str, tmp_path: Path) -> None:
    folder = make_checkpoint("Bert", tmp_path / "mine")
    DAMAGES[damage](folder)
    with pytest.raises(ValueError, match=r"mine.* (damaged|config\.json|lacks)") as caught:
        plm.load(str(folder))
    assert len(str(caught.value)) < 800 and "\n" not in str(caught.value)


def test_pickled_weights_are_read_as_numbers_only(tmp_path: Path) -> None:
    folder = make_checkpoint("Bert", tmp_path)
    expected = states(plm.load(str(folder)))
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    torch.testing.assert_close(states(plm.load(str(folder))), expected)


def test_a_folder_without_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        plm.load(str(tmp_path))


def test_a_t5_answers_and_nothing_else_does(tiny_t5: str, tiny_plm: str) -> None:
    t5 = plm.load_answering(tiny_t5, dropout=0.3)
    assert {m.p for m in t5.modules() if isinstance(m, torch.nn.Dropout)} == {0.3}
    assert plm.tokenizer(tiny_t5).mask_token is None
    with pytest.raises(ValueError, match="is a bert, and only a T5"):
        plm.load_answering(tiny_plm)


def test_loading_is_silent(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    drop_weights(folder, "transform.", "lm_head.dense", "vocab_transform")
    plm.load(str(folder))
    output = capfd.readouterr()
    assert output.out + output.err == ""


@pytest.mark.network
def test_bert_tiny_has_its_own_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALTLIB_CACHE", str(tmp_path))
    monkeypatch.delenv("ALTLIB_PLM", raising=False)
    part = plm.load("bert-tiny")
    whole = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "plm" / "bert-tiny")
    batch = part.tokenizer("the movie is [MASK] story.", return_tensors="pt")
    assert part.head is not None
    with torch.no_grad():
        found = plm.encode(part.encoder, batch["input_ids"], batch["attention_mask"].bool())
        torch.testing.assert_close(part.head(found), whole(**batch).logits)
    assert (part.hidden_size, part.layers, part.vocab_size) == (128, 2, 30522)
