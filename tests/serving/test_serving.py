"""Exports: equal to PyTorch from raw values, whole or refused; and how measurements count."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest

from altlib.config import BACKBONES
from altlib.lab import keys, metrics, steps
from altlib.profile import Profile, load_profile
from altlib.serving import __main__ as command
from altlib.serving import export, measure
from altlib.serving.predictor import Predictor

TINY = Path(__file__).parents[1] / "tiny.yaml"
FAST = {"epochs": 1, "patience": None}


def tiny(plm: str, **changes: object) -> Profile:
    budgets = {"ctr": FAST, "lang": FAST, "both": FAST}
    return load_profile(str(TINY), {"plm": {"name": plm}, "finetuning": budgets, **changes})


def made(profile: Profile, variant: str) -> Path:
    """The folder of a finetuned run."""
    steps.finetune(profile.run(variant, 0))
    return keys.folder(profile.run(variant, 0))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_id_model_is_exported_as_pytorch_has_it(
    backbone: str, tiny_plm: str, tmp_path: Path
) -> None:
    profile = tiny(tiny_plm, ctr={"backbone": backbone, "cin": [4], "logarithmic_neurons": 3})
    folder = made(profile, "raw")
    predictor = Predictor(export.export(folder, tmp_path / "out"))
    model, config = export.restore(folder)
    data = steps.prepare(config.data)
    for rows in (data.rows[data.of("test")[:1]], data.rows[data.of("test")]):
        expected = export.eager(model, export.inputs(config, data, rows))()
        found = predictor.predict(export.raw_values(data, rows))
        np.testing.assert_allclose(found, expected, atol=export.TOLERANCES["model.onnx"], rtol=0)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "done.json", "export.json", "model.onnx",
    ]  # fmt: skip


@pytest.mark.parametrize("variant", ["plain_lang", "alt_both"])
def test_sentences_are_those_of_training(variant: str, tiny_plm: str, tmp_path: Path) -> None:
    text = {"leave_out": ["occupation"], "max_length": 24}  # some sentences are cut
    profile = tiny(tiny_plm, text=text)
    folder = made(profile, variant)
    out = export.export(folder, tmp_path / "out", int8=True)
    model, config = export.restore(folder)
    data = steps.prepare(config.data)
    rows = data.rows[data.of("test")]
    given = export.inputs(config, data, rows)
    expected = export.eager(model, given)()
    predictor = Predictor(out)
    values = export.raw_values(data, rows)
    assert predictor.sentences is not None
    tokens, attention = predictor.sentences.assemble(predictor.words(values))
    assert np.array_equal(tokens, given["tokens"]) and attention.sum(1).max() == 24
    assert np.array_equal(attention, given["attention"])
    np.testing.assert_allclose(predictor.predict(values), expected, atol=1e-5, rtol=0)
    small = Predictor(out, model="model-int8.onnx").predict(values)
    assert np.abs(small - expected).max() < 0.05


def test_a_run_is_found_by_profile_variant_and_seed(
    tiny_plm: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "mine.yaml").write_text(
        TINY.read_text().replace("name: tiny,", f"name: {tiny_plm},")
    )
    name = f"{tmp_path / 'mine.yaml'}/raw/0"
    with pytest.raises(FileNotFoundError, match=r"mine.yaml/raw/0' does not exist yet"):
        export.find(name)
    with pytest.raises(FileNotFoundError, match="neither the folder of a run nor of the form"):
        export.find("raw")
    with pytest.raises(ValueError, match=r"no variant 'row'; did you mean 'raw'"):
        export.find(f"{tmp_path / 'mine.yaml'}/row/0")
    made(load_profile(str(tmp_path / "mine.yaml")), "raw")
    out = tmp_path / "out"
    for words in (["export", name, str(out)], ["predict", str(out), str(tmp_path / "rows.csv")]):
        if words[0] == "predict":
            data = steps.prepare(load_profile(str(tmp_path / "mine.yaml")).data)
            frame = pd.DataFrame(export.raw_values(data, data.rows[:3]))
            frame.assign(note="x").to_csv(tmp_path / "rows.csv", index=False)
            capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["serving", *words])
        command.main()
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 4 and printed[0].endswith("note,probability")
    whole = (tmp_path / "rows.csv").read_text()
    for old, new, told in (
        ("x\n", "x,\n", "line 2: 8 columns instead of 7"),
        ("user_id", "note", "line 1: the column 'note' is repeated"),
        ("note", "probability", "has a column 'probability' already"),
        ("user_id", "person", r"no column \['user_id'\]"),
        ("x\n", '"x\n', "line 2: its quotes do not pair"),
    ):
        assert old in whole
        (tmp_path / "rows.csv").write_text(whole.replace(old, new, 1))
        with pytest.raises(SystemExit, match=f"altlib: .*{told}"):
            command.main()
    monkeypatch.setattr(sys, "argv", ["serving", "export", name, str(out)])
    with pytest.raises(SystemExit, match="already exists; choose another folder"):
        command.main()


def test_what_cannot_be_exported_leaves_nothing(
    tiny_plm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(tiny(tiny_plm), "ctr_bert")
    with pytest.raises(ValueError, match="'ctr_bert' cannot be exported"):
        export.export(folder, tmp_path / "out")
    folder = made(tiny(tiny_plm), "raw")
    with monkeypatch.context() as patch:
        patch.setattr(export.Graph, "forward", lambda self, ids: ids if ids.sum() > 0 else -ids)
        with pytest.raises(ValueError, match="'raw' cannot be exported: PyTorch cannot write"):
            export.export(folder, tmp_path / "out")
    for model in export.TOLERANCES:
        with monkeypatch.context() as patch:
            patch.setitem(export.TOLERANCES, model, -1.0)
            with pytest.raises(ValueError, match=f"^{model} of 'raw' differs from PyTorch by"):
                export.export(folder, tmp_path / "out", int8=True)
    assert not list(tmp_path.glob("*out*"))


def saturating(activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The product as processors with AVX2 and without VNNI make it: pairs of products of unsigned
    and signed bytes add up in 16 bits."""
    products = activations[:, :, None] * weights.astype(int)  # N, K, M
    pairs = np.add.reduceat(products, np.arange(0, products.shape[1], 2), axis=1)
    return pairs.clip(-(2**15), 2**15 - 1).sum(1)


def test_8_bit_weights_saturate_on_no_processor(tiny_plm: str, tmp_path: Path) -> None:
    export.export(made(tiny(tiny_plm), "plain_both"), tmp_path / "out", int8=True)
    graph = onnx.load(tmp_path / "out" / "model-int8.onnx").graph
    arrays = {array.name: onnx.numpy_helper.to_array(array) for array in graph.initializer}
    # Of these weights, activations are made in the graph.
    products = [node for node in graph.node if node.op_type == "MatMulInteger"]
    weights = [arrays[node.input[1]] for node in products if node.input[1] in arrays]
    assert len(weights) > 10
    largest = np.full((1, 4096), 255)
    for weight in weights:
        assert weight.dtype == np.int8 and abs(weight.astype(int)).max() == 64
        activations = largest[:, : len(weight)]
        exact = activations @ weight.astype(int)
        np.testing.assert_array_equal(saturating(activations, weight), exact)
    full = np.full((2, 1), 127, np.int8)
    assert saturating(largest[:, :2], full) < largest[:, :2] @ full


def test_measurements_have_a_line_each(tiny_plm: str, tmp_path: Path) -> None:
    profile = tiny(tiny_plm)
    exports = {
        name: export.export(made(profile, name), tmp_path / name, int8=name == "plain_lang")
        for name in ("raw", "plain_lang")
    }
    table = measure.measure(exports, batches=(1, 4), threads=(1,), seconds=0.01)
    assert len(table) == 2 * (3 + 4) and (table["p50_ms"] <= table["p99_ms"]).all()
    assert set(table["engine"]) == {"PyTorch", "ONNX", "ONNX, raw values", "ONNX int8"}
    costs = measure.costs(exports, rounds=1)
    assert costs["model"].tolist() == ["model.onnx", "model.onnx", "model-int8.onnx"]
    assert (costs["start-up seconds"] > 0).all() and costs["peak memory MiB"].between(10, 400).all()
    auc = json.loads((keys.folder(profile.run("raw", 0)) / "results.json").read_text())["auc"]
    assert costs["test AUC"][0] == pytest.approx(auc, abs=1e-5)
    # int8 rounds by more than the probabilities of a barely trained PLM lie apart: they are near
    # those of fp32, but their order, and so the AUC, is the file's own.
    data = steps.prepare(profile.data)
    test = data.of("test")
    values = export.raw_values(data, data.rows[test])
    found = [
        Predictor(exports["plain_lang"], model=model).predict(values)
        for model in ("model.onnx", "model-int8.onnx")
    ]
    assert 0 < np.abs(found[0] - found[1]).max() < 0.01
    expected = [metrics.auc(data.labels[test], probabilities) for probabilities in found]
    assert costs["test AUC"].tolist()[1:] == pytest.approx(expected, abs=1e-3)


def test_batches_end_where_a_call_takes_longer_than_a_second(
    tiny_plm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = export.export(made(tiny(tiny_plm), "raw"), tmp_path / "raw")
    slow = iter([10.0, 10.0, 10.0, 10.0, 10.0, 1001.0])  # three engines each, two batches
    monkeypatch.setattr(measure, "timings", lambda call, seconds: np.array([next(slow)]))
    table = measure.measure({"raw": folder}, batches=(1, 4, 16), threads=(1,))
    assert table["batch"].tolist() == [1, 1, 1, 4, 4, 4]


def test_candidates_are_of_one_user(tiny_plm: str) -> None:
    data = steps.prepare(tiny(tiny_plm).data)
    rows = measure.candidates(data, 20)
    of_user = [field.side == "user" for field in data.schema.fields]
    assert (rows[:, of_user] == rows[0, of_user]).all()
    assert len(np.unique(rows[:, ~np.array(of_user)], axis=0)) > 1


def test_a_run_of_data_that_have_changed_is_not_exported(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 40, 2000), rng.integers(0, 30, 2000)
    clicks = (rng.random(2000) < 0.1 + 0.8 * (users % 2)).astype(int)
    table = pd.DataFrame({"user": [f"u{u}" for u in users], "item": items, "click": clicks})
    table.to_csv(tmp_path / "clicks.csv", index=False)
    text = "file: clicks.csv\nfields: {user: {side: user}, item: {side: item}}\nrating: click\n"
    (tmp_path / "clicks.yaml").write_text(text)
    data = {
        "dataset": str(tmp_path / "clicks.yaml"),
        "split": "random",
        "options": None,
        "rows": None,
    }
    run = load_profile(str(TINY), {"data": data}).run("raw", 0)
    steps.finetune(run)
    folder = keys.folder(run)
    export.export(folder, tmp_path / "out")
    table.replace({"user": {"u0": "zz"}}).to_csv(tmp_path / "clicks.csv", index=False)
    with pytest.raises(
        ValueError, match=r"clicks\.yaml' have changed since the run .* Train it anew"
    ):
        export.export(folder, tmp_path / "other")
    assert not (tmp_path / "other").exists()
