"""`python -m altlib.plan PROFILE`: what a profile would still run, and roughly how long.

Times are those of like runs in reports/*/results.csv, by row of training: of this machine, or of
the ones that made the committed reports; with a GPU those made on one, and without it the others.
What no report knows the like of has no estimate.
"""

import argparse
import sys
from warnings import warn

import pandas as pd
import torch

from altlib import fetch, runs
from altlib.runs import VARIANTS, Finetuning, Pretraining

NOTEBOOKS = {"ctr": "04_finetune_ctr", "lang": "05_finetune_lang", "both": "06_finetune_both"}


def known() -> pd.DataFrame:
    """Seconds by row of finetuning and of pretraining, of every run in reports/."""
    numbers = ["seconds", "train_rows", "pretraining_seconds", "pretraining_rows"]
    columns = ["variant", "backbone", "plm", "machine", "pretraining_machine", *numbers]
    parts = [pd.DataFrame(columns=columns)]
    for path in sorted(runs.home().glob("reports/*/results.csv")):
        try:
            parts.append(pd.read_csv(path).reindex(columns=columns))
        except ValueError as error:
            told = f"{path} is damaged ({error}) and left out; notebook 14_report makes it anew."
            warn(told, stacklevel=2)
    table = pd.concat(parts)
    table[numbers] = table[numbers].apply(pd.to_numeric, errors="coerce")

    def like_here(machines: pd.Series) -> pd.Series:
        on_gpu = machines.astype(str).str.contains(" × ", na=False)  # as `runs.machine` has it
        return on_gpu == torch.cuda.is_available()

    finetuning = table["seconds"] / table["train_rows"]
    table["finetuning"] = finetuning.where(like_here(table["machine"]))
    pretraining = table["pretraining_seconds"] / table["pretraining_rows"]
    table["pretraining"] = pretraining.where(like_here(table["pretraining_machine"]))
    return table


def seconds_a_row(table: pd.DataFrame, what: str, **like: str | None) -> float:
    """The median over the runs most like this one; NaN if there are none.

    Args:
        table: from `known`.
        what: "finetuning" or "pretraining".
        like: columns and their values; the first may differ where no run has it.
    """
    for skipped in (0, 1):
        of = table[table[what].notna()]
        for column, value in list(like.items())[skipped:]:
            of = of[of[column] == value] if value else of[of[column].isna()]
        if len(of):
            return float(of[what].median())
    return float("nan")


def pretraining_seconds(config: Pretraining, table: pd.DataFrame) -> float:
    """About how long a pretraining takes."""
    rows = len(runs.prepare(config.data).of("train")) * config.training.epochs
    rate = seconds_a_row(table, "pretraining", backbone=config.ctr.backbone, plm=config.plm.name)
    return rows * rate


def finetuning_seconds(config: Finetuning, table: pd.DataFrame) -> float:
    """About how long a finetuning takes, with as many epochs as others took."""
    plm = config.plm.name if config.plm else None
    like: dict[str, str | None] = {"backbone": config.ctr.backbone if config.ctr else None}
    if plm:
        like["plm"] = plm
    names = [name for name in VARIANTS if VARIANTS[name][0] == VARIANTS[config.variant][0]]
    of = table[table["variant"].isin(names)]
    return len(runs.prepare(config.data).of("train")) * seconds_a_row(of, "finetuning", **like)


def plan(name: str) -> pd.DataFrame:
    """For each notebook of a profile its runs, how many are to do, and the minutes they take.

    A run that several notebooks name is counted at the first.
    """
    profile = runs.load_profile(name)
    named: dict[str, list[Finetuning]] = {}
    for run in profile.runs():
        named.setdefault(NOTEBOOKS.get(VARIANTS[run.variant][0], "14_report"), []).append(run)
    for notebook in profile.studies:
        settings = runs.study_runs(name, notebook).values()
        named[notebook] = [run for several in settings for of in several.values() for run in of]
    table, done, lacking = known(), set[str](), set[tuple[str, str]]()
    artefacts = runs.home() / "artifacts"

    def new(kind: str, key: str) -> bool:
        """Whether an artefact is still to be made and not yet counted."""
        seen = f"{kind}/{key}" in done
        done.add(f"{kind}/{key}")
        return not seen and not (artefacts / kind / key).exists()

    def line(notebook: str, of: list[Finetuning]) -> dict[str, object]:
        pretrainings, finetunings, absent = [], [], 0
        for run in of:
            model = run.plm or (run.pretraining.plm if run.pretraining else None)
            needed = (run.data.dataset, model.name if model else "")
            if needed in lacking:  # asked for once
                absent += 1
                continue
            try:
                if new("finetuning", runs.finetuning_key(run)):
                    finetunings.append(finetuning_seconds(run, table))
                if run.pretraining and new("pretraining", runs.pretraining_key(run.pretraining)):
                    pretrainings.append(pretraining_seconds(run.pretraining, table))
            except (ValueError, FileNotFoundError) as error:  # it will be named as missing
                if isinstance(error, fetch.Unavailable):
                    lacking.add(needed)
                absent += 1
        times = pd.Series(pretrainings + finetunings, dtype=float)
        return {
            "notebook": notebook,
            "runs": len(of),
            "pretrainings to do": len(pretrainings),
            "finetunings to do": len(finetunings),
            "minutes": times.sum() / 60,
            "without estimate": int(times.isna().sum()),
            "unavailable": absent,
        }

    return pd.DataFrame([line(notebook, of) for notebook, of in named.items()])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m altlib.plan", description=__doc__)
    parser.add_argument("profile", help="a name from config/ or a YAML file")
    parser.add_argument("--check", action="store_true", help="only look for faults in the profile")
    words = parser.parse_args()
    try:
        if words.check:
            for notebook in runs.load_profile(words.profile).studies:
                runs.study_runs(words.profile, notebook)
            return
        table = plan(words.profile)
    except (ValueError, OSError) as error:
        sys.exit(f"altlib: {error}")
    minutes, unknown = table["minutes"].sum(), table["without estimate"].sum()
    table["minutes"] = table["minutes"].round().astype(int)
    print(table.to_markdown(index=False))
    print(f"About {minutes:,.0f} minutes of training in all", end="")
    print(f", and {unknown} runs without a comparable past run." if unknown else ".")


if __name__ == "__main__":
    main()
