"""ID-based models: each against its formula written slowly, and what all of them must keep."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from altlib.config import BACKBONES, CtrConfig
from altlib.models.ctr import MODELS, build
from altlib.models.ctr.afm import AFM
from altlib.models.ctr.afn import LogarithmicLayer
from altlib.models.ctr.autoint import InteractingLayer
from altlib.models.ctr.dcn import DCN
from altlib.models.ctr.dcnv2 import CrossMix, DCNFull
from altlib.models.ctr.deepfm import DeepFM, bi_interaction
from altlib.models.ctr.finalmlp import FinalMLP
from altlib.models.ctr.layers import IdModel
from altlib.models.ctr.pnn import PNN
from altlib.models.ctr.xdeepfm import CIN, XDeepFM

FEATURES, FIELDS = 50, 5
every_backbone = pytest.mark.parametrize("backbone", BACKBONES)
every_wide_backbone = pytest.mark.parametrize(
    "backbone", [name for name, kind in MODELS.items() if kind.wide]
)


def make(backbone: str, seed: int = 0, **sizes: float) -> IdModel:
    torch.manual_seed(seed)
    return build(CtrConfig(backbone=backbone, **sizes), FEATURES, FIELDS)  # type: ignore[arg-type]


def make_lively(backbone: str) -> IdModel:
    """A model whose embeddings and first-order weights are far from zero, as after training."""
    model = make(backbone)
    torch.nn.init.normal_(model.embedding.weight)
    if model.wide:
        torch.nn.init.normal_(model.linear.weight)
    return model


def some_ids(rows: int = 64) -> Tensor:
    """Rows whose field f draws from ten features of its own."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(10, (rows, FIELDS), generator=generator) + 10 * torch.arange(FIELDS)


@every_backbone
def test_shapes(backbone: str) -> None:
    model = make(backbone)
    representation, logit = model(some_ids(7))
    assert representation.shape == (7, model.representation_size)
    assert logit.shape == (7,)
    assert model.embedding.weight.shape == (FEATURES, 32)
    assert backbone in BACKBONES


def test_dcnv2_of_eight_fields_represents_a_row_by_384_numbers() -> None:
    assert build(CtrConfig(), 10, 8).representation_size == 384


@every_backbone
def test_gradient_reaches_every_parameter(backbone: str) -> None:
    model = make_lively(backbone)
    model(some_ids())[1].square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@every_backbone
def test_representation_carries_gradient_to_the_embeddings(backbone: str) -> None:
    model = make_lively(backbone)
    model(some_ids(1))[0].sum().backward()
    touched = model.embedding.weight.grad.abs().sum(1).nonzero().flatten()  # type: ignore[union-attr]
    assert touched.tolist() == some_ids(1).flatten().tolist()


@every_backbone
def test_learns_a_small_batch_by_heart(backbone: str) -> None:
    model, ids = make(backbone), some_ids(32)
    labels = torch.randint(2, (32,), generator=torch.Generator().manual_seed(2)).float()
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(100):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(ids)[1], labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.01


@every_backbone
def test_a_seed_fixes_the_model_and_another_changes_it(backbone: str) -> None:
    ids = some_ids()
    assert torch.equal(make(backbone)(ids)[1], make(backbone)(ids)[1])
    assert not torch.equal(make(backbone)(ids)[1], make(backbone, seed=1)(ids)[1])


@every_backbone
def test_saved_weights_predict_the_same(backbone: str, tmp_path: Path) -> None:
    model, other = make_lively(backbone), make(backbone, seed=1)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    for before, after in zip(model(some_ids()), other(some_ids()), strict=True):
        assert torch.equal(before, after)


@every_backbone
def test_rows_do_not_see_each_other(backbone: str) -> None:
    model, ids = make_lively(backbone).double().eval(), some_ids()
    order = torch.randperm(len(ids))
    for whole, shuffled in zip(model(ids), model(ids[order]), strict=True):
        torch.testing.assert_close(shuffled, whole[order])
    torch.testing.assert_close(model(ids[:1])[1], model(ids)[1][:1])


@every_wide_backbone
def test_a_feature_never_trained_adds_nothing_to_the_first_order(backbone: str) -> None:
    model = make(backbone)
    ids = torch.full((2, FIELDS), FEATURES - 1)
    assert torch.isfinite(model(ids)[1]).all()
    assert torch.equal(model.first_order(ids), torch.zeros(2))


@every_wide_backbone
def test_the_first_order_is_part_of_the_logit(backbone: str) -> None:
    model, ids = make_lively(backbone).double(), some_ids()
    whole, slow = model(ids)[1], torch.zeros(len(ids), dtype=torch.double)
    for row, features in enumerate(ids):
        slow[row] = sum(model.linear.weight[feature, 0] for feature in features)
    torch.testing.assert_close(model.first_order(ids), slow)
    torch.nn.init.zeros_(model.linear.weight)
    torch.testing.assert_close(whole - model(ids)[1], slow)


@every_backbone
def test_dropout_acts_in_training_only(backbone: str) -> None:
    model, ids = make(backbone, dropout=0.5), some_ids()
    assert not torch.equal(model(ids)[1], model(ids)[1])
    model.eval()
    assert torch.equal(model(ids)[1], model(ids)[1])


def test_cross_mix_is_its_formula_expert_by_expert() -> None:
    torch.manual_seed(0)
    width, rank, experts = 12, 3, 4
    layer = CrossMix(width, rank, experts).double()
    torch.nn.init.normal_(layer.u.bias)
    first, x = torch.randn(2, 6, width, dtype=torch.double)
    gates = torch.randn(6, experts, dtype=torch.double).softmax(1)
    for row in range(6):
        expected = x[row].clone()
        for i in range(experts):
            own = slice(i * rank, (i + 1) * rank)
            v, c, u = layer.v.weight[own].T, layer.c[i], layer.u.weight[:, own]  # as in the paper
            inner = u @ torch.tanh(c @ torch.tanh(v.T @ x[row]))
            expected = expected + gates[row, i] * first[row] * (inner + layer.u.bias)
        torch.testing.assert_close(layer(first, x, gates)[row], expected)


def test_dcn_mix_chains_its_layers_from_the_same_first_input() -> None:
    model, ids = make_lively("dcnv2").double(), some_ids()
    first = model.embedding(ids).reshape(len(ids), -1)
    one, two = model.cross  # type: ignore[misc]
    middle = one(first, first, torch.softmax(model.gate(first), 1))  # type: ignore[operator]
    last = two(first, middle, torch.softmax(model.gate(middle), 1))  # type: ignore[operator]
    representation, logit = model(ids)
    torch.testing.assert_close(representation, torch.cat([last, model.dnn(first)], 1))
    said = representation @ model.head.weight[0]  # type: ignore[union-attr, index]
    torch.testing.assert_close(logit, model.first_order(ids) + said)


def test_full_cross_is_its_formula() -> None:
    model, ids = make_lively("dcnv2-full").double(), some_ids(6)
    assert isinstance(model, DCNFull)
    for row in range(6):
        first = x = torch.cat([model.embedding.weight[feature] for feature in ids[row]])
        for layer in model.cross:
            x = first * (layer.weight @ x + layer.bias) + x  # type: ignore[operator]
        torch.testing.assert_close(model(ids)[0][row, : x.numel()], x)


def test_fm_is_the_sum_over_pairs() -> None:
    model, ids = make_lively("deepfm").double(), some_ids(6)
    assert isinstance(model, DeepFM)
    embedded = model.embedding(ids)
    products = [
        embedded[:, i] * embedded[:, j] for i in range(FIELDS) for j in range(i + 1, FIELDS)
    ]
    pairs = torch.stack(products).sum(0)
    torch.testing.assert_close(bi_interaction(embedded), pairs)
    deep = model.dnn(embedded.flatten(1))
    representation, logit = model(ids)
    torch.testing.assert_close(representation, torch.cat([pairs, deep], 1))
    expected = model.first_order(ids) + pairs.sum(1) + deep @ model.head.weight[0]
    torch.testing.assert_close(logit, expected)


def test_interacting_layer_is_its_formula_field_by_field() -> None:
    torch.manual_seed(0)
    width, heads = 6, 2
    layer = InteractingLayer(width, heads).double()
    query, key, value, residual = layer.project.weight.chunk(4)
    row = torch.randn(FIELDS, width, dtype=torch.double)
    expected = torch.zeros(FIELDS, width, dtype=torch.double)
    for head in range(heads):
        own = slice(head * width // heads, (head + 1) * width // heads)
        for m in range(FIELDS):
            scores = torch.stack(
                [(query[own] @ row[m]) @ (key[own] @ row[k]) for k in range(FIELDS)]
            )
            for k in range(FIELDS):
                expected[m, own] += torch.softmax(scores, 0)[k] * (value[own] @ row[k])
    expected = torch.relu(expected + row @ residual.T)
    torch.testing.assert_close(layer(row[None])[0], expected)


def test_autoint_puts_attention_beside_the_dnn() -> None:
    model, ids = make_lively("autoint").double(), some_ids()
    attended = embedded = model.embedding(ids)
    assert len(model.attention) == 3  # type: ignore[arg-type]
    for layer in model.attention:  # type: ignore[union-attr]
        attended = layer(attended)
    expected = torch.cat([attended.flatten(1), model.dnn(embedded.flatten(1))], 1)
    torch.testing.assert_close(model(ids)[0], expected)


def test_afm_weighs_pairs_by_attention() -> None:
    model, ids = make_lively("afm").double(), some_ids(6)
    assert isinstance(model, AFM)
    inward, _, outward = model.attention
    for row in range(6):
        embedded = model.embedding.weight[ids[row]]
        products = [embedded[i] * embedded[j] for i in range(FIELDS) for j in range(i + 1, FIELDS)]
        scores = [
            outward.weight[0] @ torch.relu(inward.weight @ pair + inward.bias) for pair in products
        ]
        weights = torch.softmax(torch.stack(scores), 0)
        expected = sum(w * pair for w, pair in zip(weights, products, strict=True))
        torch.testing.assert_close(model(ids)[0][row], expected)


@pytest.mark.parametrize("backbone", ["afm", "dcn", "xdeepfm", "widedeep"])
def test_the_logit_is_the_first_order_and_the_representation_read_by_the_head(
    backbone: str,
) -> None:
    model, ids = make_lively(backbone).double(), some_ids()
    representation, logit = model(ids)
    said = representation @ model.head.weight[0]  # type: ignore[union-attr, index]
    torch.testing.assert_close(logit, model.first_order(ids) + said)


def test_pnn_reads_inner_products_beside_embeddings() -> None:
    model, ids = make_lively("pnn").double(), some_ids(6)
    assert isinstance(model, PNN)
    embedded = model.embedding(ids)
    products = [
        (embedded[:, i] * embedded[:, j]).sum(1, keepdim=True)
        for i in range(FIELDS)
        for j in range(i + 1, FIELDS)
    ]
    representation, logit = model(ids)
    expected = model.dnn(torch.cat([embedded.flatten(1), *products], 1))
    torch.testing.assert_close(representation, expected)
    torch.testing.assert_close(logit, model.head(expected)[:, 0])


def test_cross_of_dcn_is_its_formula() -> None:
    model, ids = make_lively("dcn").double(), some_ids(6)
    assert isinstance(model, DCN)
    for row in range(6):
        first = x = model.embedding.weight[ids[row]].flatten()
        for layer in model.cross:
            torch.nn.init.normal_(layer.b)
            x = first * (x @ layer.w.weight[0]) + layer.b + x
        torch.testing.assert_close(model(ids)[0][row, : x.numel()], x)


def test_cin_is_its_formula_map_by_map() -> None:
    torch.manual_seed(0)
    maps, width = (4, 2), 3
    layer = CIN(FIELDS, maps).double()
    row = torch.randn(FIELDS, width, dtype=torch.double)
    before, expected = row, []
    for linear, number in zip(layer.layers, maps, strict=True):
        weights = linear.weight.view(number, len(before), FIELDS)  # type: ignore[operator, union-attr]
        now = torch.zeros(number, width, dtype=torch.double)
        for h in range(number):
            for i in range(len(before)):
                for j in range(FIELDS):
                    now[h] += weights[h, i, j] * before[i] * row[j]
        expected.append(now.sum(1))
        before = now
    torch.testing.assert_close(layer(row[None])[0], torch.cat(expected))


def test_xdeepfm_puts_cin_beside_the_dnn() -> None:
    model, ids = make_lively("xdeepfm").double(), some_ids()
    assert isinstance(model, XDeepFM)
    embedded = model.embedding(ids)
    expected = torch.cat([model.cin(embedded), model.dnn(embedded.flatten(1))], 1)
    torch.testing.assert_close(model(ids)[0], expected)


def test_a_logarithmic_neuron_is_a_product_of_powers() -> None:
    torch.manual_seed(0)
    layer = LogarithmicLayer(FIELDS, 3).double().eval()  # batch norms that do nothing yet
    torch.nn.init.normal_(layer.orders.bias)
    embedded = torch.randn(4, FIELDS, 2, dtype=torch.double)
    found = layer(embedded)
    for n in range(3):
        powers = embedded.abs() ** layer.orders.weight[n][:, None]
        expected = powers.prod(1) * layer.orders.bias[n].exp()
        torch.testing.assert_close(found[:, n], expected, rtol=1e-4, atol=0)


def test_afn_reads_its_neurons_by_a_dnn() -> None:
    model, ids = make_lively("afn").double().eval(), some_ids()
    neurons = model.crosses(model.embedding(ids))  # type: ignore[operator]
    expected = model.dnn(neurons.reshape(len(ids), -1))
    representation, logit = model(ids)
    torch.testing.assert_close(representation, expected)
    head = model.head
    torch.testing.assert_close(logit, expected @ head.weight[0] + head.bias)  # type: ignore[union-attr, index, operator]


def test_finalmlp_gates_two_streams_and_fuses_them_head_by_head() -> None:
    model, ids = make_lively("finalmlp").double(), some_ids(6)
    assert isinstance(model, FinalMLP)
    embedded, outputs = model.embedding(ids).flatten(1), []
    for stream in (model.first, model.second):
        torch.nn.init.normal_(stream.gate)
        outputs.append(stream.dnn(2 * torch.sigmoid(stream.gate) * embedded))
    representation, logit = model(ids)
    torch.testing.assert_close(representation, torch.cat(outputs, 1))
    expected = model.head(representation)[:, 0]
    width = outputs[0].shape[1] // 2
    for head in range(2):
        own = slice(head * width, (head + 1) * width)
        for row in range(6):
            expected[row] += outputs[0][row, own] @ model.fusion[head] @ outputs[1][row, own]
    torch.testing.assert_close(logit, expected)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"no backbone 'DCNv2'; did you mean 'dcnv2'"):
        make("DCNv2")
    with pytest.raises(ValueError, match=r"did you mean 'autoint'"):
        make("autoin")
    with pytest.raises(ValueError, match="attention_heads = 3 does not divide"):
        make("autoint", attention_heads=3)
    with pytest.raises(ValueError, match="fusion_heads = 3 does not divide"):
        make("finalmlp", fusion_heads=3)
    for wrong in ({"experts": 0}, {"dropout": 1.0}, {"hidden": ()}, {"width": 3}):
        with pytest.raises(ValidationError):
            CtrConfig(**wrong)
