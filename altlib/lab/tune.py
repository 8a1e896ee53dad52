"""`./run_all.sh PROFILE --tune`: chooses the settings of the rows of a profile's tables.

Optuna draws the trials of a row (tree-structured Parzen estimator: Bergstra et al., 2011) and stops
those whose AUC lags behind. A trial is a run with a key like any other, so that one that is there
is not trained again. Optuna's storage, artifacts/tuning/PROFILE.log, says how far each row is.

    python -m altlib.lab.tune quick    # writes what was chosen, after the trials
"""

import argparse
import sys
import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import optuna
import pandas as pd
import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from altlib import store
from altlib.data import fetch
from altlib.lab import keys, stamps, steps
from altlib.lab.search import Search, chosen, searches
from altlib.profile import Range, find, load_profile
from altlib.profile import chosen as chosen_file

optuna.logging.set_verbosity(optuna.logging.WARNING)
RANDOM = 4
"""Trials of a row before what was found guides the next, and before any is stopped."""
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


def study_of(search: Search) -> optuna.Study:
    """The trials of a row so far.

    Raises:
        ValueError: they are those of another search.
    """
    file = store.home() / "artifacts" / "tuning" / f"{find(search.profile).stem}.log"
    file.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(file))),
        study_name=search.name,
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=RANDOM, n_warmup_steps=2),
        load_if_exists=True,
    )
    asked = study.user_attrs.get("search")
    if asked is None:
        study.set_user_attr("search", search.key())
    elif asked != search.key():
        raise ValueError(
            f"{file} holds trials of '{search.name}' from another search space or profile. Rename "
            "the file to search anew; trials that are the same in both are not trained again."
        )
    return study


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count: not those that were interrupted, which are tried again."""
    return [t for t in study.trials if t.state in ENDED or "failed" in t.user_attrs]


def best(search: Search) -> dict[str, Any] | None:
    """The values of the best trial of a row, by path; None where no trial has come to its end."""
    study = study_of(search)
    complete = [t for t in ended(study) if t.state == TrialState.COMPLETE]
    return rounded(max(complete, key=lambda t: t.value or 0).params) if complete else None


def rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values with three digits, as people write them."""
    return {
        name: float(f"{value:.3g}") if isinstance(value, float) else value
        for name, value in values.items()
    }


def tune(search: Search) -> None:
    """Does the trials of a row that are still to do.

    A trial that fails is named and counts; the others go on.

    Raises:
        Unavailable: no source has the data or the weights.
        ValueError: the storage holds another search, or ALT_ctr has no chosen pretraining yet.
    """
    study = study_of(search)
    for stopped in study.get_trials(states=(TrialState.RUNNING,)):
        study.enqueue_trial(stopped.params)
        study.tell(stopped.number, state=TrialState.FAIL)
    if not study.trials:
        study.enqueue_trial(dict(search.first))
    aligned = None
    if search.follows:
        aligned = best(next(one for one in searches(search.profile) if one.name == "alt_ctr"))
        if aligned is None:
            raise ValueError(f"'{search.name}' starts from ALT_ctr, of which no trial has ended.")
    space = {name: distribution(of) for name, of in search.space.items()}
    while (number := len(ended(study))) < search.trials:
        study.sampler = optuna.samplers.TPESampler(n_startup_trials=RANDOM, seed=number)
        trial = study.ask(space)
        values = rounded(trial.params)
        run = search.run(values, aligned)
        trial.set_user_attr("key", keys.finetuning_key(run))
        try:
            result = steps.trial(run, partial(hopeless, trial))
        except fetch.Unavailable:
            study.tell(trial, state=TrialState.FAIL)
            study.enqueue_trial(trial.params)
            raise
        except Exception as error:
            why = f"{type(error).__name__}: {' '.join(str(error).split())}"
            print(f"{search.name}, trial {trial.number} failed: {why}", file=sys.stderr)
            trial.set_user_attr("failed", why)
            study.tell(trial, state=TrialState.FAIL)
            continue
        top = max(result["epochs"], key=lambda epoch: epoch["auc"])
        for name in ("epochs", "seconds"):
            value = result[name]
            trial.set_user_attr(name, len(value) if name == "epochs" else round(value, 1))
        trial.set_user_attr("logloss", top["logloss"])
        if result["hopeless"]:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, top["auc"])
        print(f"{search.name}, trial {trial.number}: AUC {top['auc']:.4f}", file=sys.stderr)


def hopeless(trial: Trial, aucs: list[float]) -> bool:
    """Whether the AUCs of a trial lag behind those of the others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one that was interrupted tells its first epochs again
        for epoch, auc in enumerate(aucs, 1):
            trial.report(auc, epoch)
    return bool(trial.should_prune())


def distribution(of: Range | list[Any]) -> BaseDistribution:
    """An entry's values for Optuna."""
    if isinstance(of, Range):
        return FloatDistribution(of.low, of.high, log=of.log)
    return CategoricalDistribution(of)


def trials(found: list[Search]) -> pd.DataFrame:
    """Every trial of the rows: how it ended, the best AUC of its epochs, and its values."""
    lines = []
    for search in found:
        top = best(search)
        for trial in ended(study_of(search)):
            values = rounded(trial.params)
            lines.append(
                {
                    "row": search.name,
                    "trial": trial.number,
                    "state": trial.state.name.lower(),
                    "validation AUC": max(trial.intermediate_values.values(), default=None),
                    "Logloss": trial.user_attrs.get("logloss"),
                    "epochs": trial.user_attrs.get("epochs"),
                    "seconds": trial.user_attrs.get("seconds"),
                    "chosen": "●" if values == top and trial.value is not None else "",
                    **values,
                    "key": trial.user_attrs["key"],
                    "why it failed": trial.user_attrs.get("failed", ""),
                }
            )
    return pd.DataFrame(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m altlib.lab.tune", description=__doc__)
    parser.add_argument("profile", help="a name from config/ or a YAML file")
    name = parser.parse_args().profile
    try:
        found = searches(name)
        pairs = [(search, best(search)) for search in found]
        file = chosen_file(find(name))
        stem = find(name).stem
        head = (
            f"# Written by ./run_all.sh {stem} --tune: the best trial of each row by the AUC of\n"
            f"# the validation split; reports/{stem}/tables/trials.csv has all.\n"
        )
        whole = chosen([(search, values) for search, values in pairs if values])
        text = yaml.safe_dump(whole, sort_keys=False, width=100, default_flow_style=None)
        file.parent.mkdir(exist_ok=True)
        store.write_text(file, head + text)
        table = stamps.report_folder(load_profile(name)) / "tables" / "trials.csv"
        store.write_text(table, trials(found).to_csv(index=False))
    except (ValueError, OSError) as error:
        sys.exit(f"altlib: {error}")
    for search, values in pairs:
        print(f"{search.name}: {values or 'no trial has ended; the profile stays as it is'}")
    print(f"What was chosen stands in {file}, and the trials in {table}.")


if __name__ == "__main__":
    main()
