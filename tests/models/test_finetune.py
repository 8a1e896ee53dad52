"""The three finetunings: what they read, what they predict, what their losses reach."""

from dataclasses import replace

import pytest
import torch

from altlib.config import TextConfig
from altlib.data.frame import Dataset
from altlib.data.tabular import prepare
from altlib.data.text import TextBatch, TokenTable
from altlib.models import ctr, plm
from altlib.models.finetune import (
    AnswerModel,
    BothModel,
    CtrModel,
    LangModel,
    TowersModel,
    click_losses,
    prediction,
)

Case = tuple[torch.nn.Module, plm.Plm, torch.Tensor, TextBatch]


@pytest.fixture
def case(synthetic: Dataset, tiny_plm: str) -> Case:
    data = prepare(synthetic.frame, synthetic.schema)
    language = plm.load(tiny_plm, dropout=0.0)
    table = TokenTable.build(data.values, data.schema, language.tokenizer, TextConfig())
    rows = data.of("train")[:16]
    id_model = ctr.build(ctr.CtrConfig(embedding=4, hidden=(8,)), data.features, 6)
    return id_model, language, torch.from_numpy(data.ids(rows)), table.assemble(data.rows[rows])


def test_ctr_is_the_id_model_s_own_logit(case: Case) -> None:
    id_model, _, ids, _ = case
    logits = CtrModel(id_model)(ids, None)
    assert torch.equal(logits["ctr"], id_model(ids)[1])
    assert torch.equal(prediction(logits), logits["ctr"].sigmoid())


def test_lang_reads_cls_only_from_the_words(case: Case) -> None:
    _, language, ids, text = case
    model = LangModel(language).eval()
    states = plm.encode(language.encoder, text.tokens, text.attention)
    expected = model.classifier(states[:, 0]).squeeze(-1)
    assert torch.allclose(model(ids * 0, text)["lang"], expected)


def test_both_mixes_with_alpha(case: Case) -> None:
    id_model, language, ids, text = case
    model = BothModel(id_model, language).eval()
    logits = model(ids, text)
    assert torch.allclose(logits["joint"], (logits["ctr"] + logits["lang"]) / 2, atol=1e-6)
    model.alpha.data.fill_(50.0)
    logits = model(ids, text)
    assert torch.allclose(logits["joint"], logits["ctr"])
    assert next(iter(logits)) == "joint"


@pytest.mark.parametrize(("alpha", "reached"), [("sigmoid", True), ("free", False)])
def test_the_joint_loss_reaches_the_ids_only_when_bounded(
    case: Case, alpha: str, reached: bool
) -> None:
    id_model, language, ids, text = case
    model = BothModel(id_model, language, alpha).eval()
    labels = torch.arange(16) % 2
    click_losses(model(ids, text), labels)["joint"].backward()
    grad = id_model.embedding.weight.grad
    assert (grad is not None and bool(grad.abs().sum() > 0)) == reached


def test_losses_are_binary_cross_entropies(case: Case) -> None:
    logits = {"ctr": torch.tensor([0.3, -2.0])}
    found = click_losses(logits, torch.tensor([1, 0]))["ctr"]
    p = logits["ctr"].sigmoid()
    assert found.item() == pytest.approx(-(p[0].log() + (1 - p[1]).log()).item() / 2, rel=1e-6)


def test_the_answer_is_yes_against_no(case: Case, tiny_t5: str) -> None:
    ids, text = case[2:]
    t5 = plm.load_answering(tiny_t5)
    tokens = text.tokens.clamp(max=t5.config.vocab_size - 1)
    found = AnswerModel(t5, (5, 7)).eval()(ids, replace(text, tokens=tokens))["lang"]
    written = t5.generate(
        tokens, attention_mask=text.attention.long(), max_new_tokens=1,
        output_logits=True, return_dict_in_generate=True,
    ).logits[0]  # fmt: skip
    assert torch.allclose(found, written[:, 5] - written[:, 7], atol=1e-5)


def test_a_tower_reads_the_words_of_its_side_only(case: Case, tiny_plm: str) -> None:
    _, language, ids, text = case
    other = plm.load(tiny_plm, dropout=0.0)
    sides = torch.tensor([True, True, False, False, False, False])
    model = TowersModel(language, other, sides).eval()
    reached: list[torch.Tensor] = []
    model.classifier.register_forward_pre_hook(lambda module, inputs: reached.append(inputs[0]))
    model(ids, text)
    changed = text.tokens.clone()
    changed[text.value & (text.field >= 2)] = 7  # the item's words
    model(ids, replace(text, tokens=changed))
    width = language.hidden_size
    before, after = reached
    assert torch.equal(before[:, :width], after[:, :width])
    assert not torch.allclose(before[:, width:], after[:, width:])
