"""Results of runs, read as one frame and written for others."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from altlib import store
from altlib.config import TrainingConfig
from altlib.lab import keys, metrics, results, steps
from altlib.lab.steps import epoch_kept
from altlib.profile import Profile, load_profile

TINY = str(Path(__file__).parents[1] / "tiny.yaml")


@pytest.fixture
def profile(tiny_plm: str) -> Profile:
    others = dict.fromkeys(("plain_lang", "alt_lang", "plain_both", "alt_both"))
    changes = {"plm": {"name": tiny_plm}, "seeds": {"raw": [0, 1], "alt_ctr": [1], **others}}
    return load_profile(TINY, changes)


def test_the_epoch_kept_is_the_best_watched_or_the_last() -> None:
    epochs: list[dict[str, Any]] = [{"evaluation": {"auc": a}} for a in (0.6, 0.7, 0.7, 0.65)]
    for patience, kept in ((3, 2), (None, 4)):
        assert epoch_kept(epochs, TrainingConfig(4, 8, 0.1, patience=patience)) == kept


def test_a_run_is_a_row_with_its_predictions_and_the_cost_of_its_pretraining(
    profile: Profile,
) -> None:
    for variant, seed in (("raw", 0), ("alt_ctr", 1)):
        steps.finetune(profile.run(variant, seed))
    planned = {"losses": {"all": [profile.run(v, s) for v, s in (("alt_ctr", 1), ("raw", 0))]}}
    found, missing = results.read(planned)
    assert missing == [] and found["variant"].tolist() == ["alt_ctr", "raw"]
    assert set(found["study"]) == {"losses"} and set(found["setting"]) == {"all"}
    data = steps.prepare(profile.data)
    for _, run in found.iterrows():
        assert (run["test"].labels == data.labels[data.of("test")]).all()
        assert run["auc"] == metrics.auc(run["test"].labels, run["predictions"])
        assert run["epochs"] >= run["epoch_kept"] >= 1 and run["train_rows"] == 1200
    assert found["pretraining_rows"].tolist() == [1200, 0]
    assert found["plm"][0] == profile.plm.name and pd.isna(found["plm"][1])
    assert found["model"].tolist() == ["ALT, DCNv2", "DCNv2"]


def test_what_is_not_there_is_named_with_the_reason(profile: Profile) -> None:
    steps.finetune(profile.run("raw", 0))
    why = {"status": "failed", "reason": "OSError: no room is left."}
    store.note_failure(keys.folder(profile.run("alt_ctr", 1)), why)
    found, missing = results.of_profile(profile)
    assert len(found) == 1 and found["rela_impr"].tolist() == [0.0]
    assert missing == ["raw, seed 1", "alt_ctr, seed 1 (OSError: no room is left)"]
    _, missing = results.read({"losses": {"all": [profile.run("raw", 1)]}})
    assert missing == ["losses, all: raw, seed 1"]
    assert not len(results.read({})[0])


def test_damaged_predictions_are_named(profile: Profile) -> None:
    steps.finetune(profile.run("raw", 0))
    file = keys.folder(profile.run("raw", 0)) / "predictions.npy"
    file.write_bytes(file.read_bytes()[:-1])
    assert "is damaged (predictions.npy has" in results.of_profile(profile)[1][0]


def test_predictions_of_other_rows_than_todays_are_named(profile: Profile) -> None:
    """As if the code that splits the rows had changed since the run."""
    run = profile.run("raw", 0)
    steps.finetune(run)
    place, predicted = keys.folder(run), results.predictions(run)
    result = (place / "results.json").read_text()
    for other in (predicted[:-1], predicted[::-1]):
        with store.made(place) as folder:
            (folder / "results.json").write_text(result)
            np.save(folder / "predictions.npy", other)
        found, missing = results.of_profile(profile)
        assert not len(found) and "do not belong to the test rows" in missing[0]


def test_runs_are_written_without_what_may_not_be_passed_on(
    profile: Profile, tmp_path: Path
) -> None:
    steps.finetune(profile.run("raw", 0))
    found = pd.concat(
        [
            results.of_profile(profile)[0],
            results.read({"losses": {"MLM + MTM": [profile.run("raw", 0)]}})[0],
        ],
        ignore_index=True,
    )
    report = tmp_path / "report"
    (report / "results").mkdir(parents=True)
    (report / "results" / "of before.json").touch()
    flat = results.write(found, profile, report)
    assert list(flat) == results.COLUMNS == list(pd.read_csv(report / "results.csv"))
    kept = {path.name: json.loads(path.read_text()) for path in (report / "results").iterdir()}
    assert set(kept) == {"raw-0.json", "losses-MLM_MTM-raw-0.json"}
    assert not any({"test", "labels", "rows"} & set(content) for content in kept.values())
    predicted = np.load(report / "predictions.npz")
    assert list(predicted) == ["raw-0"]
    assert predicted["raw-0"] == pytest.approx(found["predictions"][0], rel=1e-6)
