"""The towers, the masks they see, and switches that do what they name and nothing else."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from altlib.config import AlignmentConfig, TextConfig
from altlib.data.frame import Dataset
from altlib.data.tabular import Prepared, prepare
from altlib.data.text import TextBatch, TokenTable
from altlib.models import alignment, ctr, plm
from altlib.models.alignment import Alignment
from altlib.models.heads import MeanPooling
from altlib.models.losses import Noise
from altlib.training.batches import Batch

Case = tuple[Prepared, str, torch.Tensor, TextBatch]


@pytest.fixture(scope="module")
def case(synthetic: Dataset, tiny_plm: str) -> Case:
    """A data set, a PLM, and a batch cut so short that some fields are absent."""
    data = prepare(synthetic.frame, synthetic.schema)
    tokenizer = plm.load(tiny_plm).tokenizer
    table = TokenTable.build(data.values, data.schema, tokenizer, TextConfig())
    longest = int(table.lengths(data.rows).max())
    table.config = TextConfig(max_length=longest - 8)
    rows = data.of("train")[:64]
    return data, tiny_plm, torch.from_numpy(data.ids(rows)), table.assemble(data.rows[rows])


def build(case: Case, config: AlignmentConfig, like: Alignment | None = None) -> Alignment:
    data, name, _, _ = case
    torch.manual_seed(0)
    id_model = ctr.build(ctr.CtrConfig(embedding=8, hidden=(16,)), data.features, 6)
    language = plm.load(name, dropout=0.0)
    table = TokenTable.build(data.values, data.schema, language.tokenizer, TextConfig())
    tokens = table.tokens.unique().long()
    model = Alignment(id_model, language, data, config, tokens).eval()
    # Large ones, so that attention and the choice of negatives matter.
    for module in (id_model.embedding, getattr(model, "features", None)):
        if module is not None:
            torch.nn.init.normal_(module.weight)
    if like is not None:
        model.load_state_dict(like.state_dict(), strict=False)
    return model


def losses(case: Case, model: Alignment) -> dict[str, float]:
    _, _, ids, text = case
    torch.manual_seed(7)
    return {name: loss.item() for name, loss in model(ids, text).items()}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"text_ratio": 0.6}, {"mlm"}),
        ({"text_masking": "token"}, {"mlm"}),
        ({"mlm_head": "new"}, {"mlm"}),
        ({"mask_absent": True}, {"mlm"}),
        ({"mlm_vocabulary": "all"}, {"mlm"}),
        ({"mlm_ids": False}, {"mlm"}),
        ({"tabular_ratio": 0.6}, {"mtm"}),
        ({"mask_id": "zero"}, {"mtm"}),
        ({"attention_scaled": False}, {"mtm"}),
        ({"mtm_context": "mean"}, {"mtm"}),
        ({"attend_padding": True}, {"mtm"}),
        ({"mtm_loss": "full"}, {"mtm"}),
        ({"noise": "all"}, {"mtm"}),
        ({"negatives": 5}, {"mtm"}),
        ({"contrast": "dot"}, {"icl"}),
        ({"temperature": 0.7}, {"icl"}),
        ({"together": "twins"}, {"mtm", "mlm"}),
        ({"together": "determining"}, {"mtm", "mlm"}),
        ({"plm_passes": 1}, {"icl", "mtm", "mlm"}),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "-".join(sorted(value)),
)
def test_a_switch_changes_the_loss_it_names_and_no_other(
    case: Case, change: dict[str, object], named: set[str]
) -> None:
    base = build(case, AlignmentConfig())
    if "mlm_ids" in change:  # the head starts without any influence of the IDs
        torch.nn.init.normal_(base.mlm_head.inward.weight)
    plain = losses(case, base)
    changed = build(case, replace(AlignmentConfig(), **change), like=base)
    if "temperature" in change:
        changed.log_scale.data.fill_(-torch.tensor(0.7).log())
    found = losses(case, changed)
    different = {name for name in plain if found[name] != pytest.approx(plain[name], rel=1e-5)}
    assert different == named


@pytest.mark.parametrize(("passes", "ids_passes"), [(1, 1), (2, 2)])
def test_a_step_encodes_sentences_and_ids_as_often_as_it_says(
    case: Case, passes: int, ids_passes: int
) -> None:
    model = build(case, AlignmentConfig(plm_passes=passes))  # type: ignore[arg-type]
    calls = []
    model.encoder.register_forward_hook(lambda *_: calls.append("text"))
    model.ctr.register_forward_hook(lambda *_: calls.append("ids"))
    losses(case, model)
    assert (calls.count("text"), calls.count("ids")) == (passes, ids_passes)


def test_both_sentences_in_one_call_give_the_same_losses(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(case, AlignmentConfig())
    apart = losses(case, model)
    monkeypatch.setattr(alignment, "joint_on", lambda device: True)
    calls = []
    model.encoder.register_forward_hook(lambda *_: calls.append("text"))
    assert losses(case, model) == pytest.approx(apart, rel=1e-5)
    assert len(calls) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("precision", "bound"), [(torch.float32, 1e-4), (torch.bfloat16, 1e-2)])
def test_a_gpu_gives_the_losses_of_the_cpu(
    case: Case, precision: torch.dtype, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Negatives are drawn where the model is: draw these on the host for both.
    draw = Noise.draw

    def on_host(noise: Noise, fields: torch.Tensor, number: int) -> torch.Tensor:
        torch.manual_seed(1)
        return draw(deepcopy(noise).cpu(), fields.cpu(), number).to(fields.device)

    monkeypatch.setattr(Noise, "draw", on_host)
    _, _, ids, text = case
    model = build(case, AlignmentConfig())
    batch = Batch(ids, text, ids[:, 0], model.draw_masks(ids, text))
    expected = model(batch.ids, batch.text, batch.masks)
    there = batch.to(torch.device("cuda"))
    with torch.autocast("cuda", precision, enabled=precision != torch.float32):
        found = model.cuda()(there.ids, there.text, there.masks)
    for name, loss in expected.items():
        assert float(found[name]) == pytest.approx(float(loss), abs=bound), name


@pytest.mark.parametrize("masking", ["field", "token"])
@pytest.mark.parametrize("together", ["nothing", "twins", "determining"])
def test_a_single_pass_masks_no_field_twice(case: Case, masking: str, together: str) -> None:
    _, _, ids, text = case
    config = AlignmentConfig(
        plm_passes=1, text_ratio=0.5, tabular_ratio=0.5, text_masking=masking, together=together
    )  # type: ignore[arg-type]
    model = build(case, config)
    masks = model.draw_masks(ids, text)
    fields, tokens = masks.fields, masks.tokens
    in_text = torch.zeros_like(fields)
    row, _ = tokens.nonzero(as_tuple=True)
    in_text[row, text.field[tokens]] = True
    assert fields.any() and in_text.any()
    assert not (fields & in_text).any()


def test_a_single_pass_cannot_mask_more_fields_than_there_are() -> None:
    with pytest.raises(ValueError, match=r"text_ratio \+ alignment.tabular_ratio = 1.2 must be"):
        AlignmentConfig(plm_passes=1, text_ratio=0.6, tabular_ratio=0.6)


@pytest.mark.parametrize("name", ["icl", "mtm", "mlm"])
def test_a_loss_that_is_off_is_absent_and_leaves_the_others(case: Case, name: str) -> None:
    base = build(case, AlignmentConfig())
    plain = losses(case, base)
    found = losses(case, build(case, replace(AlignmentConfig(), **{name: False}), like=base))
    assert found == pytest.approx({k: v for k, v in plain.items() if k != name}, rel=1e-6)


def test_no_loss_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one of the losses"):
        AlignmentConfig(icl=False, mtm=False, mlm=False)


def test_a_masked_id_is_never_a_real_one(case: Case) -> None:
    data, _, ids, _ = case
    model = build(case, AlignmentConfig(tabular_ratio=0.5))
    chosen = model.mask_fields(ids)
    masked = model.mask(ids, chosen)
    assert chosen.any()
    assert not torch.isin(masked[chosen], torch.from_numpy(data.feature_of_value)).any()
    assert torch.equal(masked[~chosen], ids[~chosen])
    # The published code's mask is a real feature of the first field.
    published = build(case, AlignmentConfig(mask_id="zero"))
    assert published.mask(ids, chosen)[chosen].unique().item() in data.feature_of_value


def test_unknown_ids_are_never_asked_for(case: Case) -> None:
    data, _, ids, _ = case
    model = build(case, AlignmentConfig(tabular_ratio=1.0))
    unknown = torch.from_numpy(data.vocabulary.unknown_ids)
    chosen = model.mask_fields(torch.where(torch.rand(ids.shape) < 0.5, unknown, ids))
    assert not (chosen & (ids == unknown)).any()


def test_masked_words_lie_in_their_field(case: Case) -> None:
    _, _, _, text = case
    model = build(case, AlignmentConfig())
    masked = model.mask_text(text)
    assert (masked <= text.value).all()
    for row in range(len(masked)):
        (field,) = text.field[row][masked[row]].unique()
        # All of the value is masked: nothing of it is left to recover it from.
        assert torch.equal(masked[row], text.value[row] & (text.field[row] == field))


def test_padding_gets_no_attention(case: Case) -> None:
    _, _, ids, text = case
    model = build(case, AlignmentConfig())
    states = model.encode_text(text.tokens, text.attention)
    _, weights = model.attend(model.encode_ids(ids), text, states)
    assert weights[~text.attention].abs().max() == 0
    assert torch.allclose(weights.sum(1), torch.ones(len(ids)))
    other = text.tokens.masked_fill(~text.attention, 9)
    assert torch.allclose(
        model.encode_text(other, text.attention)[text.attention],
        states[text.attention],
        atol=1e-5,
    )


def test_mean_pooling_is_the_mean_of_the_words_without_padding() -> None:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(2, 4, 3, generator=generator)
    attention = torch.tensor([[True, True, False, False], [True, True, True, True]])
    context, weights = MeanPooling()(torch.zeros(2, 5), states, attention)
    torch.testing.assert_close(context, torch.stack([states[0, :2].mean(0), states[1].mean(0)]))
    assert weights.tolist() == [[0.5, 0.5, 0, 0], [0.25] * 4]


def test_own_head_starts_from_the_plm_s_predictions(case: Case) -> None:
    _, name, ids, text = case
    model = build(case, AlignmentConfig())
    masked = model.mask_text(text)
    tokens = text.tokens.masked_fill(masked, 4)
    own = model.encode_text(tokens, text.attention)
    positions = masked.flatten().nonzero().squeeze(1)
    logits = model.mlm_logits(own, positions, model.encode_ids(ids))
    whole = plm.load(name, dropout=0.0)
    states = plm.encode(whole.encoder.eval(), tokens, text.attention)
    assert whole.head is not None
    assert torch.allclose(logits, whole.head(states[masked])[:, model.tokens], atol=1e-5)


def test_gradients_reach_both_towers_from_every_loss(case: Case) -> None:
    _, _, ids, text = case
    for name in ("icl", "mtm", "mlm"):
        model = build(case, AlignmentConfig())
        if name == "mlm":  # it starts at zero, where the ID vector does not matter yet
            torch.nn.init.normal_(model.mlm_head.inward.weight)
        model(ids, text)[name].backward()
        for tower in (model.ctr.embedding, model.encoder):
            grads = [p.grad for p in tower.parameters() if p.grad is not None]
            assert any(g.abs().sum() > 0 for g in grads), name
