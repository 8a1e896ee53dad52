"""Results of runs as one tidy frame, a row a run; they are read here and nowhere else."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from altlib import store
from altlib.config import BACKBONES, VARIANTS, Finetuning, Pretraining
from altlib.data.tabular import Prepared
from altlib.faults import entries
from altlib.lab import metrics
from altlib.lab.keys import data_key, folder
from altlib.lab.steps import epoch_kept, prepare
from altlib.profile import Planned, Profile, file_name

COLUMNS = [
    *("dataset", "profile", "model", "variant", "backbone", "plm", "study", "setting", "seed"),
    *("auc", "logloss", "rela_impr", "selected_on", "selection_auc", "epochs", "epoch_kept"),
    *("train_rows", "seconds", "pretraining_seconds", "pretraining_rows", "rows_per_second"),
    *("machine", "pretraining_machine"),
]
"""Of results.csv and of the frame, which has further ones: "pretraining_seed"; "data", the key of
the data set, since only runs on one compare; "test", a `Split`; "predictions" for its rows [N]; and
"result", the whole of results.json."""


@dataclass(frozen=True)
class Split:
    """The rows that runs on one data set are tested on.

    Attributes:
        labels: 0 or 1 [N].
        users: the user of each row [N].
        cold: by side, whether its user or item is unknown to the training split [N].
    """

    labels: np.ndarray
    users: np.ndarray
    cold: Mapping[str, np.ndarray]

    @staticmethod
    def of(data: Prepared) -> "Split":
        rows = data.of("test")
        cold = {side: data.cold(rows, side) for side in ("user", "item")}
        return Split(np.array(data.labels[rows]), data.users(rows), cold)


def read(planned: Planned) -> tuple[pd.DataFrame, list[str]]:
    """The results of those runs that are there, and the names of those that are not, with why where
    that is known.

    Args:
        planned: runs by study and setting, both empty for those of the main table.
    """
    lines: list[dict[str, Any]] = []
    missing: list[str] = []
    tests: dict[str, Split] = {}
    for study, settings in planned.items():
        for setting, config in ((name, one) for name, of in settings.items() for one in of):
            try:
                line = read_run(config, tests)
                why = store.ended(folder(config)).get("reason", "")
            except (ValueError, FileNotFoundError) as error:
                line, why = None, str(error)
            if line is not None:
                lines.append({"study": study, "setting": setting, **line})
            else:
                place = f"{study}, {setting}: " if study else ""
                reason = f" ({why.rstrip('.')})" if why else ""
                missing.append(f"{place}{config.variant}, seed {config.training.seed}{reason}")
    further = ["pretraining_seed", "data", "test", "predictions", "result"]
    return pd.DataFrame(lines, columns=[*COLUMNS, *further]), missing


def of_profile(profile: Profile) -> tuple[pd.DataFrame, list[str]]:
    """The results of the runs of the main table, with RelaImpr. over raw; and what is missing.

    RelaImpr. is (AUC - 0.5) / (AUC of raw - 0.5) - 1, against raw with the same seed, or with its
    first seed where raw has no such one.
    """
    found, missing = read({"": {"": profile.runs()}})
    raw = found[found["variant"] == "raw"].set_index("seed")["auc"]
    if len(raw):
        bases = found["seed"].map(raw).fillna(raw.iloc[0])
        pairs = zip(found["auc"], bases, strict=True)
        found["rela_impr"] = [metrics.rela_impr(auc, base) for auc, base in pairs]
    return found, missing


def read_run(config: Finetuning, tests: dict[str, Split]) -> dict[str, Any] | None:
    """A run's line of the frame; None where there is none. `tests` are those that are known, by the
    key of their data.

    Raises:
        ValueError: a file is damaged, or the run was made of other test rows.
    """
    place = folder(config)
    if not (place / "results.json").exists():
        return None
    result = store.read_json(place / "results.json")
    data = data_key(config.data)
    if data not in tests:
        tests[data] = Split.of(prepare(config.data))
    labels, predicted = tests[data].labels, predictions(config)
    alike = len(labels) == len(predicted)
    if not (alike and abs(metrics.auc(labels, predicted) - result["auc"]) < 1e-6):
        raise ValueError(
            f"The predictions in {place} do not belong to the test rows that altlib makes today; "
            "remove the folder to have the run made anew."
        )
    plm = config.plm or (config.pretraining.plm if config.pretraining else None)
    before = history(config.pretraining) if config.pretraining else None
    return {
        "dataset": config.data.dataset,
        "model": model_name(config),
        "variant": config.variant,
        "backbone": config.ctr.backbone if config.ctr else None,
        "plm": plm.name if plm else None,
        "seed": config.training.seed,
        "pretraining_seed": config.pretraining.training.seed if config.pretraining else None,
        "selected_on": result["watched"]["split"],
        "selection_auc": result["watched"]["auc"],
        "epoch_kept": epoch_kept(result["history"]["epochs"], config.training),
        "machine": result["provenance"]["machine"],
        "pretraining_seconds": before["seconds"] if before else 0.0,
        "pretraining_rows": sum(epoch["rows"] for epoch in before["epochs"]) if before else 0,
        "pretraining_machine": before["provenance"]["machine"] if before else "",
        "data": data,
        "test": tests[data],
        "predictions": predicted,
        "result": result,
        **{name: result[name] for name in ("auc", "logloss", "epochs", "train_rows")},
        **{name: result[name] for name in ("seconds", "rows_per_second")},
    }


def reported(dataset: str) -> list[dict[str, Any]]:
    """What others report for a data set: source, split, whether models read user and item ids, a
    note, and AUC and Logloss by model."""
    return entries(Path(__file__).with_name("reported.yaml")).get(dataset, [])


def predictions(config: Finetuning) -> np.ndarray:
    """A run's click probabilities of the rows of its test split, in their order [N]."""
    return np.load(store.checked(folder(config) / "predictions.npy"))


def history(config: Pretraining) -> dict[str, Any] | None:
    """history.json of a pretraining; None where there is none, a ValueError if it is damaged."""
    try:
        path = folder(config) / "history.json"
    except (ValueError, FileNotFoundError):  # of its data, so that it has no key
        return None
    return store.read_json(path) if path.exists() else None


def model_name(config: Finetuning) -> str:
    """What a run trains, in words: the backbone, the PLM, or both."""
    backbone = BACKBONES[config.ctr.backbone] if config.ctr else ""
    plm = config.plm.name if config.plm else ""
    variant = VARIANTS[config.variant]
    parts = {"ctr": backbone, "both": f"{backbone} + {plm}", "towers": f"2 × {plm}"}
    return ("ALT, " if variant.aligned else "") + parts.get(variant.kind, plm)


def write(found: pd.DataFrame, profile: Profile, report: Path) -> pd.DataFrame:
    """Writes results.csv, the results.json of each run to results/, and the predictions of the main
    table's runs to predictions.npz, for others to read; returns what results.csv holds.

    Rows and labels of the test split are not among them: they follow from the data, which may not
    be passed on. Predictions of studies would be many megabytes.
    """
    flat = found[COLUMNS].assign(profile=profile.name)
    flat = flat.round({"seconds": 1, "pretraining_seconds": 1, "rows_per_second": 1})
    shutil.rmtree(report / "results", ignore_errors=True)
    (report / "results").mkdir(parents=True)
    flat.to_csv(report / "results.csv", index=False)
    kept: dict[str, Any] = {}
    run: Any
    for run in found.itertuples():
        place = [run.study, run.setting] if run.study else []
        name = file_name(*place, run.variant, str(run.seed))
        content = {"study": run.study, "setting": run.setting, **run.result}
        (report / "results" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        if not run.study:
            kept[name] = run.predictions.astype(np.float32)
    np.savez_compressed(report / "predictions.npz", **kept)
    return flat
