"""Tables of data and results, read from artefacts and results.json only."""

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any, TypeVar
from warnings import warn

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from altlib import store
from altlib.config import BACKBONES, VARIANTS, Finetuning, Pretraining, key
from altlib.data.tabular import SPLITS, Prepared
from altlib.lab import metrics, stamps
from altlib.lab.keys import folder
from altlib.lab.steps import prepare, step_cost
from altlib.profile import Profile, Study, file_name

Name = TypeVar("Name")

pd.set_option("display.max_colwidth", None)  # else notebooks cut claims and their figures short
pd.set_option("display.html.use_mathjax", False)  # a "$" in words and names of the user is a "$"


def data_statistics(data: Prepared) -> pd.DataFrame:
    """For each field: its words, side, distinct values, features, and unknown test rows."""
    test = data.ids(data.of("test"))
    return pd.DataFrame(
        {
            "field": [field.words for field in data.schema.fields],
            "side": [field.side for field in data.schema.fields],
            "twin group": [field.twin or "–" for field in data.schema.fields],
            "values": [len(values) for values in data.values],
            "known features": [len(values) for values in data.vocabulary.values],
            "example": [values[0] for values in data.values],
            "unknown in test": (test == data.vocabulary.unknown_ids).mean(0),
        }
    )


def split_statistics(data: Prepared) -> pd.DataFrame:
    """For each split: rows, share of positives, and share of rows with a cold user or item."""
    rows = {name: data.of(name) for name in SPLITS}
    return pd.DataFrame(
        {
            "split": list(SPLITS),
            "rows": [len(of) for of in rows.values()],
            "positive": [float(data.labels[of].mean()) for of in rows.values()],
            "cold users": [float(data.cold(of, "user").mean()) for of in rows.values()],
            "cold items": [float(data.cold(of, "item").mean()) for of in rows.values()],
        }
    )


def recovery(data: Prepared, evaluation: Mapping[str, Any]) -> pd.DataFrame:
    """Recovery of masked IDs (MTM) and words (MLM) of each field.

    Beside the accuracy of MTM stands that of always naming the field's most frequent feature of
    the training split; beside that of MLM what it is with the IDs of another row.

    Args:
        data: the prepared data set.
        evaluation: an epoch's "evaluation" from history.json.
    """
    found = evaluation["recovery"]
    lines = []
    for f, field in enumerate(data.schema.fields):
        ids, usual, words, others = (
            found.get(kind, {}).get(field.name)
            for kind in ("mtm", "most frequent", "mlm", "mlm, other IDs")
        )
        lines.append(
            {
                "field": field.words,
                "features": len(data.vocabulary.values[f]),
                "most frequent": usual[1] if usual else np.nan,
                "MTM accuracy": ids[1] if ids else np.nan,
                "masked IDs": ids[0] if ids else 0,
                "MLM accuracy": words[1] if words else np.nan,
                "with other IDs": others[1] if others else np.nan,
                "masked words": words[0] if words else 0,
            }
        )
    return pd.DataFrame(lines)


def recovery_curves(settings: Mapping[str, list[Finetuning]]) -> pd.DataFrame:
    """Recovery of masked words (MLM) of each field over the first pretraining of each setting.

    Columns are the setting, the field's words, training rows seen, the share recovered, that with
    the IDs of another row, and the mean loss of a masked token in nats. Settings that are not
    evaluated within the epoch, or are without MLM, are left out; without any the table is empty.

    Args:
        settings: of a study, as in `Planned`.
    """
    lines = []
    for setting, runs in settings.items():
        config = next((run.pretraining for run in runs if run.pretraining), None)
        found = config and config.training.evaluations > 1 and history(config)
        if not config or not found or not config.alignment.mlm:
            continue
        points = [(point["rows"], point.get("evaluation")) for point in found["curve"]]
        ends = np.cumsum([epoch["rows"] for epoch in found["epochs"]]).tolist()
        points += zip(ends, [epoch["evaluation"] for epoch in found["epochs"]], strict=True)
        for rows, evaluation in sorted((p for p in points if p[1]), key=lambda point: point[0]):
            words, others = (evaluation["recovery"][kind] for kind in ("mlm", "mlm, other IDs"))
            lines += [
                {
                    "setting": setting,
                    "field": field.words,
                    "rows": rows,
                    "recovered": words[field.name][1],
                    "with other IDs": others[field.name][1],
                    "loss": words[field.name][2],
                }
                for field in prepare(config.data).schema.fields
                if field.name in words
            ]
    return pd.DataFrame(lines)


def plm_scaling(table: pd.DataFrame, settings: Mapping[str, list[Finetuning]]) -> pd.DataFrame:
    """The aligned lines of a study's table with what the PLM of each setting costs.

    Args:
        table: from `study_table`.
        settings: of the study, as in `Planned`.
    """
    table = table[table["pretraining rows"] > 0]
    configs = {
        setting: next((run.pretraining for run in settings[setting] if run.pretraining), None)
        for setting in dict.fromkeys(table["setting"])
    }
    costs = pd.DataFrame(
        [
            {"setting": setting, **step_cost(config)}
            for setting, config in configs.items()
            if config and history(config)
        ],
        columns=["setting", "parameters", "GFLOP a row"],
    )
    kept = ["variant", "setting", "pretraining seconds", "AUC", "AUC s.d."]
    return table[kept].merge(costs, how="left", on="setting")


def history(config: Pretraining) -> dict[str, Any] | None:
    """history.json of a pretraining; None where there is none, a ValueError if it is damaged."""
    try:
        path = folder(config) / "history.json"
    except (ValueError, FileNotFoundError):  # of its data or PLM, so that it has no key
        return None
    return store.read_json(path) if path.exists() else None


def stored(planned: Iterable[Finetuning]) -> tuple[list[dict[str, Any]], list[str]]:
    """The results.json of those runs that are there, and the names of those that are not.

    Beside what finetuning wrote stand the epoch whose weights it kept, and the seconds, rows and
    machine of the pretraining behind it; beside the name of a run that failed, why.
    """
    found, missing = [], []
    for config in planned:
        name = f"{config.variant}, seed {config.training.seed}"
        try:
            place = folder(config)
            path = place / "results.json"
            result = store.read_json(path) if path.exists() else None
            pretraining = history(config.pretraining) if config.pretraining else None
        except (ValueError, FileNotFoundError) as error:
            missing.append(f"{name} ({str(error).rstrip('.')})")
            continue
        if result is None:
            reason = store.ended(place).get("reason", "").rstrip(".")
            missing.append(f"{name} ({reason})" if reason else name)
            continue
        result["epoch_kept"] = epoch_kept(result)
        if pretraining is not None:
            result["pretraining_seconds"] = pretraining["seconds"]
            result["pretraining_rows"] = sum(epoch["rows"] for epoch in pretraining["epochs"])
            result["pretraining_machine"] = pretraining["provenance"]["machine"]
        found.append(result)
    return found, missing


def epoch_kept(result: Mapping[str, Any]) -> int:
    """The epoch, from 1, whose weights a run kept: the best watched, or the last if none was."""
    aucs = [epoch["evaluation"]["auc"] for epoch in result["history"]["epochs"]]
    watched = result["config"]["training"]["patience"] is not None
    return 1 + int(np.argmax(aucs)) if watched else len(aucs)


def results(profile: Profile) -> tuple[list[dict[str, Any]], list[str]]:
    """The results.json of all the profile's runs, with RelaImpr. over raw; and what is missing.

    RelaImpr. is (AUC - 0.5) / (AUC of raw - 0.5) - 1, against raw with the same seed, or with its
    first seed where raw has no such one.
    """
    found, missing = stored(profile.runs())
    raw = {result["seed"]: result["auc"] for result in found if result["variant"] == "raw"}
    for result in found:
        base = raw.get(result["seed"], next(iter(raw.values()), None))
        result["rela_impr"] = None if base is None else metrics.rela_impr(result["auc"], base)
    return found, missing


def flat(profile: Profile, found: list[dict[str, Any]]) -> pd.DataFrame:
    """One row a run: the content of results.csv."""
    return pd.DataFrame(
        [
            {
                "dataset": result["dataset"],
                "profile": profile.name,
                "model": result.get("model") or model_name(result),
                "variant": result["variant"],
                "backbone": result["backbone"],
                "plm": result["plm"],
                "study": result.get("study", ""),
                "setting": result.get("setting", ""),
                "seed": result["seed"],
                "auc": result["auc"],
                "logloss": result["logloss"],
                "rela_impr": result.get("rela_impr"),
                "selected_on": result["watched"]["split"],
                "selection_auc": result["watched"]["auc"],
                "epochs": result["epochs"],
                "epoch_kept": result["epoch_kept"],
                "train_rows": result["train_rows"],
                "seconds": round(result["seconds"], 1),
                "pretraining_seconds": round(result.get("pretraining_seconds", 0.0), 1),
                "pretraining_rows": result.get("pretraining_rows", 0),
                "rows_per_second": round(result["rows_per_second"], 1),
                "machine": result["provenance"]["machine"],
                "pretraining_machine": result.get("pretraining_machine", ""),
            }
            for result in found
        ]
    )


def keep(found: list[dict[str, Any]], folder: Path) -> None:
    """Writes the results.json of each run to `folder`/results, for others to read.

    Rows and labels of the test split are left out: they follow from the data, which may not be
    passed on. Predictions, in the order of the test split and with 6 digits, are kept of the runs
    that belong to no study; those of studies would be many megabytes.
    """
    shutil.rmtree(folder / "results", ignore_errors=True)
    (folder / "results").mkdir(parents=True)
    for result in found:
        place = [result[name] for name in ("study", "setting") if name in result]
        name = file_name(*place, result["variant"], str(result["seed"]))
        predicted = [] if place else [float(f"{p:.6g}") for p in result["test"]["probabilities"]]
        kept = {"study": "", "setting": "", **result, "test": {"probabilities": predicted}}
        (folder / "results" / f"{name}.json").write_text(json.dumps(kept), encoding="utf-8")


def model_name(result: Mapping[str, Any]) -> str:
    """What a run trains, in words: the backbone, the PLM, or both."""
    backbone = BACKBONES.get(result["backbone"], "")
    variant = VARIANTS[result["variant"]]
    plm = result["plm"]
    parts = {"ctr": backbone, "lang": plm, "both": f"{backbone} + {plm}", "towers": f"2 × {plm}",
             "answer": plm}  # fmt: skip
    return ("ALT, " if variant.aligned else "") + parts[variant.kind]


def main_table(found: list[dict[str, Any]]) -> pd.DataFrame:
    """AUC and Logloss of each variant over its seeds, and a paired test against raw.

    "AUC − raw" is the difference of the mean AUC over the seeds that both have, with the interval
    and p-value of a paired bootstrap over test users; "p (BH)" is corrected for the comparisons of
    the table. DeLong's test compares the first seeds and takes rows as independent. "best" marks
    the highest AUC and those not distinguishable from it.
    """
    by_variant = grouped(found)
    raw = by_variant.get("raw", [])
    marked = best_of(by_variant)
    lines = []
    for variant, runs in by_variant.items():
        auc, auc_sd = metrics.mean_sd([run["auc"] for run in runs])
        logloss, logloss_sd = metrics.mean_sd([run["logloss"] for run in runs])
        line = {
            "variant": VARIANTS[variant].label,
            "model": model_name(runs[0]),
            "train rows": runs[0]["train_rows"],
            "seeds": len(runs),
            "epochs": mean(runs, "epochs"),
            "epoch kept": mean(runs, "epoch_kept"),
            "AUC": auc,
            "AUC s.d.": auc_sd,
            "Logloss": logloss,
            "Logloss s.d.": logloss_sd,
            "best": "●" if variant in marked else "",
            "RelaImpr.": np.nan,
            "p (DeLong, first seeds)": np.nan,
            "seconds": mean(runs, "seconds"),
            **against_raw(runs, raw if variant != "raw" else []),
        }
        if not np.isnan(line["AUC − raw"]):
            ours, theirs = paired(runs, raw)
            line["RelaImpr."] = metrics.rela_impr(mean(ours, "auc"), mean(theirs, "auc"))
            test = runs[0]["test"]
            line["p (DeLong, first seeds)"] = metrics.delong(
                test["labels"], test["probabilities"], raw[0]["test"]["probabilities"]
            ).p_value
        lines.append(line)
    return corrected(pd.DataFrame(lines, columns=MAIN_COLUMNS))


MAIN_COLUMNS = [
    *("variant", "model", "seeds", "epochs", "epoch kept", "AUC", "AUC s.d.", "best"),
    *("AUC − raw", "low", "high", "in favour", "p", "p (BH)", "p (DeLong, first seeds)"),
    *("RelaImpr.", "Logloss", "Logloss s.d.", "train rows", "seconds"),
]


def against_raw(runs: list[dict[str, Any]], raw: list[dict[str, Any]]) -> dict[str, Any]:
    """The columns of `difference` from raw, "AUC − raw" for the difference itself."""
    columns = difference(runs, raw)
    return {"AUC − raw": columns.pop("difference"), **columns}


def corrected(table: pd.DataFrame) -> pd.DataFrame:
    """The table with "p (BH)": "p" corrected for all of its comparisons (Benjamini and Hochberg,
    1995)."""
    tested = table["p"].notna()
    table["p (BH)"] = np.nan
    if tested.any():
        table.loc[tested, "p (BH)"] = false_discovery_control(table.loc[tested, "p"])
    return table


def best_of(groups: Mapping[Name, list[dict[str, Any]]]) -> set[Name]:
    """The group of runs with the highest mean AUC, and those that are not distinguishable from it.

    These are the ones whose p-value against it, corrected for their number, is at least 0.05.
    """
    top = max(groups, key=lambda name: mean(groups[name], "auc"), default=None)
    if top is None:
        return set()
    p = {name: difference(groups[top], runs)["p"] for name, runs in groups.items() if name != top}
    compared = [name for name in p if not np.isnan(p[name])]
    adjusted = false_discovery_control([p[name] for name in compared])
    return {top} | {name for name, value in zip(compared, adjusted, strict=True) if value >= 0.05}


def control_table(found: list[dict[str, Any]]) -> pd.DataFrame:
    """Each ALT variant against its control: the same model and budget from unaligned weights.

    Differences and tests are those of `main_table`, of AUC and of Logloss.
    """
    by_variant = grouped(found)
    lines = []
    for ours in by_variant:
        control = VARIANTS[ours].control
        if control in by_variant:
            for name, words in {"auc": "AUC", "logloss": "Logloss"}.items():
                columns = difference(by_variant[ours], by_variant[control], name)
                named = {
                    "variant": VARIANTS[ours].label,
                    "control": VARIANTS[control].label,
                    "metric": words,
                    "seeds": len(paired(by_variant[ours], by_variant[control])[0]),
                    "train rows": by_variant[ours][0]["train_rows"],
                }
                lines.append(named | columns)
    return corrected(pd.DataFrame(lines, columns=CONTROL_COLUMNS))


CONTROL_COLUMNS = [
    *("variant", "control", "metric", "difference", "low", "high", "in favour", "p", "p (BH)"),
    *("seeds", "train rows"),
]


def study_table(found: Mapping[str, list[dict[str, Any]]], study: Study) -> pd.DataFrame:
    """AUC of each variant in each setting of a study, and paired tests.

    Differences and tests are those of `main_table`; beside a difference stand what it is one from,
    and on how many seeds it is positive. "best" marks, for each variant, the setting with the
    highest AUC and those not distinguishable from it, or, where settings differ in their data, the
    variant within the setting. A setting without runs has a line without figures.

    Args:
        found: the results of each setting, from `stored`.
        study: what was planned.
    """
    groups = {setting: grouped(runs) for setting, runs in found.items()}
    planned = {name: of.get("variants", study.variants) for name, of in study.settings.items()}
    first, *_ = planned
    names = list(dict.fromkeys(variant for variants in planned.values() for variant in variants))
    every = [(s, v) for s, variants in planned.items() for v in variants]
    panels = [every] if study.pooled else [[p for p in every if p[1] == name] for name in names]
    if any("data" in of for of in study.settings.values()):
        panels = [[p for p in every if p[0] == setting] for setting in planned]
    lines: list[dict[str, Any]] = []
    for places in panels:
        having = {(s, v): groups[s][v] for s, v in places if v in groups.get(s, {})}
        marked = best_of(having)
        for setting, variant in places:
            runs = having.get((setting, variant), [])
            start = next(((s, v) for s, v in places if s == first != setting), None)
            base, name = having.get(start) if start else None, first if start else ""
            if study.against == "control":
                control = VARIANTS[variant].control
                base = groups.get(setting, {}).get(control)
                name = VARIANTS[control].label if control else ""
            of = VARIANTS[variant]
            label = FINETUNED[of.kind] if study.pooled else of.label
            line = {"variant": label, "setting": setting, "seeds": len(runs)}
            line |= {"best": "", "against": "", "in favour": ""}
            if runs:
                line |= {
                    "train rows": runs[0]["train_rows"],
                    "epochs": mean(runs, "epochs"),
                    "epoch kept": mean(runs, "epoch_kept"),
                    "pretraining rows": runs[0].get("pretraining_rows", 0),
                    "pretraining seconds": mean(runs, "pretraining_seconds"),
                    "seconds": mean(runs, "seconds"),
                    "AUC": mean(runs, "auc"),
                    "AUC s.d.": metrics.mean_sd([run["auc"] for run in runs])[1],
                    "Logloss": mean(runs, "logloss"),
                    "best": "●" if (setting, variant) in marked else "",
                    "against": name,
                    **difference(runs, base),
                }
            lines.append(line)
    return corrected(pd.DataFrame(lines, columns=STUDY_COLUMNS))


STUDY_COLUMNS = [
    *("variant", "setting", "seeds", "AUC", "AUC s.d.", "best", "against"),
    *("difference", "low", "high", "p", "p (BH)", "in favour"),
    *("Logloss", "train rows", "epochs", "epoch kept"),
    *("seconds", "pretraining rows", "pretraining seconds"),
]


FINETUNED = {
    "ctr": "ID-based model",
    "lang": "PLM",
    "both": "both models",
    "towers": "two PLMs",
    "answer": "PLM",
}
"""What a variant of each kind finetunes, where models of several kinds are compared."""


def mean(runs: list[dict[str, Any]], name: str) -> float:
    """Mean of an entry over runs; what a run lacks counts as 0."""
    return float(np.mean([run.get(name, 0.0) for run in runs]))


def difference(
    runs: list[dict[str, Any]], base: list[dict[str, Any]] | None, metric: str = "auc"
) -> dict[str, Any]:
    """The columns that compare runs with others of the same seeds and test rows; empty without.

    The bootstrap draws users with all their test rows, since rows of one user are alike. Rows of a
    single user allow none.
    """
    ours, theirs = paired(runs, base or [])
    rows = [run["test"]["rows"] for run in (*ours, *theirs)]
    alone = len({user for run in ours for user in run["test"]["users"]}) < 2
    if not ours or alone or any(of != rows[0] for of in rows):
        return {"difference": np.nan, "low": np.nan, "high": np.nan, "p": np.nan, "in favour": ""}
    test = ours[0]["test"]
    tested = metrics.paired_bootstrap(
        test["labels"], predictions(ours), predictions(theirs), metric, groups=test["users"]
    )
    sign = {"auc": 1, "logloss": -1}[metric]
    better = sum(sign * (a[metric] - b[metric]) > 0 for a, b in zip(ours, theirs, strict=True))
    return {
        "difference": tested.difference,
        "low": tested.low,
        "high": tested.high,
        "p": tested.p_value,
        "in favour": f"{better} of {len(ours)}",
    }


def paired(
    runs: list[dict[str, Any]], base: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The runs of the seeds that both have, in the order of these seeds."""
    ours, theirs = ({run["seed"]: run for run in of} for of in (runs, base))
    seeds = sorted(ours.keys() & theirs.keys())
    return [ours[seed] for seed in seeds], [theirs[seed] for seed in seeds]


def cold_table(data: Prepared, found: list[dict[str, Any]]) -> pd.DataFrame:
    """AUC on the test rows whose user is warm or cold, and likewise the item, against raw.

    Columns are as in `main_table`, within each part of the test split; "p (BH)" is corrected for
    the whole table. A part that lacks clicks or has nothing else has lines without figures.
    """
    lines: list[dict[str, Any]] = []
    rows = np.array(found[0]["test"]["rows"] if found else [], dtype=int)
    for side in ("user", "item"):
        cold = data.cold(rows, side)
        for part, name in ((~cold, f"warm {side}s"), (cold, f"cold {side}s")):
            groups = grouped([on for run in found if (on := restricted(run, part))])
            marked = best_of(groups)
            for variant in grouped(found):
                runs = groups.get(variant, [])
                line: dict[str, Any] = {"test rows of": name, "rows": int(part.sum())}
                line["variant"] = VARIANTS[variant].label
                line |= {"seeds": len(runs), "best": "●" if variant in marked else ""}
                if runs:
                    auc, deviation = metrics.mean_sd([run["auc"] for run in runs])
                    line |= {"AUC": auc, "AUC s.d.": deviation}
                lines.append(
                    line | against_raw(runs, groups.get("raw", []) if variant != "raw" else [])
                )
    return corrected(pd.DataFrame(lines, columns=COLD_COLUMNS))


COLD_COLUMNS = [
    *("test rows of", "rows", "variant", "seeds", "AUC", "AUC s.d.", "best"),
    *("AUC − raw", "low", "high", "in favour", "p", "p (BH)"),
]


def restricted(run: dict[str, Any], part: np.ndarray) -> dict[str, Any] | None:
    """A result on a part [N] bool of its test rows; None where it lacks one of the classes."""
    test = {name: np.array(values)[part].tolist() for name, values in run["test"].items()}
    if len(set(test["labels"])) < 2:
        return None
    return {**run, "test": test, "auc": metrics.auc(test["labels"], test["probabilities"])}


def grouped(found: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The runs of each variant, in the order in which they were found."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for result in found:
        groups.setdefault(result["variant"], []).append(result)
    return groups


def predictions(runs: list[dict[str, Any]]) -> np.ndarray:
    """Test predictions of runs of one variant [S, N]."""
    return np.array([run["test"]["probabilities"] for run in runs])


def verdict(main: pd.DataFrame, controls: pd.DataFrame) -> list[str]:
    """What the tables say, in plain sentences; a difference counts if its interval excludes 0.

    Args:
        main: from `main_table`.
        controls: from `control_table`.
    """
    sentences = []
    for _, line in main[main["AUC − raw"].notna()].iterrows():
        compared = line["in favour"].rpartition(" ")[2]
        seeds = f"{compared} seed{'s' if compared != '1' else ''}"
        words = judged(line["AUC − raw"], line, "the raw ID-based model")
        sentences.append(f"{line['variant']} {words}, {seeds}).")
    for _, line in controls.iterrows():
        if line["metric"] == "AUC" and line["control"] != VARIANTS["raw"].label:
            words = judged(line["difference"], line, f"its control, {line['control']}")
            sentences.append(f"{line['variant']} {words}).")
    return sentences


def budgets(profile: Profile) -> str:
    """The budgets of finetuning by kind of model, in a sentence."""
    parts = []
    for kind, name in {"ctr": "ID-based models", "lang": "PLMs", "both": "both together"}.items():
        of = getattr(profile.finetuning, kind)
        epochs = f"{of.epochs} epoch{'s' if of.epochs > 1 else ''}"
        parts.append(f"{name} at most {epochs} of batches of {of.batch}")
    return f"Budgets go by kind of model: {', '.join(parts)}, stopped early by AUC."


def judged(difference: float, line: pd.Series, other: str) -> str:
    """A difference in AUC in words, up to an open bracket."""
    if line["low"] > 0:
        words = f"beats {other}"
    elif line["high"] < 0:
        words = f"is worse than {other}"
    else:
        words = f"is not distinguishable from {other}"
    interval = f"95 % interval {line['low']:+.4f} to {line['high']:+.4f}"
    return f"{words} here ({difference:+.4f} AUC, {interval}"


def warnings(found: list[dict[str, Any]]) -> list[str]:
    """What makes the results less than they seem, in plain sentences."""
    doubts = list(dict.fromkeys(w for result in found for w in result["data"]["warnings"]))
    if any(result["watched"]["split"] == "test" for result in found):
        doubts.append(
            "Early stopping watched the test split, as the published code does: that flatters."
        )
    machines = {result["provenance"]["machine"] for result in found}
    machines |= {r["pretraining_machine"] for r in found if "pretraining_machine" in r}
    if len(machines) > 1:
        doubts.append("Seconds do not compare: these runs were made on several machines.")
    return doubts


def shown(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with numbers as people read them: 4 digits, 3 of a measured time or size, shares
    in %, a dash for nothing."""
    percent = {"unknown in test", "positive", "cold users", "cold items", "most frequent",
               "MTM accuracy", "MLM accuracy", "with other IDs", "recovered",
               "RelaImpr.", "own words", "uniform"}  # fmt: skip
    if "own words" in frame:
        percent |= {"low", "high"}

    def text(name: str, value: Any) -> str:
        if value is None or (isinstance(value, float) and np.isnan(value)):
            return "–"
        if isinstance(value, float) and np.isinf(value):
            return "∞"
        if name in percent:
            return f"{value:+.2%}" if name == "RelaImpr." else f"{value:.1%}"
        if name in ("AUC − raw", "low", "high", "difference"):
            return f"{value:+.4f}"
        if name.startswith("p (") or name == "p":
            return "< 0.001" if value < 0.001 else f"{value:.3f}"
        if name in ("epochs", "epoch kept"):
            return f"{value:.1f}"
        if "_ms" in name or name in ("start-up seconds", "file MB", "peak memory MiB"):
            return f"{value:,.{max(0, 2 - int(np.floor(np.log10(value or 1.0))))}f}"
        if name.endswith((" rows", "seconds", "rows_per_s")):
            return f"{value:,.0f}"
        if isinstance(value, (int, np.integer)):
            return f"{value:,}"
        return f"{value:.4f}" if isinstance(value, float) else str(value)

    return pd.DataFrame(
        {name: [text(str(name), value) for value in frame[name].tolist()] for name in frame}
    )


def read(profile: Profile, notebook: str, name: str) -> pd.DataFrame:
    """The table that a notebook wrote; an empty one if there is none.

    So it is, too, if the notebook last ran with another configuration of the profile, and, with a
    warning, if the table is damaged.
    """
    made = stamps.read(stamps.file_of(profile, notebook))
    path = stamps.report_folder(profile) / "tables" / f"{name}.csv"
    today = made.get("profile") == key(profile)  # one that failed names no profile
    if not today or not path.exists():
        return pd.DataFrame()
    try:
        return pd.read_csv(path, keep_default_na=False, na_values=[""])  # "None" may be a name
    except ValueError as error:
        told = f"{path} is damaged ({error}) and left out; run the notebook {notebook} again."
        warn(told, stacklevel=2)
        return pd.DataFrame()


def write(frame: pd.DataFrame, folder: Path, name: str) -> None:
    """Writes tables/<name>.csv, with full precision, and tables/<name>.md, for reading."""
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    frame.to_csv(folder / "tables" / f"{name}.csv", index=False)
    (folder / "tables" / f"{name}.md").write_text(markdown(frame), encoding="utf-8")


def markdown(frame: pd.DataFrame) -> str:
    """The table in Markdown; what its words and names hold of Markdown and HTML is literal."""

    def literal(text: Any) -> str:
        text = " ".join(str(text).split())
        text = re.sub(r"&(?=#?\w+;)|<(?=\S)", lambda sign: escape(sign[0]), text)
        return re.sub(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)

    plain = shown(frame).rename(columns=literal).map(literal)
    return plain.to_markdown(index=False, disable_numparse=True) + "\n"
