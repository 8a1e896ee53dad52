"""Trials: resumed where they stopped, named where they fail, and blind to the test split."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
import yaml
from test_search import TUNING, named, write

from altlib import profile, store
from altlib.data import fetch
from altlib.data.tabular import Prepared
from altlib.lab import keys, steps, tune
from altlib.lab.search import Search

ROWS = {
    "studies": [],
    "space": {
        "ctr.dropout": [0.0, 0.2],
        "finetuning.ctr.rate": TUNING["space"]["finetuning.ctr.rate"],
    },
}
ID_MODELS = {
    "seeds": {
        name: None for name in ("plain_lang", "alt_lang", "plain_both", "alt_both", "alt_ctr")
    }
}


def row(folder: Path, trials: int = 3, **changes: Any) -> Search:
    """The row of the raw model in a profile that tunes nothing else."""
    content = {"tuning": {"trials": trials, **ROWS}, **ID_MODELS, **changes}
    (folder / "tiny.yaml").write_text((Path(__file__).parents[1] / "tiny.yaml").read_text())
    (folder / "mine.yaml").write_text(yaml.safe_dump({"extends": "tiny.yaml", **content}))
    return named(str(folder / "mine.yaml"))["raw"]


def values(search: Search) -> list[tuple[str, Any, dict[str, Any]]]:
    return [(t.state.name, t.value, t.params) for t in tune.ended(tune.study_of(search))]


def test_trials_begin_with_the_profile_and_go_on_where_they_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune.tune(row(tmp_path, trials=6))
    whole = values(row(tmp_path, trials=6))
    assert len(whole) == 6 and whole[0][2] == {"ctr.dropout": 0.0, "finetuning.ctr.rate": 1e-3}
    assert len({str(params) for *_, params in whole}) == 6
    monkeypatch.setenv("ALTLIB_HOME", str(tmp_path / "other"))
    tune.tune(row(tmp_path, trials=2))
    study = tune.study_of(row(tmp_path, trials=6))
    study.sampler = optuna.samplers.TPESampler(seed=2, n_startup_trials=tune.RANDOM)
    space = {name: tune.distribution(of) for name, of in row(tmp_path).space.items()}
    stopped = study.ask(space)  # as of a process that was killed
    tune.tune(row(tmp_path, trials=6))
    again = values(row(tmp_path, trials=6))
    assert [params for *_, params in again] == [params for *_, params in whole]
    assert [value for _, value, _ in again] == pytest.approx([value for _, value, _ in whole])
    assert study.trials[stopped.number].state.name == "FAIL"
    tune.tune(row(tmp_path, trials=6))
    assert values(row(tmp_path, trials=6)) == again, "nothing is left to do"


def test_a_trial_is_a_run_and_sees_no_test_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    of = Prepared.of

    def watched(self: Prepared, split: str) -> np.ndarray:
        asked.append(split)
        return of(self, split)

    search = row(tmp_path, trials=1)
    steps.prepare(search.run(search.first).data)  # which counts the rows of every split
    monkeypatch.setattr(Prepared, "of", watched)
    tune.tune(search)
    assert set(asked) == {"train", "validation"}
    run = search.run(search.first)
    (trial,) = tune.ended(tune.study_of(search))
    assert trial.user_attrs["key"] == keys.finetuning_key(run) == keys.folder(run).name
    assert trial.value == pytest.approx(steps.finetune(run)["watched"]["auc"])


def test_a_trial_that_fails_is_named_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train = steps.train

    def sometimes(config: Any, *rest: Any, **more: Any) -> Any:
        if config.training.rate == 1e-3:
            raise ValueError("The training diverged.")
        return train(config, *rest, **more)

    search = row(tmp_path)
    monkeypatch.setenv(steps.CALL, "one")
    with monkeypatch.context() as patch:
        patch.setattr(steps, "train", sometimes)
        with pytest.raises(steps.Failed, match="1 of the trials of 'raw' failed"):
            tune.tune(search)
    assert "raw, trial 0 failed: ValueError: The training diverged." in capsys.readouterr().err
    found = tune.trials([search])
    assert list(found["state"]) == ["fail", "complete", "complete"]
    assert "diverged" in found["why it failed"][0]
    assert tune.best(search) != search.first
    monkeypatch.setenv(steps.CALL, "another")
    tune.tune(search)
    assert [state for state, *_ in values(search)] == ["FAIL"] + ["COMPLETE"] * 3


@pytest.mark.parametrize(
    ("last", "state", "epochs"),
    [([0.7, 0.6, 0.6, 0.6, 0.6, 0.6], "pruned", 4), ([0.6] * 2 + [0.9] * 4, "complete", 6)],
)
def test_a_trial_that_lags_behind_is_stopped_after_half_of_its_epochs(
    last: list[float], state: str, epochs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aucs = iter([0.8] * 6 * 5 + last)
    monkeypatch.setattr(steps, "scores", lambda *_: {"auc": next(aucs), "logloss": 0.5})
    search = row(tmp_path, trials=6, finetuning={"ctr": {"epochs": 6, "patience": 5}})
    tune.tune(search)
    found = tune.trials([search])
    assert list(found["state"]) == ["complete"] * 5 + [state]
    assert list(found["epochs"]) == [6] * 5 + [epochs]
    assert found["chosen"].iloc[-1] == ("●" if state == "complete" else "")
    assert found["validation AUC"].iloc[-1] == max(last), "the best so far"


def test_missing_weights_end_a_row_and_are_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = row(tmp_path, trials=1)

    def gone(*_: Any) -> None:
        raise fetch.Unavailable("no source has them")

    with monkeypatch.context() as patch:
        patch.setattr(steps, "trial", gone)
        with pytest.raises(fetch.Unavailable):
            tune.tune(search)
    assert tune.best(search) is None
    tune.tune(search)
    assert tune.best(search) == search.first


def test_another_search_has_trials_of_its_own(tmp_path: Path) -> None:
    tune.tune(row(tmp_path, trials=2))
    other = row(tmp_path, trials=2, finetuning={"ctr": {"batch": 128}})
    assert values(other) == []
    tune.tune(other)
    assert len(values(other)) == len(values(row(tmp_path))) == 2


def test_a_damaged_storage_is_named(tmp_path: Path) -> None:
    search = row(tmp_path, trials=1)
    tune.tune(search)
    log = store.home() / "artifacts" / "tuning" / "mine.log"
    log.write_bytes(log.read_bytes() + b'{"op_code": 4, "wor\n')
    with pytest.raises(ValueError, match=r"mine.log is damaged .* Remove it and tune again"):
        tune.study_of(search)


def test_nothing_is_chosen_before_every_trial_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune.tune(row(tmp_path, trials=1))
    row(tmp_path, trials=3)
    with pytest.raises(
        ValueError, match=r"1 of 3 trials of 'raw' have ended: run ./run_all.sh mine"
    ):
        tune.write(str(tmp_path / "mine.yaml"))
    assert not (tmp_path / "tuned").exists()


def test_a_trial_that_was_killed_at_its_end_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint behind the last epoch is there, and trial.json is not."""
    monkeypatch.setenv("ALTLIB_CHECKPOINT_SECONDS", "0")
    search = row(tmp_path, trials=1)
    run, written = search.run(search.first), steps.write_json

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(steps, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            steps.trial(run, lambda aucs: False)
    assert steps.write_json is written
    asked: list[int] = []
    again = steps.trial(run, lambda aucs: bool(asked.append(len(aucs))))
    assert again["hopeless"] is False and asked == [len(again["epochs"])]


def test_a_row_that_follows_waits_for_alt_ctr(tmp_path: Path) -> None:
    search = named(write(tmp_path))["alt_both"]
    with pytest.raises(
        ValueError, match="'alt_both' starts from ALT_ctr, whose trials have not all"
    ):
        tune.tune(search)


def test_what_is_chosen_is_written_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    search = row(tmp_path)
    tune.tune(search)
    name = str(tmp_path / "mine.yaml")
    monkeypatch.setattr(sys, "argv", ["tune", name])
    tune.main()
    assert f"raw: {tune.best(search)}" in capsys.readouterr().out
    assert profile.load_profile(name).run("raw", 0) == search.run(tune.best(search) or {})
    table = pd.read_csv(store.home() / "reports" / "mine" / "tables" / "trials.csv")
    assert list(table["row"]) == ["raw"] * 3 and table["chosen"].notna().sum() == 1
    best = table.loc[table["chosen"].notna(), "validation AUC"].item()
    assert best == table["validation AUC"].max()


def test_a_clone_goes_on_from_the_trials_of_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune.tune(search := row(tmp_path))
    tune.write(str(tmp_path / "mine.yaml"))
    before, best = values(search), tune.best(search)
    table = Path("reports/mine/tables/trials.csv")
    text = (store.home() / table).read_text()
    for home, content, known in (
        ("same", text, 3),
        ("other space", text.replace(tune.study_of(search).study_name[-13:-1], "0" * 12), 0),
        ("damaged", text.replace("complete", "finished"), 0),
    ):
        monkeypatch.setenv("ALTLIB_HOME", str(tmp_path / home))
        store.write_text(store.home() / table, content)
        with nullcontext() if home != "damaged" else pytest.warns(match="is damaged"):
            study = tune.study_of(search)
        assert len(study.trials) == known, home
    monkeypatch.setenv("ALTLIB_HOME", str(tmp_path / "same"))
    assert tune.best(search) == best
    assert [params for *_, params in values(search)] == [
        pytest.approx(params, rel=5e-3) for *_, params in before
    ]
    tune.tune(search)
    assert not (store.home() / "artifacts" / "trials").exists(), "nothing is trained again"
    tune.tune(row(tmp_path, trials=4))
    assert len(values(row(tmp_path, trials=4))) == 4
