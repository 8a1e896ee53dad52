"""The loop: it learns, stops early, and goes on after a kill to the same numbers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker
from torch import nn

from altlib.config import TrainingConfig, key
from altlib.data.frame import Dataset
from altlib.data.tabular import Prepared, prepare
from altlib.models import ctr
from altlib.models.finetune import CtrModel, click_losses
from altlib.training import processes
from altlib.training.batches import Batches
from altlib.training.checkpoint import Checkpoint
from altlib.training.loop import fit, optimiser, predict, rate_factor
from altlib.training.processes import accelerator

CONFIG = TrainingConfig(epochs=3, batch=64, rate=1e-2)


def model(data: Prepared, dropout: float = 0.1) -> CtrModel:
    torch.manual_seed(0)
    config = ctr.CtrConfig(embedding=8, hidden=(16,), dropout=dropout)
    return CtrModel(ctr.build(config, data.features, len(data.schema.fields)))


def click(m: nn.Module, batch: tuple[Any, ...]) -> dict[str, torch.Tensor]:
    return click_losses(m(batch[0], batch[1]), batch[2])


def train(
    data: Prepared,
    folder: Path,
    config: TrainingConfig = CONFIG,
    aucs: list[float] | None = None,
    evaluate: Any = None,
    losses: Any = click,
    dropout: float = 0.1,
) -> tuple[nn.Module, dict[str, Any]]:
    left = list(aucs or [])
    made = model(data, dropout)
    history = fit(
        made,
        losses,
        Batches(data, data.of("train"), config.batch),
        evaluate or (lambda m: {"auc": left.pop(0) if left else 0.5}),
        config,
        accelerator(config),
        folder,
        "test",
        checkpoint_seconds=0.0,
    )
    return made, history


@pytest.fixture(scope="module")
def data(synthetic: Dataset) -> Prepared:
    return prepare(synthetic.frame, synthetic.schema)


def test_it_learns_and_records(data: Prepared, tmp_path: Path) -> None:
    _, history = train(data, tmp_path)
    losses = [epoch["train"]["ctr"] for epoch in history["epochs"]]
    assert losses[2] < losses[0]
    rows = len(data.of("train"))
    assert [epoch["rows"] for epoch in history["epochs"]] == [rows] * 3
    assert history["curve"][-1]["rows"] == 3 * rows
    assert np.mean([p["ctr"] for p in history["curve"]]) == pytest.approx(np.mean(losses), rel=0.05)


def test_a_training_that_comes_apart_ends_with_a_sentence(data: Prepared, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="diverged in epoch 1: the loss 'ctr' is no longer a finite"
    ):
        train(data, tmp_path, replace(CONFIG, rate=1e6, weight_decay=1e6))


def test_looking_within_an_epoch_changes_nothing(data: Prepared, tmp_path: Path) -> None:
    looks: list[bool] = []

    def evaluate(m: nn.Module) -> dict[str, float]:
        looks.append(m.training)
        m.eval()
        torch.rand(1)
        return {"auc": 0.5 + len(looks) / 100}

    plain, _ = train(data, tmp_path / "once")
    made, history = train(
        data, tmp_path / "often", replace(CONFIG, evaluations=3), evaluate=evaluate
    )
    assert all(map(torch.equal, made.state_dict().values(), plain.state_dict().values()))
    points = [point for point in history["curve"] if "evaluation" in point]
    assert len(points) == 2 * 3 and len(looks) == 3 * 3 and all(looks)
    assert [epoch["evaluation"]["auc"] for epoch in history["epochs"]] == [0.53, 0.56, 0.59]


def test_time_before_an_interruption_counts(data: Prepared, tmp_path: Path) -> None:
    calls: list[float] = []

    def evaluate(m: nn.Module) -> dict[str, float]:
        calls.append(time.monotonic())
        if len(calls) == 1:
            time.sleep(0.5)
        elif len(calls) == 2:
            raise KeyboardInterrupt
        return {"auc": 0.5}

    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path, evaluate=evaluate)
    _, history = train(data, tmp_path, evaluate=evaluate)
    assert len(history["epochs"]) == 3 and history["seconds"] > 0.5


def test_early_stopping_keeps_the_best_weights(data: Prepared, tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=9, patience=2)
    seen: list[dict[str, torch.Tensor]] = []
    aucs = [0.6, 0.7, 0.65, 0.66, 0.9]

    def evaluate(m: nn.Module) -> dict[str, float]:
        seen.append({k: v.clone() for k, v in m.state_dict().items()})
        return {"auc": aucs[len(seen) - 1]}

    made, history = train(data, tmp_path, config, evaluate=evaluate)
    assert len(history["epochs"]) == 4
    for name, value in made.state_dict().items():
        assert torch.equal(value, seen[1][name])


def test_accumulation_equals_a_larger_batch(data: Prepared, tmp_path: Path) -> None:
    def run(config: TrainingConfig, folder: str) -> nn.Module:
        torch.manual_seed(0)
        made = CtrModel(ctr.build(ctr.CtrConfig(embedding=4, hidden=(8,)), data.features, 6))
        rows = data.of("train")[:128]
        fit(
            made,
            lambda m, batch: click_losses(m(batch[0], batch[1]), batch[2]),
            Batches(data, rows, config.batch),
            lambda m: {},
            config,
            accelerator(config),
            tmp_path / folder,
            "test",
        )
        return made

    whole = run(TrainingConfig(epochs=1, batch=128, rate=1e-3), "whole")
    halves = run(TrainingConfig(epochs=1, batch=64, rate=1e-3, accumulation=2), "halves")
    for a, b in zip(whole.parameters(), halves.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_l2_of_the_id_embeddings_is_a_term_of_the_loss(
    data: Prepared, tmp_path: Path, accumulation: int
) -> None:
    base = replace(CONFIG, accumulation=accumulation)

    def with_term(m: nn.Module, batch: tuple[Any, ...]) -> dict[str, torch.Tensor]:
        return {**click(m, batch), "l2": 0.01 * m.ctr.embedding.weight.square().sum()}

    by_term, by_option, without = (
        train(data, tmp_path / name, config, losses=losses)[0].ctr.embedding.weight
        for name, config, losses in (
            ("a", base, with_term),
            ("b", replace(base, embedding_l2=0.01), click),
            ("c", base, click),
        )
    )
    assert torch.allclose(by_term, by_option, atol=1e-5)
    assert not torch.allclose(by_term, without, atol=1e-3)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_model_learns_the_same(data: Prepared, tmp_path: Path) -> None:
    once = replace(CONFIG, epochs=1, patience=None)
    plain, compiled = (
        train(data, tmp_path / name, config, dropout=0.0)[0]
        for name, config in (("a", once), ("b", replace(once, compile=True)))
    )
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    for a, b in zip(plain.parameters(), compiled.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_cosine_falls_to_nothing_and_is_used(data: Prepared, tmp_path: Path) -> None:
    cosine = replace(CONFIG, schedule="cosine", patience=None)
    assert [rate_factor(cosine, d) for d in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 0.5, 0.0])
    assert rate_factor(replace(CONFIG, schedule="constant"), 0.9) == 1.0
    ends = [
        train(data, tmp_path / name, config)[0].ctr.embedding.weight
        for name, config in (("a", cosine), ("b", replace(cosine, schedule="constant")))
    ]
    assert not torch.allclose(*ends)


def test_the_plm_has_its_own_rate() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.head = nn.Linear(2, 2), nn.Linear(2, 1)

    found = optimiser(Two(), TrainingConfig(epochs=1, batch=1, rate=0.1, plm_rate=0.2))
    rates = {tuple(group["params"][0].shape): group["lr"] for group in found.param_groups}
    assert rates == {(1, 2): 0.1, (2, 2): 0.2}


def test_predictions_are_in_the_order_of_the_rows(data: Prepared) -> None:
    made = model(data).eval()
    rows = np.random.default_rng(0).permutation(data.of("test"))
    found = predict(made, Batches(data, rows, 7), accelerator(CONFIG))
    with torch.no_grad():
        expected = made(torch.from_numpy(data.ids(rows)), None)["ctr"].sigmoid()
    assert np.allclose(found, expected.numpy(), atol=1e-6)


def test_a_checkpoint_is_whole_or_absent(data: Prepared, tmp_path: Path) -> None:
    made = model(data)
    (tmp_path / "unfinished-1").mkdir()
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.load(made, optimiser(made, CONFIG)) is None
    train(data, tmp_path)
    kept = list(tmp_path.glob("step-*"))
    assert len(kept) == 2
    assert {p.suffix for p in kept[0].iterdir()} == {".safetensors", ".json"}


def newest(folder: Path) -> Path:
    return max(folder.glob("step-*"))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


DAMAGES = {
    "model": lambda f: cut(newest(f) / "model.safetensors"),
    "optimizer": lambda f: cut(newest(f) / "optimizer.safetensors"),
    "state": lambda f: (newest(f) / "state.json").write_text(
        (newest(f) / "state.json").read_text().replace('"step": ', '"step": 1')
    ),
    "empty": lambda f: [p.unlink() for p in newest(f).iterdir()],
    "all": lambda f: [cut(p) for p in f.glob("step-*/*.safetensors")],
    "best": lambda f: cut(f / "best" / "model.safetensors"),
    "no best": lambda f: shutil.rmtree(f / "best"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_set_aside_and_the_end_is_the_same(
    data: Prepared, tmp_path: Path, damage: str
) -> None:
    config = replace(CONFIG, patience=3)
    aucs = [0.7, 0.6, 0.65]
    calls: list[int] = []

    def evaluate(m: nn.Module) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return {"auc": 0.7}

    whole, history = train(data, tmp_path / "whole", config, aucs)
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "cut", config, evaluate=evaluate)
    DAMAGES[damage](tmp_path / "cut")
    again = damage in ("all", "best", "no best")  # from the start
    with pytest.warns(UserWarning, match=r"step-\d+-\d+ is damaged \(.*set aside"):
        made, found = train(data, tmp_path / "cut", config, aucs if again else aucs[1:])
    assert all(map(torch.equal, made.state_dict().values(), whole.state_dict().values()))
    assert [e["train"] for e in found["epochs"]] == [e["train"] for e in history["epochs"]]


def test_a_checkpoint_of_another_model_is_set_aside(data: Prepared, tmp_path: Path) -> None:
    train(data, tmp_path)
    torch.manual_seed(0)
    other = CtrModel(ctr.build(ctr.CtrConfig(embedding=4, hidden=(8,)), data.features, 6))
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.warns(UserWarning, match="size mismatch"):
        assert Checkpoint(tmp_path).load(other, optimiser(other, CONFIG)) is None
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


RUN = [sys.executable, "-m", "altlib.lab.run"]
PROFILE = str(Path(__file__).parents[1] / "tiny.yaml")


def under_way(home: Path, stage: str) -> bool:
    """Whether a stage has a checkpoint in the middle of its work."""
    aligned = bool(list(home.glob("artifacts/pretraining/[!.]*")))
    steps = [int(p.name[-7:]) for p in home.glob("artifacts/checkpoints/*/step-*")]
    return aligned == (stage == "finetuning") and max(steps, default=0) >= 2


def finetuned(home: Path) -> dict[str, Any]:
    (path,) = home.glob("artifacts/finetuning/*/results.json")
    predictions = np.load(path.with_name("predictions.npy")).tolist()
    return json.loads(path.read_text()) | {"predictions": predictions}


def test_a_killed_run_goes_on_to_the_same_metrics(tmp_path: Path, tiny_plm: str) -> None:
    """kill -9 in pretraining, then in finetuning; the end is that of an uninterrupted run."""
    results = []
    for name, kills in (("whole", False), ("killed", True)):
        home = tmp_path / name
        environment = {
            **os.environ,
            "ALTLIB_HOME": str(home),
            "ALTLIB_CHECKPOINT_SECONDS": "0",
        }
        home.mkdir()
        profile = home / "tiny.yaml"
        text = Path(PROFILE).read_text().replace("name: tiny,", f"name: {tiny_plm},")
        profile.write_text(text.replace("dropout: 0.0", "dropout: 0.1"))
        command = [*RUN, str(profile), "alt_both", "--seed", "0"]
        for stage in ("pretraining", "finetuning") if kills else ():
            process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
            limit = time.monotonic() + 600
            while not under_way(home, stage):
                assert process.poll() is None and time.monotonic() < limit, "too late to kill"
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert not list(home.glob("artifacts/finetuning/*/results.json"))
        subprocess.run(command, env=environment, check=True, stderr=subprocess.DEVNULL)
        results.append(finetuned(home))
    whole, killed = results
    assert killed["auc"] == whole["auc"] and killed["logloss"] == whole["logloss"]
    assert killed["predictions"] == whole["predictions"]
    for a, b in zip(whole["history"]["epochs"], killed["history"]["epochs"], strict=True):
        assert a["train"] == b["train"] and a["evaluation"] == b["evaluation"]


def test_a_tracker_gets_losses_and_evaluations(
    data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, float]] = []

    class Tracker(GeneralTracker):
        name, requires_logging_directory = "kept", False

        def __init__(self) -> None:
            super().__init__()

        @property
        def tracker(self) -> None:
            return None

        def store_init_configuration(self, values: dict[str, Any]) -> None:
            pass

        def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
            told.extend((f"{name} {step}", float(value)) for name, value in values.items())

    plain, history = train(data, tmp_path / "a")
    make = Accelerator

    def watched(**given: Any) -> Accelerator:
        return make(**{**given, "log_with": Tracker(), "project_dir": None})

    monkeypatch.setattr(processes, "find_spec", lambda name: True)
    monkeypatch.setattr(processes, "Accelerator", watched)
    same, again = train(data, tmp_path / "b", replace(CONFIG, tracker="tensorboard"))
    assert key(replace(CONFIG, tracker="tensorboard")) == key(CONFIG)
    assert again["curve"] == history["curve"], "a tracker changes nothing"
    last = history["curve"][-1]
    assert (f"ctr {last['rows']}", pytest.approx(last["ctr"])) in told
    assert sum(name.startswith("evaluation/auc") for name, _ in told) == CONFIG.epochs
    for one, two in zip(plain.parameters(), same.parameters(), strict=True):
        assert torch.equal(one, two)
