"""`./run_all.sh PROFILE --tune`: chooses the settings of the rows of a profile's tables.

Optuna draws the trials of a row (tree-structured Parzen estimator: Bergstra et al., 2011) and stops
those whose AUC lags behind. A trial is a run with a key like any other, so that one that is there
is not trained again. Optuna's storage, artifacts/tuning/PROFILE.log, says how far each row is; a
clone that has none yet begins with the trials of the profile's report.

    python -m altlib.lab.tune quick    # writes the trials and, once all have ended, what was chosen
"""

import argparse
import json
import os
import sys
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from altlib import store
from altlib.config import key
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

    Those of another search space or profile, or from another pretraining of ALT_ctr, are a study of
    their own: trials that are the same in both are not trained again.

    Raises:
        ValueError: the storage is damaged.
    """
    file = store.home() / "artifacts" / "tuning" / f"{find(search.profile).stem}.log"
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(file))),
            study_name=f"{search.name} [{searched(search)}]",
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(RANDOM, n_warmup_steps=first_stop(search)),
            load_if_exists=True,
        )
        if not study.trials:
            study.add_trials(of_report(search))
        return study
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{file} is damaged ({error}). Remove it and tune again: trials that are done are "
            "found, not trained."
        ) from None


def searched(search: Search) -> str:
    """A key of what the trials of a row try, and of the pretraining that they start from."""
    return key(search.key(), leading(search))


def first_stop(search: Search) -> int:
    """The first epoch after which a trial may be stopped: when half of its budget is over, since
    strong regularisation is slow at first. On MovieLens-100K, DCN with L2 of 3.7e-4 lay behind the
    median of its row for five epochs, and had the best AUC of all after nine."""
    return max(2, search.run(search.first).training.epochs // 2 + 1)


def of_report(search: Search) -> list[FrozenTrial]:
    """The trials of a row that the profile's report has, without those that failed."""
    file = table_of(search.profile)
    if not file.exists():
        return []
    same = searched(search)
    try:
        lines = pd.read_csv(file, dtype=str, keep_default_na=False).to_dict("records")
        return [
            trial_of(search, line)
            for line in lines
            if line["search"] == same and TrialState[line["state"].upper()] in ENDED
        ]
    except (KeyError, ValueError) as error:  # a parser's error is a ValueError
        warnings.warn(f"{file} is damaged ({error}) and not read.", stacklevel=2)
        return []


def trial_of(search: Search, line: Mapping[Any, str]) -> FrozenTrial:
    """A trial from its line of the table that `trials` makes."""
    values = {
        name: min(max(float(line[name]), of.low), of.high)  # rounding may have gone beyond
        if isinstance(of, Range)
        else {str(one): one for one in of}[line[name]]
        for name, of in search.space.items()
    }
    state = TrialState[line["state"].upper()]
    aucs = [float(auc) for auc in line["after each epoch"].split()]
    return optuna.trial.create_trial(
        state=state,
        value=float(line["validation AUC"]) if state == TrialState.COMPLETE else None,
        params=values,
        distributions={name: distribution(of) for name, of in search.space.items()},
        intermediate_values=dict(enumerate(aucs, 1)),
        user_attrs={
            "key": line["key"],
            "epochs": int(line["epochs"]),
            "seconds": float(line["seconds"]),
            "logloss": float(line["Logloss"]),
        },
    )


def table_of(profile: str) -> Path:
    """Where the trials of a profile stand."""
    return stamps.report_folder(load_profile(profile)) / "tables" / "trials.csv"


def leading(search: Search) -> dict[str, Any] | None:
    """What was chosen for ALT_ctr, where a row starts from it; None for others.

    Raises:
        ValueError: the trials of ALT_ctr have not all ended.
    """
    if search.leader is None:
        return None
    found = best(search.leader)
    if found is None or not finished(search.leader):
        raise ValueError(f"'{search.name}' starts from ALT_ctr, whose trials have not all ended.")
    return found


def finished(search: Search | None) -> bool:
    """Whether all trials of a row have ended; True for None."""
    return search is None or len(ended(study_of(search))) >= search.trials


def ended(study: optuna.Study, call: str | None = None) -> list[FrozenTrial]:
    """The trials that count: not those that were interrupted, which are tried again.

    Args:
        study: of a row.
        call: of ./run_all.sh: trials that failed in another one do not count, so that they are
            tried again; all that failed count for None.
    """
    return [
        trial
        for trial in study.trials
        if trial.state in ENDED
        or ("failed" in trial.user_attrs and call in (None, trial.user_attrs["call"]))
    ]


def best(search: Search) -> dict[str, Any] | None:
    """The values of the best trial of a row, by path; None where no trial has come to its end."""
    complete = [t for t in study_of(search).trials if t.state == TrialState.COMPLETE]
    return rounded(max(complete, key=lambda t: t.value or 0).params) if complete else None


def rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values with three digits, as people write them."""
    return {
        name: float(f"{value:.3g}") if isinstance(value, float) else value
        for name, value in values.items()
    }


def tune(search: Search) -> None:
    """Does the trials of a row that are still to do.

    A trial that fails is named, and the others go on.

    Raises:
        Unavailable: no source has the data or the weights.
        ValueError: the storage is damaged, or ALT_ctr has no chosen pretraining yet.
        Failed: a trial has failed; the next call of ./run_all.sh tries it again.
    """
    study, aligned = study_of(search), leading(search)
    call = os.environ.get(steps.CALL, "")
    if not study.trials:
        study.enqueue_trial(dict(search.first))
    for stopped in study.get_trials(states=(TrialState.RUNNING,)):
        again = {**stopped.system_attrs.get("fixed_params", {}), **stopped.params}
        study.enqueue_trial(again)
        study.tell(stopped.number, state=TrialState.FAIL)
    space = {name: distribution(of) for name, of in search.space.items()}
    while (number := len(ended(study, call))) < search.trials:
        study.sampler = optuna.samplers.TPESampler(n_startup_trials=RANDOM, seed=number)
        trial = study.ask(space)
        try:
            attempt(search, study, trial, aligned)
        except fetch.Unavailable as error:
            study.set_user_attr("absent", str(error))
            study.enqueue_trial(trial.params)
            study.tell(trial, state=TrialState.FAIL)
            raise
        except Exception as error:
            why = f"{type(error).__name__}: {' '.join(str(error).split())}"
            print(f"{search.name}, trial {trial.number} failed: {why}", file=sys.stderr)
            trial.set_user_attr("call", call)
            trial.set_user_attr("failed", why)
            study.tell(trial, state=TrialState.FAIL)
    if failed := [t for t in study.trials if t.user_attrs.get("call") == call]:
        raise steps.Failed(
            f"{len(failed)} of the trials of '{search.name}' failed, as named above."
        )


def attempt(
    search: Search, study: optuna.Study, trial: Trial, aligned: Mapping[str, Any] | None
) -> None:
    """Does a trial and notes how it ended."""
    run = search.run(rounded(trial.params), aligned)
    trial.set_user_attr("key", keys.finetuning_key(run))
    result = steps.trial(run, partial(hopeless, trial))
    epochs = result["epochs"]
    hopeless(trial, [epoch["auc"] for epoch in epochs])  # of a trial that was found
    kept = epochs[steps.epoch_kept([{"evaluation": e} for e in epochs], run.training) - 1]
    trial.set_user_attr("epochs", len(epochs))
    trial.set_user_attr("seconds", round(result["seconds"], 1))
    trial.set_user_attr("logloss", kept["logloss"])
    if result["hopeless"]:
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, kept["auc"])
    print(f"{search.name}, trial {trial.number}: AUC {kept['auc']:.4f}", file=sys.stderr)


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
    """Every trial of the rows: how it ended, its AUC (the best so far, if stopped), its values."""
    lines = []
    for search in found:
        same, top = searched(search), best(search)
        for trial in ended(study_of(search)):
            values = rounded(trial.params)
            aucs = [round(auc, 6) for _, auc in sorted(trial.intermediate_values.items())]
            complete = trial.state == TrialState.COMPLETE  # of others Optuna keeps the last AUC
            auc = round(trial.value or 0, 6) if complete else max(aucs, default=None)
            lines.append(
                {
                    "row": search.name,
                    "search": same,
                    "trial": trial.number,
                    "state": trial.state.name.lower(),
                    "validation AUC": auc,
                    "Logloss": trial.user_attrs.get("logloss"),
                    "epochs": trial.user_attrs.get("epochs"),
                    "seconds": trial.user_attrs.get("seconds"),
                    "chosen": "●" if values == top and complete else "",
                    **values,
                    "after each epoch": " ".join(map(str, aucs)),
                    "key": trial.user_attrs.get("key", ""),
                    "why it failed": trial.user_attrs.get("failed", ""),
                }
            )
    return pd.DataFrame(lines, dtype=object)  # whole numbers stay whole where others have none


def write(profile: str) -> str:
    """Writes every trial and what was chosen; returns what there is to say of it.

    Raises:
        ValueError: the trials of a row have not all ended; only the trials are written.
    """
    found, path = searches(profile), find(profile)
    begun = [search for search in found if finished(search.leader)]
    store.write_text(table := table_of(profile), trials(begun).to_csv(index=False))
    absent = {}
    for search in found:
        study = study_of(search)
        if (why := study.user_attrs.get("absent")) and not ended(study):
            absent[search.name] = why
        elif not finished(search):
            raise ValueError(
                f"{len(ended(study))} of {search.trials} trials of '{search.name}' have ended: run "
                f"./run_all.sh {path.stem} --tune again."
            )
    there = [search for search in found if search.name not in absent]
    choices = {search.name: best(search) for search in there}
    for name, values in choices.items():
        if values is None:
            raise ValueError(f"Every trial of '{name}' failed or was stopped; none can be chosen.")
    head = (
        f"# Written by ./run_all.sh {path.stem} --tune: the best trial of each row by AUC on the\n"
        f"# validation split; reports/{path.stem}/tables/trials.csv lists all trials.\n"
    )
    choice = chosen([(search, choices[search.name] or {}) for search in there])
    text = yaml.safe_dump(choice, sort_keys=False, width=100, default_flow_style=None)
    store.write_text(chosen_file(path), head + text)
    said = [f"{name}: {values}" for name, values in choices.items()]
    said += [f"{name}: not tuned ({why})" for name, why in absent.items()]
    return "\n".join([*said, f"Chosen settings: {chosen_file(path)}. All trials: {table}."])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m altlib.lab.tune", description=__doc__)
    parser.add_argument("profile", help="a name from config/ or a YAML file")
    try:
        print(write(parser.parse_args().profile))
    except (ValueError, OSError) as error:
        sys.exit(f"altlib: {error}")


if __name__ == "__main__":
    main()
