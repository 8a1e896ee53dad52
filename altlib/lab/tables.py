"""Tables of data and results: means over seeds, and paired differences with their intervals.

Runs come as a frame of `results`, a row a run.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from altlib.config import VARIANTS
from altlib.lab import metrics
from altlib.lab.results import Split
from altlib.profile import Profile, Study


def difference(
    runs: pd.DataFrame, base: pd.DataFrame | None, metric: str = "auc"
) -> dict[str, Any]:
    """The columns that compare runs with others of the same seeds and test rows; empty without.

    Intervals cover users, with all their test rows, and pretrainings with the seeds that start from
    them. Rows of a single user allow none.
    """
    nothing = dict.fromkeys(("difference", "low", "high", "p"), np.nan) | {"seeds improved": ""}
    if base is None:
        return nothing
    pairs = paired(runs, base)
    if not len(pairs) or pairs[["data_x", "data_y"]].stack().nunique() > 1:
        return nothing
    test: Split = pairs["test_x"].iloc[0]
    if len(np.unique(test.users)) < 2:
        return nothing
    ours, theirs = (np.stack(pairs[f"predictions_{side}"].tolist()) for side in "xy")
    seeds = pairs[["pretraining_seed_x", "pretraining_seed_y"]].astype("float").fillna(-1)
    starts = seeds.groupby([*seeds]).ngroup().to_numpy() if (seeds >= 0).any(axis=None) else None
    tested = metrics.paired_difference(
        test.labels, ours, theirs, metric, groups=test.users, starts=starts
    )
    gain = pairs[f"{metric}_x"] - pairs[f"{metric}_y"]
    improved = int((gain > 0 if metric == "auc" else gain < 0).sum())
    return {
        "difference": tested.difference,
        "low": tested.low,
        "high": tested.high,
        "p": tested.p_value,
        "seeds improved": f"{improved} of {len(pairs)}",
    }


def paired(runs: pd.DataFrame, base: pd.DataFrame) -> pd.DataFrame:
    """Runs beside those of `base` with the same seed, by seed; columns end in _x and _y."""
    return runs.merge(base, on="seed").sort_values("seed")


def summary(runs: pd.DataFrame) -> dict[str, Any]:
    """Means and standard deviations over the seeds of runs that differ in nothing else."""
    found: dict[str, Any] = {"seeds": len(runs)}
    for metric, words in METRICS.items():
        found |= {words: runs[metric].mean(), f"{words} s.d.": runs[metric].std()}
    for name in MEANS:
        found[name] = runs[name.replace(" ", "_")].mean()
    for name in ("train rows", PRETRAINED):
        found[name] = runs[name.replace(" ", "_")].iloc[0]
    found["pretrainings"] = runs["pretraining_seed"].nunique()
    found["AUC watched"] = runs["selection_auc"].mean()
    return found


METRICS = {"auc": "AUC", "logloss": "Logloss"}
MEANS = ("epochs", "epoch kept", "seconds", "pretraining seconds")
PRETRAINED = "pretraining rows"


def compared(
    groups: Mapping[Any, pd.DataFrame], bases: Mapping[Any, pd.DataFrame | None]
) -> dict[Any, dict[str, Any]]:
    """For each group of runs its summary, its difference from its base, and whether it is best.

    A dot marks the group with the highest mean AUC and those that are not distinguishable from it:
    whose p-value against it, corrected for their number, is at least 0.05, or that share no seed
    with it.
    """
    top = max(groups, key=lambda name: groups[name]["auc"].mean(), default=None)
    p = {n: difference(groups[top], of)["p"] for n, of in groups.items() if top and n != top}
    tested = [name for name in p if not np.isnan(p[name])]
    adjusted = false_discovery_control([p[name] for name in tested])
    best = set(groups) - {n for n, value in zip(tested, adjusted, strict=True) if value < 0.05}
    return {
        name: {
            **summary(runs),
            "best": "●" if name in best else "",
            **difference(runs, bases.get(name)),
        }
        for name, runs in groups.items()
    }


def by_variant(found: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The runs of each variant, in the order in which they were found."""
    return {str(variant): runs for variant, runs in found.groupby("variant", sort=False)}


def corrected(table: pd.DataFrame) -> pd.DataFrame:
    """The table with "p (BH)": "p" corrected for all of its comparisons (Benjamini and Hochberg,
    1995)."""
    tested = table["p"].notna()
    table["p (BH)"] = np.nan
    if tested.any():
        table.loc[tested, "p (BH)"] = false_discovery_control(table.loc[tested, "p"])
    return table


def against_raw(found: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Each variant `compared` with raw, "AUC − raw" for the difference."""
    groups = by_variant(found)
    bases = {variant: groups.get("raw") for variant in groups if variant != "raw"}
    lines = compared(groups, bases)
    return {name: line | {"AUC − raw": line["difference"]} for name, line in lines.items()}


def main_table(found: pd.DataFrame) -> pd.DataFrame:
    """AUC and Logloss of each variant over its seeds, and a paired test against raw.

    "AUC − raw" is the difference of the mean AUC over the seeds that both have, with the interval
    and p-value of `metrics.paired_difference`; "p (BH)" is corrected for the comparisons of the
    table; "best" is as in `compared`.
    """
    groups, lines = by_variant(found), []
    for variant, line in against_raw(found).items():
        runs = groups[variant]
        line |= {"variant": VARIANTS[variant].label, "model": runs["model"].iloc[0]}
        if not np.isnan(line["difference"]):
            pairs = paired(runs, groups["raw"])
            line["RelaImpr."] = metrics.rela_impr(pairs["auc_x"].mean(), pairs["auc_y"].mean())
        lines.append(line)
    return corrected(pd.DataFrame(lines, columns=MAIN_COLUMNS))


MAIN_COLUMNS = [
    *("variant", "model", "seeds", "epochs", "epoch kept", "AUC", "AUC s.d.", "best"),
    *("AUC − raw", "low", "high", "seeds improved", "p", "p (BH)"),
    *("RelaImpr.", "Logloss", "Logloss s.d.", "AUC watched", "train rows", PRETRAINED),
    *("pretrainings", "seconds"),
]


def control_table(found: pd.DataFrame) -> pd.DataFrame:
    """Each ALT variant against its control: the same model and budget from unaligned weights.

    Differences and tests are those of `main_table`, of AUC and of Logloss, but that each is a
    question of its own: p-values are not corrected for the others.
    """
    groups, lines = by_variant(found), []
    for variant, runs in groups.items():
        control = VARIANTS[variant].control
        for metric, words in METRICS.items() if control in groups else ():
            line = {
                "variant": VARIANTS[variant].label,
                "control": VARIANTS[control].label,
                "metric": words,
                "seeds": len(paired(runs, groups[control])),
                "train rows": runs["train_rows"].iloc[0],
                PRETRAINED: runs["pretraining_rows"].iloc[0],
                "pretrainings": runs["pretraining_seed"].nunique(),
            }
            lines.append(line | difference(runs, groups[control], metric))
    return pd.DataFrame(lines, columns=CONTROL_COLUMNS)


CONTROL_COLUMNS = [
    *("variant", "control", "metric", "difference", "low", "high", "p", "seeds improved", "seeds"),
    *("train rows", PRETRAINED, "pretrainings"),
]


def study_table(found: pd.DataFrame, study: Study) -> pd.DataFrame:
    """AUC of each variant in each setting of a study, and paired tests.

    Differences and tests are those of `main_table`; beside a difference stand what it is one from,
    and for how many seeds it is positive. "best" is as in `compared`, for each variant among the
    settings, or, where settings differ in their data, within the setting among the variants. A
    setting without runs is left blank.
    """
    planned = {name: of.get("variants", study.variants) for name, of in study.settings.items()}
    first, *_ = planned
    every = [(setting, variant) for setting, variants in planned.items() for variant in variants]
    if any("data" in of for of in study.settings.values()):
        panels = [[place for place in every if place[0] == setting] for setting in planned]
    elif study.pooled:
        panels = [every]
    else:
        names = dict.fromkeys(variant for _, variant in every)
        panels = [[place for place in every if place[1] == name] for name in names]
    grouped = found.groupby(["setting", "variant"], sort=False)
    groups = {(str(setting), str(variant)): runs for (setting, variant), runs in grouped}
    lines: list[dict[str, Any]] = []
    for places in panels:
        against = {
            (setting, variant): (setting, VARIANTS[variant].control)
            if study.against == "control"
            else next((place for place in places if place[0] == first != setting), ("", ""))
            for setting, variant in places
        }
        having = {place: groups[place] for place in places if place in groups}
        made = compared(having, {place: groups.get(against[place]) for place in having})
        for setting, variant in places:
            of, (base, control) = VARIANTS[variant], against[setting, variant]
            line: dict[str, Any] = dict.fromkeys(("best", "against", "seeds improved"), "")
            line |= {"setting": setting, "seeds": 0}
            line["variant"] = FINETUNED[of.kind] if study.pooled else of.label
            if (setting, variant) in made:
                name = base if study.against == "first setting" else control
                line |= {"against": VARIANTS[name].label if name in VARIANTS else name}
                line |= made[setting, variant]
            lines.append(line)
    return corrected(pd.DataFrame(lines, columns=STUDY_COLUMNS))


STUDY_COLUMNS = [
    *("variant", "setting", "seeds", "AUC", "AUC s.d.", "best", "against"),
    *("difference", "low", "high", "p", "p (BH)", "seeds improved"),
    *("Logloss", "AUC watched", "train rows", "epochs", "epoch kept"),
    *("seconds", PRETRAINED, "pretrainings", "pretraining seconds"),
]

FINETUNED = {
    "ctr": "ID-based model",
    "lang": "PLM",
    "both": "both models",
    "towers": "two PLMs",
    "answer": "PLM",
}
"""What a variant of each kind finetunes, where models of several kinds are compared."""


def cold_table(found: pd.DataFrame) -> pd.DataFrame:
    """AUC on the test rows whose user is warm or cold, and likewise the item, against raw.

    Columns are as in `main_table`, within each part of the test split; "p (BH)" is corrected for
    the whole table. A part with one class only is left blank.
    """
    lines: list[dict[str, Any]] = []
    for side in ("user", "item") if len(found) else ():
        cold = found["test"].iloc[0].cold[side]
        for part, name in ((~cold, f"warm {side}s"), (cold, f"cold {side}s")):
            made = against_raw(restricted(found, part))
            for variant in by_variant(found):
                line = {"test rows of": name, "rows": int(part.sum()), "seeds": 0}
                line |= {"variant": VARIANTS[variant].label, "best": "", "seeds improved": ""}
                lines.append(line | made.get(variant, {}))
    return corrected(pd.DataFrame(lines, columns=COLD_COLUMNS))


COLD_COLUMNS = [
    *("test rows of", "rows", "variant", "seeds", "AUC", "AUC s.d.", "best"),
    *("AUC − raw", "low", "high", "seeds improved", "p", "p (BH)"),
]


def restricted(found: pd.DataFrame, part: np.ndarray) -> pd.DataFrame:
    """Runs on a part [N] bool of their test rows; none where it lacks one of the classes."""
    whole: Split = found["test"].iloc[0]
    test = Split(whole.labels[part], whole.users[part], {})
    if len(np.unique(test.labels)) < 2:
        return found.iloc[:0]
    predicted = [predictions[part] for predictions in found["predictions"]]
    aucs = [metrics.auc(test.labels, each) for each in predicted]
    tests: Any = [test] * len(found)
    return found.assign(predictions=predicted, auc=aucs, test=tests)


# --- sentences ---------------------------------------------------------------------------------


def budgets(profile: Profile) -> str:
    """The budgets of finetuning by kind of model in the main table, in a sentence."""
    parts, kinds = [], {VARIANTS[variant].kind for variant in profile.seeds}
    for kind, name in {"ctr": "ID-based models", "lang": "PLMs", "both": "both together"}.items():
        if kind not in kinds:
            continue
        of = getattr(profile.finetuning, kind)
        epochs = f"{of.epochs} epoch{'s' if of.epochs > 1 else ''}"
        parts.append(f"{name} at most {epochs} with batch size {of.batch}")
    own = "Each kind of model has its own budget" if len(parts) > 1 else "The budget"
    return f"{own}: {', '.join(parts)}, stopped early by AUC."


def warnings(found: pd.DataFrame) -> list[str]:
    """What makes the results less than they seem, in plain sentences."""
    doubts = list(dict.fromkeys(w for run in found["result"] for w in run["data"]["warnings"]))
    if (found["selected_on"] == "test").any():
        doubts.append(
            "Early stopping watched the test split, as in the published code, which inflates the "
            "results."
        )
    if len({*found["machine"], *found["pretraining_machine"]} - {""}) > 1:
        doubts.append("Times are not comparable: the runs used several machines.")
    return doubts
