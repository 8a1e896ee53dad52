"""Profiles as YAML files, and the runs that they name.

A profile may extend another; null removes an entry, and a grid makes a study's settings. What
tuning chose for config/NAME.yaml stands in config/tuned/NAME.yaml and goes before the profile's own
entries; a profile that extends it, and a setting of a study, go before both. `tuned: null` in a
profile leaves out what was chosen for those that it extends.
`./run_all.sh PROFILE --show` prints the whole of what a profile comes to. What is wrong in one is a
ValueError: a sentence that names the file and the entry.
"""

import argparse
import itertools
import re
import sys
from collections.abc import Mapping
from dataclasses import field, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import StrictBool
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

Config = TypeVar("Config")


# --- what a profile holds ----------------------------------------------------------------------


@dataclass(frozen=True, config=STRICT)
class Budgets:
    """The training of each finetuning, the same for aligned and unaligned weights."""

    ctr: TrainingConfig
    lang: TrainingConfig
    both: TrainingConfig


ALIKE = (
    *("name", "seeds", "pretrainings", "studies", "tuning", "tracker"),
    *("threads", "processes", "nodes"),
)
"""Entries of a profile that a study's settings cannot have."""


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
            if "seed" in mapping(changes, "pretraining"):
                raise ValueError(
                    f"The setting '{setting}' of a study has a seed; those of the study are used."
                )
            if idle := [name for name in ALIKE if name in {**self.base, **changes}]:
                raise ValueError(
                    f"The setting '{setting}' of a study has '{idle[0]}', which is the same for "
                    "all runs of a profile and would change nothing."
                )
            if "data" in changes and self.against == "first setting":
                raise ValueError(
                    f"The setting '{setting}' of a study changes the data and cannot be compared "
                    "with the first setting: compare it with its control."
                )


@dataclass(frozen=True, config=STRICT)
class Range:
    """Numbers from `low` to `high`, drawn by their logarithms if `log`."""

    low: float
    high: float
    log: StrictBool = False

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"A range from {self.low:g} to {self.high:g} must rise.")
        if self.log and self.low <= 0:
            raise ValueError(f"A logarithmic range cannot begin at {self.low:g}.")

    @property
    def some(self) -> list[float]:
        """The ends, and a fraction between, as a trial may have it."""
        return [self.low, self.high, self.low + 0.382 * (self.high - self.low)]

    def holds(self, value: Any) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


Choice = bool | int | float | str


@dataclass(frozen=True, config=STRICT)
class Tuning:
    """How the rows of the tables are tuned, all alike, by the AUC of the validation split.

    Attributes:
        space: what each entry of the profile may be, by its path, as "finetuning.ctr.rate": a range
            or a list of choices. A row searches the entries that it reads and does not fix.
        trials: of each row; the first has the profile's own values.
        studies: whose settings are tuned, beside the variants of the main table.
        base: entries to put in place of the profile's in all trials, as a share of the rows.
    """

    space: dict[str, Range | list[Choice]]
    trials: Count = 12
    studies: list[str] = field(default_factory=list)
    base: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for entry, values in self.space.items():
            if isinstance(values, list) and len(values) < 2:
                raise ValueError(f"tuning.space.{entry} is {values}; give a range or two choices.")


@dataclass(frozen=True, config=STRICT)
class Profile:
    """Numbers and names of a whole reproduction, read from config/<name>.yaml.

    Attributes:
        name: of the folder under reports/; that of the file.
        seeds: for each variant the seeds it is finetuned with.
        pretrainings: how many pretrainings aligned variants start from, in turn: seed s from the
            one with seed s modulo this, so that seeds differ in it, too.
        preset: "corrected", or "published" for the published code's choices.
        alpha: mixture of `ALT_both`.
        studies: for notebooks 04 and 07 to 11, by the notebook's and the study's name.
        tuning: how tuning chooses what stands in `tuned`.
        tuned: for each variant, entries in place of the profile's.
        tracker: of every training; see `TrainingConfig`.
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
    tuning: Tuning | None = None
    tuned: dict[str, dict[str, Any]] = field(default_factory=dict)
    pretrainings: Count = 1
    tracker: Literal["tensorboard"] | None = None
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
        if any(budget.seed for budget in budgets):
            raise ValueError(
                "finetuning has a seed; those under seeds, and of a study, are used. Leave it out."
            )
        rules = {budget.select_on for budget in budgets}
        if len(rules) > 1:
            raise ValueError(
                f"finetuning mixes early stopping on {' and '.join(sorted(rules))}; the main table "
                "holds one rule: give ctr, lang and both the same select_on."
            )
        if self.alignment.icl and self.pretraining.batch < 2:
            raise ValueError(
                "pretraining.batch is 1, and ICL compares the rows of a batch: give 2 at least."
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

    def aligned(self, variant: str = "alt_ctr", seed: int = 0) -> Pretraining:
        """The pretraining that a variant starts from with a seed: that of ALT_ctr, but for what was
        tuned in the variant's own."""
        own = self.tuned.get(variant, {})
        start = {part: of for part, of in own.items() if part in START}
        of = changed(
            self, self.tuned.get("alt_ctr", {}) if not start or variant == "alt_ctr" else start
        )
        number = of.pretraining.seed + seed % self.pretrainings
        training = replace(
            of.pretraining, seed=number, tracker=self.tracker or of.pretraining.tracker
        )
        return Pretraining(of.data, of.text, of.plm, of.ctr, of.alignment, training)

    def run(self, variant: str, seed: int) -> Finetuning:
        """One finetuning of a variant."""
        if variant not in VARIANTS:
            raise ValueError(f"There is no variant '{variant}'; {nearest(variant, VARIANTS)}")
        of, own = VARIANTS[variant], self.tuned.get(variant, {})
        if of.aligned and not START & own.keys():  # the ID-based model is that of ALT_ctr, too
            own = merged({"ctr": mapping(self.tuned, "alt_ctr", "ctr")}, own)
        whole = changed(self, own)
        budget = getattr(whole.finetuning, of.budget)
        return Finetuning(
            variant=variant,
            data=whole.data,
            training=replace(budget, seed=seed, tracker=self.tracker or budget.tracker),
            ctr=whole.ctr if of.reads_ids else None,
            text=whole.text if of.reads_text else None,
            plm=whole.plm if of.reads_text else None,
            alpha=whole.alpha if of.kind == "both" else None,
            pretraining=self.aligned(variant, seed) if of.aligned else None,
        )

    def runs(self) -> list[Finetuning]:
        """Every finetuning of the profile."""
        return [self.run(variant, seed) for variant in self.seeds for seed in self.seeds[variant]]


START = {"alignment", "pretraining"}
"""Entries of which a row has its own where its pretraining was searched."""

STUDY_NOTEBOOKS = (
    *("04_finetune_ctr", "07_baselines", "08_backbones", "09_ablations", "10_mask_ratio"),
    "11_plm_scaling",
)

REPORT_NAMES = (
    *("data", "min_count", "splits", "sentences", "mask_ratio_steps"),
    *("pretraining", "temperature", "recovery"),
    *("finetune_ctr", "gap", "finetune_lang", "words_hidden", "finetune_both", "mixing"),
    *("main", "controls", "cold", "auc", "logloss", "differences", "claims", "reported", "trials"),
    *("gradients", "gradients_of_a_field", "parameters", "ratio_square", "masked_fields"),
    *("alignment", "own_words", "field_attention", "needed_words", "field_needs"),
    *("alignment_trade", "serving", "serving_costs", "serving_basis", "same_cost"),
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
    """
    if name.endswith((".yaml", ".yml")):
        places = [folder / name for folder in (near or Path(), Path(), PROJECT)]
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
    """The files of `chain`, each behind what tuning chose for it."""
    return [file for own in chain(path) for file in (chosen(own), own) if file.exists()]


def chosen(path: Path) -> Path:
    """The file of what tuning chose for a profile."""
    return path.parent / "tuned" / path.name


def chain(path: Path) -> list[Path]:
    """The file of a profile, and those of the profiles that it extends, one after the other."""
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


def content(path: Path, tuned: bool = True) -> dict[str, Any]:
    """The entries of a profile: its own in place of those that it extends, grids as settings; with
    what tuning chose for it, if `tuned`.
    """
    whole: dict[str, Any] = {}
    several = chain(path)
    # Those that a profile with `tuned: null` extends are taken as they were before they were tuned.
    last = next((n for n, file in enumerate(several) if read(file).get("tuned", 0) is None), None)
    for number, file in reversed(list(enumerate(several))):
        own = {"name": file.stem, **read(file)}
        if own["name"] != file.stem:
            raise ValueError(
                f"{file.name}: 'name' is {own['name']!r}; a profile has the name of its file, "
                f"'{file.stem}'. Leave the entry out."
            )
        own.pop("extends", None)
        if own.get("tuned", 0) is None:
            del own["tuned"]
        whole = with_changes(whole, own)
        if last is not None and number > last:
            continue
        if chosen(file).exists() and (tuned or file != path):
            over = read(chosen(file))
            known = with_grids(whole, file).get("studies", {})
            if place := lost(over.get("studies", {}), known):
                raise ValueError(
                    f"tuned/{file.name} names '{place}', which {file.name} has not; remove it "
                    f"there, or tune anew: ./run_all.sh {file.stem} --tune."
                )
            whole = merged(whole, over)
    return with_grids(whole, path)


def lost(chosen: Mapping[str, Any], studies: Mapping[str, Any]) -> str:
    """The first notebook, study or setting in what tuning chose that is not among the studies."""
    for name, of in chosen.items():
        if name not in studies:
            return name
        if name != "tuned" and (found := lost(of, {"tuned": {}, **studies[name]})):
            return found
    return ""


def with_changes(entries: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of a profile with others in place, also of what tuning chose.

    A preset among the others brings all its entries.

    Raises:
        ValueError: the others take back a preset, whose entries cannot be told from those of the
            profile.
    """
    if entries.get("preset") == "published" and changes.get("preset", "published") != "published":
        raise ValueError(
            "The preset 'published' of a profile cannot be taken back in one that extends it, or "
            "in a setting of a study: let the profile have no preset, and settings name it."
        )
    changes = with_preset(changes)
    whole = merged(entries, {})
    spare(whole, changes)
    for notebook, studies in mapping(whole, "studies").items():
        for name, study in mapping(studies).items():
            said = mapping(changes, "studies", notebook, name)
            for setting, of in mapping(study, "settings").items():
                for others in (changes, mapping(said, "base"), mapping(said, "settings", setting)):
                    spare(mapping(of), others)
    return merged(whole, changes)


def spare(entries: dict[str, Any], others: Mapping[str, Any]) -> None:
    """Takes out of what tuning chose what other entries say."""
    if isinstance(tuned := entries.get("tuned"), Mapping):
        entries["tuned"] = {
            variant: lacking(of, others) if isinstance(of, Mapping) else of
            for variant, of in tuned.items()
        }


def mapping(entries: Any, *names: str) -> dict[str, Any]:
    """The entries below names, one in the other; none where something else stands."""
    for name in names:
        entries = entries.get(name) if isinstance(entries, dict) else None
    return entries if isinstance(entries, dict) else {}


def in_setting(
    entries: Mapping[str, Any], base: Mapping[str, Any], setting: Mapping[str, Any]
) -> dict[str, Any]:
    """Entries of a profile in a setting of a study.

    What tuning chose for the setting takes the place of what it chose for the profile; a row of
    ALT_ctr whose pretraining was not searched keeps the one that was chosen for the profile.
    """
    changes = {name: of for name, of in setting.items() if name not in ("variants", "tuned")}
    whole = with_changes(with_changes(entries, base), changes)
    tuned = mapping(whole, "tuned")
    for variant, of in mapping(dict(setting), "tuned").items():
        follows = variant == "alt_ctr" and not START & of.keys()
        tuned[variant] = merged(tuned.get(variant, {}), of) if follows else of
    return {**whole, "tuned": tuned}


def with_preset(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Entries behind those of the preset that they name."""
    return merged(PUBLISHED if entries.get("preset") == "published" else {}, entries)


def lacking(entries: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `entries` that `others` do not hold, level by level."""
    rest = {}
    for name, value in entries.items():
        if isinstance(value, Mapping) and isinstance(others.get(name, {}), Mapping):
            rest[name] = lacking(value, others.get(name, {}))
        elif name not in others:
            rest[name] = value
    return rest


def changed(config: Config, changes: Mapping[str, Any]) -> Config:
    """A configuration with entries in place, nested as in it."""
    new = {}
    for name, value in changes.items():
        old = getattr(config, name)
        new[name] = changed(old, value) if is_dataclass(old) else value
    return replace(config, **new)  # type: ignore[type-var]


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the entries of `over` put in place, level by level; null removes one, and stands
    where there is none: the entries may be changes of others."""
    result = {k: merged(v, {}) if isinstance(v, Mapping) else v for k, v in base.items()}
    for key, value in over.items():
        if value is None and result.get(key) is not None:
            del result[key]
        elif isinstance(value, Mapping):
            below = result.get(key)
            result[key] = merged(below if isinstance(below, Mapping) else {}, value)
        else:
            result[key] = value
    return result


def with_grids(entries: dict[str, Any], path: Path) -> dict[str, Any]:
    """The entries of a profile with the settings of grids in place of them."""
    whole = merged(entries, {})
    for notebook in mapping(whole, "studies").values():
        for name, study in mapping(notebook).items():
            if "grid" in mapping(study):
                notebook[name] = with_settings(study, f"{path.name}: the study '{name}'")
    return whole


def with_settings(study: dict[str, Any], what: str) -> dict[str, Any]:
    """A study with the settings of its grid: every combination of the values of its entries.

    A grid {"name": "text {}, IDs {}", "alignment.text_ratio": [0.15, 0.3], …} holds, beside the
    pattern of the settings' names, lists of values by entry, level by level with dots between.
    `settings` beside it add entries to those that it makes.
    """
    rest = {name: value for name, value in study.items() if name != "grid"}
    axes = dict(study["grid"]) if isinstance(study["grid"], dict) else {}
    pattern = axes.pop("name", None)
    lists = all(isinstance(values, list) and values for values in axes.values())
    named = isinstance(pattern, str) and pattern.count("{}") == len(axes)
    if not (axes and lists and named):
        raise ValueError(
            f"{what} has a wrong grid: a grid holds a name as 'text {{}}, IDs {{}}', with {{}} for "
            "each entry, and a list of values for each."
        )
    settings: dict[str, Any] = {}
    for values in itertools.product(*axes.values()):
        name = pattern
        for value in values:
            name = name.replace("{}", str(value), 1)
        if name in settings:
            raise ValueError(f"{what} has a wrong grid: it makes the setting '{name}' twice.")
        settings[name] = placed(dict(zip(axes, values, strict=True)))
    for name in rest.get("settings") or ():
        if name not in settings:
            raise ValueError(f"{what} has a grid, which does not make the setting '{name}'.")
    return {**rest, "settings": merged(settings, rest.get("settings") or {})}


def nested(path: str, value: Any) -> Any:
    """Entries with a value at a path, whose levels have dots between."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


def placed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by path as nested entries."""
    whole: dict[str, Any] = {}
    for path, value in values.items():
        whole = merged(whole, nested(path, value))
    return whole


Planned = dict[str, dict[str, list[Finetuning]]]
"""The finetunings of each setting of each study, by study and setting."""


def load_profile(name: str, changes: Mapping[str, Any] | None = None) -> Profile:
    """Reads the profile that `find` finds, with other entries, nested as in its file, in place."""
    path = find(name)
    return made_of(with_changes(content(path), changes or {}), path)


def made_of(entries: dict[str, Any], path: Path) -> Profile:
    """The profile of a file's entries."""
    whole = checked(entries, path.name, Profile)
    rest = {name: of for name, of in entries.items() if name not in ("studies", "tuned", "tuning")}
    for variant, of in whole.tuned.items():
        if variant not in VARIANTS:
            raise ValueError(
                f"{path.name}: tuned names the variant '{variant}'; {nearest(variant, VARIANTS)}"
            )
        checked(merged(rest, of), f"{path.name}, tuned.{variant}", Profile)
    return whole


def study_runs(profile: str, notebook: str) -> Planned:
    """The finetunings of a notebook's studies."""
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
        settings = planned[name] = {
            setting: runs_of(setting, study, entries, path) for setting in study.settings
        }
        for one, other in itertools.combinations(settings, 2):
            if settings[one] == settings[other]:
                raise ValueError(
                    f"The settings '{one}' and '{other}' of the study '{name}' of '{profile}' are "
                    "the same runs; remove one of them, or have it change what its runs read."
                )
        every = itertools.chain(*settings.values())
        rules = sorted({run.training.select_on for run in every})
        if len(rules) > 1:
            raise ValueError(
                f"The study '{name}' of '{profile}' mixes early stopping on {' and '.join(rules)}; "
                "a table holds one rule: set finetuning.….select_on in its settings."
            )
    return planned


def runs_of(setting: str, study: Study, entries: dict[str, Any], path: Path) -> list[Finetuning]:
    """The finetunings of a setting of a study of the profile with these other entries."""
    changes = study.settings[setting]
    variants = changes.get("variants", study.variants)
    try:
        whole = made_of(in_setting(entries, study.base, changes), path)
    except ValueError as error:
        raise ValueError(f"The setting '{setting}' of a study is wrong: {error}") from None
    runs = []
    for variant in variants:
        for seed in study.seeds:
            chosen = seed if study.pretraining_seed is None else study.pretraining_seed
            start = replace(whole.pretraining, seed=chosen)
            seeded = replace(whole, pretraining=start, pretrainings=1)
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
