"""Profiles as YAML files, and the runs that they name.

A profile may extend another; null removes an entry, and a grid makes a study's settings.
`./run_all.sh PROFILE --show` prints the whole of what a profile comes to.
"""

import argparse
import itertools
import re
import sys
from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic.dataclasses import dataclass

from altlib import store
from altlib.config import (
    STRICT,
    VARIANTS,
    AlignmentConfig,
    Count,
    CtrConfig,
    DataConfig,
    Finetuning,
    PlmConfig,
    Pretraining,
    Seed,
    TextConfig,
    TrainingConfig,
)
from altlib.faults import checked, entries, nearest
from altlib.store import PROJECT

read = store.remembered(entries)


# --- what a profile holds ----------------------------------------------------------------------


@dataclass(frozen=True, config=STRICT)
class Budgets:
    """The training of each finetuning, the same for aligned and unaligned weights."""

    ctr: TrainingConfig
    lang: TrainingConfig
    both: TrainingConfig


@dataclass(frozen=True, config=STRICT)
class Study:
    """Settings that differ in stated entries, each run with the same variants and seeds.

    Attributes:
        settings: by name, entries to put in place of the profile's, nested as there; an entry
            `variants` takes the place of the study's.
        seeds: of finetuning, and of pretraining too, so that runs are compared in pairs.
        pretraining_seed: of one pretraining that serves all seeds, where many would take too long.
        variants: what is finetuned.
        base: entries to put in place of the profile's for all settings, as a sample of rows.
        against: what a run is compared with: the same variant in the "first setting", or its
            "control", the unaligned variant in the same setting.
    """

    settings: dict[str, dict[str, Any]]
    seeds: list[Seed] = field(default_factory=lambda: [0])
    pretraining_seed: Seed | None = None
    variants: list[str] = field(default_factory=lambda: ["alt_ctr"])
    base: dict[str, Any] = field(default_factory=dict)
    against: Literal["first setting", "control"] = "first setting"

    @property
    def pooled(self) -> bool:
        """Whether each setting has one variant of its own, so that all of them are compared."""
        each = [of.get("variants", self.variants) for of in self.settings.values()]
        return all(len(variants) == 1 for variants in each) and len({v for (v,) in each}) > 1

    def __post_init__(self) -> None:
        for what in ("settings", "seeds"):
            if not getattr(self, what):
                raise ValueError(f"A study's {what} are empty; it needs at least one.")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"A study's seeds are {self.seeds}: duplicate seed.")
        for setting, changes in self.settings.items():
            variants = changes.get("variants", self.variants)
            unknown = [variant for variant in variants if variant not in VARIANTS]
            if unknown or not variants:
                named = f"'{unknown[0]}'" if unknown else "nothing"
                raise ValueError(
                    f"The setting '{setting}' of a study finetunes {named}; variants are "
                    f"{', '.join(VARIANTS)}."
                )
            if "seed" in changes.get("pretraining", {}):
                raise ValueError(
                    f"The setting '{setting}' of a study has a seed; those of the study are used."
                )
            if "data" in changes and self.against == "first setting":
                raise ValueError(
                    f"The setting '{setting}' of a study changes the data and cannot be compared "
                    "with the first setting: compare it with its control."
                )


@dataclass(frozen=True, config=STRICT)
class Profile:
    """Numbers and names of a whole reproduction, read from config/<name>.yaml.

    Attributes:
        name: of the folder under reports/; that of the file.
        seeds: for each variant the seeds it is finetuned with.
        preset: "corrected", or "published" for the published code's choices.
        alpha: mixture of `ALT_both`.
        studies: for notebooks 07 to 11, by the notebook's and the study's name.
        threads: processor threads of a training; results are the same to the last digit on
            machines with more cores, which train several at once.
        processes: processes (GPUs) on each machine that share a pretraining.
        nodes: machines that share a pretraining.
    """

    name: str
    data: DataConfig
    plm: PlmConfig
    pretraining: TrainingConfig
    finetuning: Budgets
    seeds: dict[str, list[Seed]]
    text: TextConfig = TextConfig()
    ctr: CtrConfig = CtrConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    alpha: Literal["sigmoid", "free"] = "sigmoid"
    preset: Literal["corrected", "published"] = "corrected"
    studies: dict[str, dict[str, Study]] = field(default_factory=dict)
    threads: Count = 1
    processes: Count = 1
    nodes: Count = 1

    def __post_init__(self) -> None:
        main = [name for name, variant in VARIANTS.items() if variant.notebook]
        for variant in self.seeds:
            if variant not in main:
                raise ValueError(f"seeds names the variant '{variant}'; {nearest(variant, main)}")
            if not self.seeds[variant]:
                raise ValueError(f"seeds.{variant} is empty; give a seed or leave the line out.")
            if len(set(self.seeds[variant])) < len(self.seeds[variant]):
                raise ValueError(f"seeds.{variant} is {self.seeds[variant]}: duplicate seed.")
        for notebook in self.studies:
            if notebook not in STUDY_NOTEBOOKS:
                raise ValueError(
                    f"studies names the notebook '{notebook}'; {nearest(notebook, STUDY_NOTEBOOKS)}"
                )
        self._check_names()
        budgets = (self.finetuning.ctr, self.finetuning.lang, self.finetuning.both)
        rules = {budget.select_on for budget in budgets}
        if len(rules) > 1:
            raise ValueError(
                f"finetuning mixes early stopping on {' and '.join(sorted(rules))}; the main table "
                "holds one rule: give ctr, lang and both the same select_on."
            )
        if self.pretraining.patience is not None:
            raise ValueError(
                "pretraining.patience has no meaning: pretraining watches no AUC and keeps its "
                "last weights. Leave it out."
            )

    def _check_names(self) -> None:
        """Names become files: none may lead elsewhere or be that of another table or figure."""
        if re.search(r"^\.|[/\\]", self.name) or self.name in ("benchmarks", ""):
            raise ValueError(
                f"The profile is called '{self.name}', which its folder under reports/ cannot "
                "be called; rename the file."
            )
        taken = {name.casefold(): "one of its own" for name in REPORT_NAMES}
        results: dict[str, str] = {}
        for study, made in ((s, m) for of in self.studies.values() for s, m in of.items()):
            if not re.fullmatch(r"[\w-]+", study):
                raise ValueError(
                    f"The study '{study}' has a name that cannot be a file's: use letters, digits, "
                    "_ and -."
                )
            names = [study, *(f"{study}_{part}" for part in STUDY_PARTS)]
            for name in names:
                if other := taken.get(name.casefold()):
                    raise ValueError(
                        f"The study '{study}' has a name that is taken already: it would write the "
                        f"table or figure '{name}' of a report in place of {other}."
                    )
            taken |= {name.casefold(): f"that of the study '{study}'" for name in names}
            for setting in made.settings:
                name = file_name(study, setting)
                if len(name.encode()) > 200:
                    raise ValueError(f"The setting '{setting}' of '{study}' has too long a name.")
                if other := results.get(name.casefold()):
                    raise ValueError(
                        f"The setting '{setting}' of '{study}' would write the same files as "
                        f"{other}: their names differ in signs or capitals only."
                    )
                results[name.casefold()] = f"'{setting}'"

    def aligned(self) -> Pretraining:
        """The pretraining that all aligned variants start from."""
        return Pretraining(
            self.data, self.text, self.plm, self.ctr, self.alignment, self.pretraining
        )

    def run(self, variant: str, seed: int) -> Finetuning:
        """One finetuning of a variant.

        Raises:
            ValueError: there is no such variant.
        """
        if variant not in VARIANTS:
            raise ValueError(f"There is no variant '{variant}'; {nearest(variant, VARIANTS)}")
        of = VARIANTS[variant]
        return Finetuning(
            variant=variant,
            data=self.data,
            training=replace(getattr(self.finetuning, of.budget), seed=seed),
            ctr=self.ctr if of.reads_ids else None,
            text=self.text if of.reads_text else None,
            plm=self.plm if of.reads_text else None,
            alpha=self.alpha if of.kind == "both" else None,
            pretraining=self.aligned() if of.aligned else None,
        )

    def runs(self) -> list[Finetuning]:
        """Every finetuning of the profile."""
        return [self.run(variant, seed) for variant in self.seeds for seed in self.seeds[variant]]


STUDY_NOTEBOOKS = (
    *("07_baselines", "08_backbones", "09_ablations", "10_mask_ratio", "11_plm_scaling"),
)

REPORT_NAMES = (
    *("data", "splits", "sentences", "pretraining", "recovery"),
    *("finetune_ctr", "finetune_lang", "finetune_both"),
    *("main", "controls", "cold", "auc", "logloss", "differences", "claims"),
    *("alignment", "own_words", "field_attention"),
    *("serving", "serving_costs", "serving_basis", "serving_load", "same_cost"),
)
"""The tables and figures of a report, which no study may be called."""

STUDY_PARTS = ("recovery", "recovered", "loss", "cost")
"""Ends of the names of a study's further tables and figures, as `<study>_recovery`."""


def file_name(*words: str) -> str:
    """Words as the name of a file, joined by "-"; what is no letter, digit, - or . becomes _."""
    return re.sub(r"[^-.\w]+", "_", "-".join(words))


PUBLISHED: dict[str, Any] = {
    "text": {"pad": "maximum"},
    "alignment": {
        "mask_id": "zero",
        "mask_absent": True,
        "attention_scaled": False,
        "attend_padding": True,
        "contrast": "dot",
        "temperature": 0.7,
        "noise": "all",
        "mlm_head": "new",
        "mlm_vocabulary": "all",
    },
    "finetuning": {
        "ctr": {"select_on": "test", "embedding_l2": 1e-3},
        "lang": {"select_on": "test"},
        "both": {"select_on": "test"},
    },
    "alpha": "free",
}
"""What the preset "published" puts in place of the defaults; a profile's own lines go first."""


# --- a profile's file ----------------------------------------------------------------------------


def find(name: str, near: Path | None = None) -> Path:
    """The file of a profile.

    Args:
        name: of a file in config/, without its ending, or the path of a YAML file, looked for here
            and in the project's folder: a notebook in JupyterLab runs elsewhere than the batch.
        near: a folder in which a path is looked for first.

    Raises:
        ValueError: there is no such profile.
    """
    if name.endswith((".yaml", ".yml")):
        places = [folder / name for folder in (near, Path(), PROJECT) if folder is not None]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise ValueError(f"There is no profile {name} in {Path.cwd()} or in {PROJECT}.")
        return path
    path = PROJECT / "config" / f"{name}.yaml"
    if not path.is_file():
        known = [p.stem for p in (PROJECT / "config").glob("*.yaml")]
        raise ValueError(f"There is no profile '{name}'; {nearest(name, known)}")
    return path


def files(path: Path) -> list[Path]:
    """The file of a profile, and those of the profiles that it extends, one after the other.

    Raises:
        ValueError: one is no profile, or extends itself.
    """
    chain = [path]
    while (base := read(chain[-1]).get("extends")) is not None:
        if not isinstance(base, str):
            raise ValueError(
                f"{chain[-1].name}: 'extends' is {base!r}; it is the name of one profile."
            )
        try:
            chain.append(find(base, chain[-1].parent))
        except ValueError as error:
            raise ValueError(f"{chain[-1].name} extends '{base}'. {error}") from None
        if chain[-1].resolve() in [file.resolve() for file in chain[:-1]]:
            raise ValueError(f"{path.name} extends itself: {' → '.join(f.stem for f in chain)}.")
    return chain


def content(path: Path) -> dict[str, Any]:
    """The entries of a profile: its own in place of those that it extends, grids as settings.

    Raises:
        ValueError: it is no profile, extends itself, or holds a grid that makes no settings.
    """
    whole: dict[str, Any] = {}
    for file in reversed(files(path)):
        own = {"name": file.stem, **read(file)}
        if own["name"] != file.stem:
            raise ValueError(
                f"{file.name}: 'name' is {own['name']!r}; a profile has the name of its file, "
                f"'{file.stem}'. Leave the entry out."
            )
        own.pop("extends", None)
        whole = merged(whole, own)
    studies = whole.get("studies")
    for notebook in studies.values() if isinstance(studies, dict) else ():
        for name, study in notebook.items() if isinstance(notebook, dict) else ():
            if isinstance(study, dict) and "grid" in study:
                notebook[name] = with_settings(study, f"{path.name}: the study '{name}'")
    return whole


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the entries of `over` put in place, level by level; null removes one."""
    result = {k: merged(v, {}) if isinstance(v, Mapping) else v for k, v in base.items()}
    for key, value in over.items():
        if value is None and key in result:
            del result[key]
        elif isinstance(value, Mapping):
            below = result.get(key)
            result[key] = merged(below if isinstance(below, Mapping) else {}, value)
        else:
            result[key] = value
    return result


def with_settings(study: dict[str, Any], what: str) -> dict[str, Any]:
    """A study with the settings of its grid: every combination of the values of its entries.

    A grid {"name": "text {}, IDs {}", "alignment.text_ratio": [0.15, 0.3], …} holds, beside the
    pattern of the settings' names, lists of values by entry, level by level with dots between.
    """
    rest = {name: value for name, value in study.items() if name != "grid"}
    axes = dict(study["grid"]) if isinstance(study["grid"], dict) else {}
    pattern = axes.pop("name", None)
    lists = all(isinstance(values, list) and values for values in axes.values())
    named = isinstance(pattern, str) and pattern.count("{}") == len(axes)
    if rest.get("settings") or not (axes and lists and named):
        raise ValueError(
            f"{what} has a wrong grid: a grid holds a name as 'text {{}}, IDs {{}}', with {{}} for "
            "each entry, and a list of values for each, and takes the place of settings."
        )
    settings: dict[str, Any] = {}
    for values in itertools.product(*axes.values()):
        name = pattern
        for value in values:
            name = name.replace("{}", str(value), 1)
        if name in settings:
            raise ValueError(f"{what} has a wrong grid: it makes the setting '{name}' twice.")
        settings[name] = {}
        for entry, value in zip(axes, values, strict=True):
            for key in reversed(entry.split(".")):
                value = {key: value}
            settings[name] = merged(settings[name], value)
    return {**rest, "settings": settings}


Planned = dict[str, dict[str, list[Finetuning]]]
"""The finetunings of each setting of each study, by study and setting."""


def load_profile(name: str, changes: Mapping[str, Any] | None = None) -> Profile:
    """Reads a profile.

    Args:
        name: as for `find`.
        changes: entries to put in place of the file's, nested as in the file.

    Raises:
        ValueError: there is no such profile, or an entry is unknown or of the wrong type.
    """
    path = find(name)
    return made_of(merged(content(path), changes or {}), path)


def made_of(entries: dict[str, Any], path: Path) -> Profile:
    """The profile of a file's entries; a ValueError says what is wrong with them."""
    preset = PUBLISHED if entries.get("preset") == "published" else {}
    return checked(merged(preset, entries), path.name, Profile)


def study_runs(profile: str, notebook: str) -> Planned:
    """The finetunings of a notebook's studies.

    Raises:
        ValueError: the profile has no study for this notebook, or a setting is no profile.
    """
    path = find(profile)
    entries = content(path)
    studies = made_of(entries, path).studies
    if notebook not in studies:
        having = ", ".join(studies) or "no notebook"
        raise ValueError(
            f"The profile '{profile}' has studies for {having}, and none for {notebook}."
        )
    del entries["studies"]
    planned: Planned = {}
    for name, study in studies[notebook].items():
        base = merged(entries, study.base)
        settings = planned[name] = {
            setting: runs_of(setting, study, base, path) for setting in study.settings
        }
        rules = {run.training.select_on for several in settings.values() for run in several}
        if len(rules) > 1:
            raise ValueError(
                f"The study '{name}' of '{profile}' mixes early stopping on {' and '.join(rules)}; "
                "a table holds one rule: set finetuning.….select_on in its settings."
            )
    return planned


def runs_of(setting: str, study: Study, base: dict[str, Any], path: Path) -> list[Finetuning]:
    """The finetunings of a setting of a study; a ValueError says what is wrong with it.

    Args:
        setting: its name.
        study: the study.
        base: the entries of the profile with those of the study in place.
        path: of the profile's file.
    """
    changes = dict(study.settings[setting])
    variants = changes.pop("variants", study.variants)
    try:
        whole = made_of(merged(base, changes), path)
    except ValueError as error:
        raise ValueError(f"The setting '{setting}' of a study is wrong: {error}") from None
    runs = []
    for variant in variants:
        for seed in study.seeds:
            chosen = seed if study.pretraining_seed is None else study.pretraining_seed
            seeded = replace(whole, pretraining=replace(whole.pretraining, seed=chosen))
            runs.append(seeded.run(variant, seed))
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m altlib.profile", description=__doc__)
    parser.add_argument("profile", help="a name from config/ or a YAML file")
    try:
        whole = content(find(parser.parse_args().profile))
    except (ValueError, OSError) as error:
        sys.exit(f"altlib: {error}")
    print(yaml.safe_dump(whole, sort_keys=False, width=100, default_flow_style=None), end="")


if __name__ == "__main__":
    main()
