"""Configurations, and the steps that are found or made: prepare, pretrain, finetune.

An artefact's key is a hash of the configuration that it depends on and of the files that it reads,
so a notebook and the batch run find each other's work, and a change of a plot trains nothing. An
artefact is whole or absent, by `store`: one that is damaged is made anew.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import asdict, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from pydantic import Field as Limits
from pydantic.dataclasses import dataclass
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_model
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from altlib import ctr, datasets, fetch, metrics, plm, store
from altlib.alignment import Alignment, AlignmentConfig
from altlib.ctr import CtrConfig
from altlib.faults import STRICT, Count, Seed, checked, nearest
from altlib.finetune import (
    AnswerModel,
    BothModel,
    CtrModel,
    LangModel,
    TowersModel,
    click_losses,
)
from altlib.profile import PROJECT, content, find, merged
from altlib.schema import LabelRule
from altlib.store import write_json
from altlib.tabular import Prepared
from altlib.tabular import prepare as prepare_rows
from altlib.text import SentenceTokens, TextConfig, TokenTable
from altlib.training import (
    Batches,
    TrainingConfig,
    accelerator,
    evaluate_alignment,
    fit,
    predict,
    processes,
    seed_step,
)


def home() -> Path:
    """The folder that holds artifacts/ and reports/: `ALTLIB_HOME`, or the project itself."""
    return Path(os.environ.get("ALTLIB_HOME") or PROJECT)


@dataclass(frozen=True, config=STRICT)
class DataConfig:
    """A data set and how its rows are used.

    Attributes:
        dataset: its name, or the path of the YAML file that describes one's own data.
        options: of the data set, as the size of a synthetic one.
        split: by "time" or at "random".
        seed: of the random split and of a sample of rows.
        min_count: a value seen fewer times in the training split counts as unknown.
        rows: use a random sample of this many rows.
        train_share: use a random share of the training split only, to see what few rows do.
        label: what counts as a click, in place of the data set's own rule.
    """

    dataset: str
    options: dict[str, Any] | None = None
    split: Literal["time", "random"] = "time"
    seed: Seed = 0
    min_count: Count = 2
    rows: Count | None = None
    train_share: float = Limits(default=1.0, gt=0, le=1)
    label: LabelRule | None = None


@dataclass(frozen=True, config=STRICT)
class PlmConfig:
    """A pretrained language model and its dropout in training."""

    name: str = Limits(min_length=1)
    dropout: float = Limits(default=0.1, ge=0, lt=1)


@dataclass(frozen=True, config=STRICT)
class Pretraining:
    """Everything that an aligned checkpoint depends on."""

    data: DataConfig
    text: TextConfig
    plm: PlmConfig
    ctr: CtrConfig
    alignment: AlignmentConfig
    training: TrainingConfig


@dataclass(frozen=True, config=STRICT)
class Finetuning:
    """Everything that a finetuned model depends on; what its variant does not read is None."""

    variant: str
    data: DataConfig
    training: TrainingConfig
    ctr: CtrConfig | None = None
    text: TextConfig | None = None
    plm: PlmConfig | None = None
    alpha: Literal["sigmoid", "free"] | None = None
    pretraining: Pretraining | None = None


VARIANTS: dict[str, tuple[str, bool]] = {
    "raw": ("ctr", False),
    "alt_ctr": ("ctr", True),
    "plain_lang": ("lang", False),
    "alt_lang": ("lang", True),
    "plain_both": ("both", False),
    "alt_both": ("both", True),
    "ctr_bert": ("towers", False),
    "p5": ("answer", False),
}
"""The finetuning of each variant, and whether it starts from aligned weights."""

MAIN = tuple(variant for variant in VARIANTS if variant not in ("ctr_bert", "p5"))
"""The variants that notebooks 04 to 06 finetune; others belong into studies."""

BUDGETS = {"ctr": "ctr", "lang": "lang", "both": "both", "towers": "lang", "answer": "lang"}
"""Whose budget a finetuning has."""


@dataclass(frozen=True, config=STRICT)
class FinetuningBudgets:
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
    seeds: list[Seed]
    pretraining_seed: Seed | None = None
    variants: list[str] = field(default_factory=list)
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
    """

    name: str
    data: DataConfig
    plm: PlmConfig
    pretraining: TrainingConfig
    finetuning: FinetuningBudgets
    seeds: dict[str, list[Seed]]
    text: TextConfig = TextConfig()
    ctr: CtrConfig = CtrConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    alpha: Literal["sigmoid", "free"] = "sigmoid"
    preset: Literal["corrected", "published"] = "corrected"
    studies: dict[str, dict[str, Study]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for variant in self.seeds:
            if variant not in MAIN:
                raise ValueError(f"seeds names the variant '{variant}'; {nearest(variant, MAIN)}")
            if not self.seeds[variant]:
                raise ValueError(f"seeds.{variant} is empty; give a seed or leave the line out.")
            if len(set(self.seeds[variant])) < len(self.seeds[variant]):
                raise ValueError(f"seeds.{variant} is {self.seeds[variant]}: duplicate seed.")
        with torch.device("meta"):  # without memory: only to hear what is wrong with the sizes
            ctr.build(self.ctr, features=2, fields=2)
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
                "holds one rule: set select_on of ctr, lang and both alike."
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
                f"The profile is called '{self.name}', and so would be its folder under reports/, "
                "which cannot be; rename the file."
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
        kind, aligned = VARIANTS[variant]
        reads_ids, reads_text = kind in ("ctr", "both"), kind != "ctr"
        return Finetuning(
            variant=variant,
            data=self.data,
            training=replace(getattr(self.finetuning, BUDGETS[kind]), seed=seed),
            ctr=self.ctr if reads_ids else None,
            text=self.text if reads_text else None,
            plm=self.plm if reads_text else None,
            alpha=self.alpha if kind == "both" else None,
            pretraining=self.aligned() if aligned else None,
        )

    def runs(self) -> list[Finetuning]:
        """Every finetuning of the profile."""
        return [self.run(variant, seed) for variant in self.seeds for seed in self.seeds[variant]]


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
    "text": {"pad": "maximum", "tokens": "sentence"},
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
        "mlm_positions": "all",
        "plm_passes": 3,
    },
    "finetuning": {
        "ctr": {"select_on": "test", "embedding_l2": 1e-3},
        "lang": {"select_on": "test"},
        "both": {"select_on": "test"},
    },
    "alpha": "free",
}
"""What the preset "published" puts in place of the defaults; a profile's own lines go first."""


def load_profile(name: str, changes: Mapping[str, Any] | None = None) -> Profile:
    """Reads a profile.

    Args:
        name: as for `profile.find`.
        changes: entries to put in place of the file's, nested as in the file.

    Raises:
        ValueError: there is no such profile, or an entry is unknown or of the wrong type.
    """
    path = find(name)
    whole = merged(content(path), changes or {})
    if whole.get("preset") == "published":
        whole = merged(PUBLISHED, whole)
    return checked(whole, path.name, Profile)


STUDY_NOTEBOOKS = (
    *("07_baselines", "08_backbones", "09_ablations", "10_mask_ratio", "11_plm_scaling"),
)

Planned = dict[str, dict[str, list[Finetuning]]]
"""The finetunings of each setting of each study, by study and setting."""


def study_runs(profile: str, notebook: str) -> Planned:
    """The finetunings of a notebook's studies.

    Raises:
        ValueError: the profile has no study for this notebook, or a setting is no profile.
    """
    studies = load_profile(profile).studies
    if notebook not in studies:
        having = ", ".join(studies) or "no notebook"
        raise ValueError(
            f"The profile '{profile}' has studies for {having}, and none for {notebook}."
        )
    planned = {
        name: {
            setting: [
                setting_of(profile, study, setting, seed).run(variant, seed)
                for variant in changes.get("variants", study.variants)
                for seed in study.seeds
            ]
            for setting, changes in study.settings.items()
        }
        for name, study in studies[notebook].items()
    }
    for name, settings in planned.items():
        rules = {run.training.select_on for several in settings.values() for run in several}
        if len(rules) > 1:
            raise ValueError(
                f"The study '{name}' of '{profile}' mixes early stopping on {' and '.join(rules)}; "
                "a table holds one rule: set finetuning.….select_on in its settings."
            )
    return planned


def setting_of(profile: str, study: Study, setting: str, seed: int) -> Profile:
    """A profile with a setting of a study and a seed of its pretraining in place.

    Raises:
        ValueError: with these entries it is no profile.
    """
    entries = {name: value for name, value in study.settings[setting].items() if name != "variants"}
    chosen = seed if study.pretraining_seed is None else study.pretraining_seed
    seeded = {"pretraining": {"seed": chosen}}
    try:
        return load_profile(profile, merged(merged(study.base, entries), seeded))
    except ValueError as error:
        raise ValueError(f"The setting '{setting}' of a study is wrong: {error}") from None


def key(*parts: Any) -> str:
    """A short hash of configurations (dataclasses or JSON values)."""
    plain = [asdict(p) if hasattr(p, "__dataclass_fields__") else p for p in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def raw_checksums(dataset: str) -> dict[str, str]:
    """SHA-256 of a data set's raw files; none if it is generated."""
    return {} if dataset == "synthetic" else datasets.raw(dataset).sha256


def weights_checksum(name: str) -> str:
    """By which a key tells apart two folders of one name: weights, configuration and tokenizer.

    Of a name whose files are pinned it is the SHA-256 of the weights, which stands for them all;
    else a hash over the SHA-256 of every file that transformers may read.
    """
    base, _ = plm.split_name(name)
    files = {
        file.name: fetch.sha256(file)
        for file in fetch.weights(base).iterdir()
        if file.suffix in (".safetensors", ".bin", ".json", ".txt", ".model")
    }
    if base in fetch.PLMS and files == fetch.PLMS[base].pinned:
        return files["model.safetensors"]
    return key(files)


weights_checksum.cache_clear = fetch.sha256.cache_clear  # type: ignore[attr-defined]


def data_key(config: DataConfig) -> str:
    """Of prepared data: they are made in seconds, so a change of the code makes them anew."""
    code = checksum("schema.py", "datasets", "tabular.py")
    return key(config, raw_checksums(config.dataset), code)


def text_key(data: DataConfig, text: TextConfig, plm_config: PlmConfig) -> str:
    """Of a token table; PLMs of one tokenizer but another depth share it."""
    name, _ = plm.split_name(plm_config.name)
    code = checksum("text.py")
    return key(data_key(data), text.template, text.leave_out, name, weights_checksum(name), code)


def pretraining_key(config: Pretraining) -> str:
    return key(config, raw_checksums(config.data.dataset), weights_checksum(config.plm.name))


def finetuning_key(config: Finetuning) -> str:
    weights = weights_checksum(config.plm.name) if config.plm else None
    start = pretraining_key(config.pretraining) if config.pretraining else None
    return key(config, raw_checksums(config.data.dataset), weights, start)


def found_or_made(folder: Path, write: Callable[[Path], None], everyone: bool = False) -> Path:
    """Returns `folder`, which `write` fills first if it is not there or is damaged.

    Args:
        folder: the artefact.
        write: fills the temporary folder that the main process is given; it is renamed when all
            is written.
        everyone: whether all processes take part in `write`; otherwise the main one does.
    """
    state = processes()

    def found() -> bool:
        """Whether the artefact is there and whole: the main process looks for all."""
        whole = [state.is_main_process and folder.exists() and not store.fault(folder)]
        broadcast_object_list(whole)
        return whole[0]

    if found():  # without the lock, which a folder that is only to be read may not have
        return folder
    with store.locked(folder) if state.is_main_process else nullcontext():
        if not found():  # nor has another process made it meanwhile
            if state.is_main_process and folder.exists():
                store.set_aside(folder, store.fault(folder))
            with store.made(folder) if state.is_main_process else nullcontext(folder) as temporary:
                state.wait_for_everyone()
                if everyone or state.is_main_process:
                    write(temporary)
                state.wait_for_everyone()
        state.wait_for_everyone()
    return folder


def prepare(config: DataConfig) -> Prepared:
    """The data set as ids, labels and splits."""

    def write(folder: Path) -> None:
        data = datasets.load(config.dataset, config.options)
        prepare_rows(
            data.frame,
            replace(data.schema, label=config.label or data.schema.label),
            split=config.split,
            seed=config.seed,
            min_count=config.min_count,
            rows=config.rows,
            train_share=config.train_share,
            provenance={**data.provenance, "versions": versions()},
        ).save(folder)

    return Prepared.load(found_or_made(home() / "artifacts" / "data" / data_key(config), write))


def sentences(
    data: DataConfig, text: TextConfig, plm_config: PlmConfig
) -> TokenTable | SentenceTokens:
    """What makes sentences of the rows of a data set for a PLM."""
    prepared = prepare(data)
    if text.tokens == "sentence":
        tokenizer = plm.tokenizer(plm_config.name)
        values = [value for field in prepared.values for value in field]
        return SentenceTokens(text, values, prepared.schema, tokenizer)

    def write(folder: Path) -> None:
        tokenizer = plm.tokenizer(plm_config.name)
        TokenTable.build(prepared.values, prepared.schema, tokenizer, text).save(folder)

    folder = home() / "artifacts" / "text" / text_key(data, text, plm_config)
    return TokenTable.load(found_or_made(folder, write), text)


def build_alignment(config: Pretraining) -> Alignment:
    """The untrained model of a pretraining: the PLM's weights, the rest drawn from the seed."""
    data = prepare(config.data)
    text = sentences(config.data, config.text, config.plm)
    tokens = text.tokens.unique().long() if isinstance(text, TokenTable) else None
    seed_step(config.training.seed)
    id_model = ctr.build(config.ctr, data.features, len(data.schema.fields))
    language = plm.load(config.plm.name, config.plm.dropout, config.text.max_length)
    return Alignment(id_model, language, data, config.alignment, tokens)


def pretrain(config: Pretraining) -> Path:
    """Aligns the two models.

    Returns:
        A folder with model.safetensors, the weights of `Alignment`, and history.json, which holds
        losses, recovery, time and provenance.
    """
    name = pretraining_key(config)
    root = home() / "artifacts"

    def write(folder: Path) -> None:
        run = accelerator(config.training)
        data, text = prepare(config.data), sentences(config.data, config.text, config.plm)
        model = build_alignment(config)
        training = Batches(data, data.of("train"), config.training.batch, text, model.draw_masks)
        sample = np.random.default_rng(0).permutation(data.of("validation"))[:2048]
        watched = Batches(data, np.sort(sample), config.training.batch, text, model.draw_masks)
        history = fit(
            model,
            lambda model, batch: model(batch.ids, batch.text, batch.masks),
            training,
            lambda model: evaluate_alignment(model, watched, run, seed=0),
            config.training,
            run,
            root / "checkpoints" / name,
            f"pretraining {config.ctr.backbone} + {config.plm.name}",
            checkpoint_seconds(),
        )
        if run.is_main_process:
            save_model(run.unwrap_model(model), str(folder / "model.safetensors"))
            write_json(
                folder / "history.json",
                {
                    **history,
                    "rows_per_second": speed(history),
                    "config": asdict(config),
                    "provenance": provenance(config.plm),
                },
            )

    folder = found_or_made(root / "pretraining" / name, write, everyone=True)
    shutil.rmtree(root / "checkpoints" / name, ignore_errors=True)
    warn_of_other_code(folder / "history.json")
    return folder


def step_cost(config: Pretraining) -> dict[str, float]:
    """What a pretraining costs, whatever the machine.

    Returns:
        "parameters" of the PLM's encoder in millions, and "GFLOP a row" of a training step, forward
        and backward, counted over one batch.
    """
    data, text = prepare(config.data), sentences(config.data, config.text, config.plm)
    model = build_alignment(config).train()
    rows = np.random.default_rng(0).choice(data.of("train"), 32)
    ids, words, *_ = Batches(data, rows, len(rows), text).load(rows, torch.device("cpu"))
    assert words is not None
    # The counter does not know the fused attention of a CPU.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        torch.stack(list(model(ids, words).values())).sum().backward()
    return {
        "parameters": sum(p.numel() for p in model.encoder.parameters()) / 1e6,
        "GFLOP a row": counter.get_total_flops() / len(rows) / 1e9,
    }


def load_alignment(config: Pretraining) -> Alignment:
    """The aligned model, found or made."""
    model = build_alignment(config)
    load_model(model, str(pretrain(config) / "model.safetensors"))
    return model


def build_finetuning(config: Finetuning) -> nn.Module:
    """A variant's model at the start of its finetuning, from aligned or unaligned weights."""
    data = prepare(config.data)
    # One seed draws the same unaligned weights and heads for a variant and its control.
    seed_step(config.training.seed)
    ctr_model = (
        ctr.build(config.ctr, data.features, len(data.schema.fields)) if config.ctr else None
    )
    kind = VARIANTS[config.variant][0]
    language, longest = None, config.text.max_length if config.text else 0
    if config.plm is not None and kind != "answer":
        language = plm.load(config.plm.name, config.plm.dropout, longest)
    if ctr_model is not None and language is not None:
        model: nn.Module = BothModel(ctr_model, language, config.alpha or "sigmoid")
    elif ctr_model is not None:
        model = CtrModel(ctr_model)
    elif language is not None and kind == "towers":
        assert config.plm is not None
        sides = torch.tensor([field.side == "user" for field in data.schema.fields])
        model = TowersModel(language, plm.load(config.plm.name, config.plm.dropout), sides)
    elif language is not None:
        model = LangModel(language)
    elif config.plm is not None:
        words = plm.tokenizer(config.plm.name)
        yes, no = (words(word, add_special_tokens=False)["input_ids"][0] for word in ("yes", "no"))
        if yes == no:
            raise ValueError(f"The tokenizer of '{config.plm.name}' begins “yes” and “no” alike.")
        model = AnswerModel(plm.load_answering(config.plm.name, config.plm.dropout), (yes, no))
    else:
        raise ValueError(f"The run '{config.variant}' has neither an ID-based model nor a PLM.")
    if config.pretraining is not None:
        aligned = load_file(pretrain(config.pretraining) / "model.safetensors")
        encoder = language.encoder if language is not None else None
        for part, module in (("ctr.", ctr_model), ("encoder.", encoder)):
            if module is not None:
                weights = {n[len(part) :]: w for n, w in aligned.items() if n.startswith(part)}
                module.load_state_dict(weights)
    return model


def finetune(config: Finetuning) -> dict[str, Any]:
    """Trains a variant for CTR and reads the test split, once.

    Returns:
        The content of results.json: metrics, test predictions, history, time and provenance.
    """
    name = finetuning_key(config)
    root = home() / "artifacts"

    def write(folder: Path) -> None:
        data = prepare(config.data)
        text = (
            sentences(config.data, config.text, config.plm) if config.text and config.plm else None
        )
        model = build_finetuning(config)
        run = accelerator(config.training)  # only now: the line before may have pretrained
        training = Batches(data, data.of("train"), config.training.batch, text)
        watched = Batches(data, data.of(config.training.select_on), 1024, text)
        test = Batches(data, data.of("test"), 1024, text)
        history = fit(
            model,
            lambda model, batch: click_losses(model(batch.ids, batch.text), batch.labels),
            training,
            lambda model: scores(data, watched, predict(model, watched, run)),
            config.training,
            run,
            root / "checkpoints" / name,
            f"finetuning {config.variant}, seed {config.training.seed}",
            checkpoint_seconds(),
        )
        probabilities = predict(model, test, run)
        epochs = history["epochs"]
        kept = epochs[-1]
        if config.training.patience is not None:
            kept = max(epochs, key=lambda epoch: epoch["evaluation"]["auc"])
        if run.is_main_process:
            save_model(run.unwrap_model(model), str(folder / "model.safetensors"))
            write_json(
                folder / "results.json",
                {
                    "dataset": config.data.dataset,
                    "variant": config.variant,
                    "backbone": config.ctr.backbone if config.ctr else None,
                    "plm": config.plm.name
                    if config.plm
                    else config.pretraining and config.pretraining.plm.name,
                    "seed": config.training.seed,
                    **scores(data, test, probabilities),
                    "watched": {"split": config.training.select_on, **kept["evaluation"]},
                    "epochs": len(epochs),
                    "train_rows": len(training.rows),
                    "seconds": history["seconds"],
                    "rows_per_second": speed(history),
                    "history": history,
                    "config": asdict(config),
                    "data": data.provenance,
                    "provenance": provenance(config.plm),
                    "test": {
                        "rows": test.rows.tolist(),
                        "labels": data.labels[test.rows].tolist(),
                        "users": data.users(test.rows).tolist(),
                        "probabilities": [float(f"{p:.9g}") for p in probabilities],
                    },
                },
            )

    folder = found_or_made(root / "finetuning" / name, write, everyone=True)
    shutil.rmtree(root / "checkpoints" / name, ignore_errors=True)
    with suppress(OSError):  # there is none, or the folder is only to be read
        failure_log(config).unlink()
    warn_of_other_code(folder / "results.json")
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def checkpoint_seconds() -> float:
    """The time between checkpoints, `ALTLIB_CHECKPOINT_SECONDS` or a minute.

    Raises:
        ValueError: it is not a number from 0 on.
    """
    text = os.environ.get("ALTLIB_CHECKPOINT_SECONDS") or "60"
    try:
        seconds = float(text)
    except ValueError:
        seconds = float("nan")
    if not seconds >= 0:
        raise ValueError(f"ALTLIB_CHECKPOINT_SECONDS is '{text}'; it must be a number from 0 on.")
    return seconds


def failure_log(config: Finetuning) -> Path:
    """Where the reason and the traceback of a run lie that failed in `finetune_all`."""
    return home() / "artifacts" / "failed" / f"{key(config)}.txt"


def finetune_all(planned: Planned) -> dict[str, str]:
    """Finds or makes the runs of studies and prints their AUC.

    A run that fails leaves its traceback and does not stop the others; tables name it as missing.

    Returns:
        The keys of the runs by name, for `stamp`; "failed" where one failed, and "absent" where
        no source has the weights or data that it needs.
    """
    keys = {}
    for study, settings in planned.items():
        for setting, several in settings.items():
            for config in several:
                name = f"{study}, {setting}: {config.variant}, seed {config.training.seed}"
                log = failure_log(config)
                try:
                    auc = finetune(config)["auc"]
                except Exception as error:
                    log.parent.mkdir(parents=True, exist_ok=True)
                    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
                    log.write_text(f"{reason}\n\n{traceback.format_exc()}", encoding="utf-8")
                    keys[name] = "absent" if isinstance(error, fetch.Unavailable) else "failed"
                    print(f"{name}, {keys[name]}: {error} (see {log.relative_to(home())})")
                else:
                    keys[name] = finetuning_key(config)
                    print(f"{name}, test AUC {auc:.4f}")
    return keys


def scores(data: Prepared, batches: Batches, probabilities: np.ndarray) -> dict[str, float]:
    """AUC and Logloss of predictions for `batches.rows`."""
    labels = data.labels[batches.rows]
    return {
        "auc": metrics.auc(labels, probabilities),
        "logloss": metrics.logloss(labels, probabilities),
    }


def speed(history: dict[str, Any]) -> float:
    """Training rows a second, evaluation not counted."""
    epochs = history["epochs"]
    return sum(e["rows"] for e in epochs) / sum(e["seconds"] for e in epochs)


PACKAGES = ("torch", "transformers", "accelerate", "pandas", "scikit-learn", "numpy")


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result may depend on."""
    found = {package: importlib.metadata.version(package) for package in PACKAGES}
    return {"python": platform.python_version(), **found}


@cache
def machine() -> str:
    """Processor, cores, memory and GPU in words."""
    model = platform.processor() or platform.machine()
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.exists():
        lines = cpu_info.read_text().splitlines()
        model = next((x.partition(": ")[2] for x in lines if x.startswith("model name")), model)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    words = f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB"
    if torch.cuda.is_available():
        words += f", {torch.cuda.device_count()} × {torch.cuda.get_device_name()}"
    return words


@cache
def checksum(*names: str) -> str:
    """SHA-256 of modules and folders of altlib, short."""
    package = Path(__file__).parent
    files = [file for name in names for file in (package / name, *(package / name).rglob("*.py"))]
    content = b"".join(file.read_bytes() for file in sorted(files) if file.suffix == ".py")
    return hashlib.sha256(content).hexdigest()[:12]


@cache
def code_checksum() -> str:
    """SHA-256 of the modules whose code a result depends on."""
    shown = ("tables", "figures", "claims", "plan", "report", "execute")
    served = ("explorer", "predictor", "serving")
    later = {f"{name}.py" for name in (*shown, *served)}
    package = Path(__file__).parent
    return checksum(*(path.name for path in package.iterdir() if path.name not in later))


def git(*words: str) -> str:
    """Output of a git command on the project; empty where there is no git or no repository."""
    try:
        done = subprocess.run(["git", *words], cwd=PROJECT, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def provenance(plm_config: PlmConfig | None = None) -> dict[str, Any]:
    """Where, when, with what code and from which weights a result was made."""
    weights = {}
    if plm_config is not None:
        name, _ = plm.split_name(plm_config.name)
        weights = {
            "sha256": weights_checksum(name),
            "revision": fetch.revision(fetch.weights(name)),
        }
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "processes": processes().num_processes,
        "versions": versions(),
        "commit": git("rev-parse", "HEAD"),
        "changed since": bool(git("status", "--porcelain", "--", "altlib", "config")),
        "code": code_checksum(),
        "plm": weights,
    }


def report_folder(profile: Profile) -> Path:
    """Where the profile's tables, figures and results go."""
    return home() / "reports" / profile.name


def stamp(notebook: str, profile: Profile, artefacts: Mapping[str, str]) -> dict[str, Any]:
    """Ends a notebook: writes down what it stands on, and returns it with today's provenance.

    The file depends on nothing but configuration and artefacts. A notebook that ran again to the
    same end leaves it as it was, so that nothing behind it has to run.

    Args:
        notebook: its name, as "03_pretraining".
        profile: the profile that it ran with.
        artefacts: keys of what it found or made, by name.
    """
    content = {"notebook": notebook, "profile": key(profile), "artefacts": dict(artefacts)}
    if (shown := report_folder(profile)).exists():
        store.flush(shown)  # a stamp stands for the tables and figures, too
    write_json(home() / "artifacts" / "stamps" / profile.name / f"{notebook}.json", content)
    return {**content, **provenance()}


def warn_of_other_code(file: Path) -> None:
    """Warns if an artefact was made by code other than today's; it is used all the same.

    The words are those of all artefacts that this code made, so that Python shows them once.
    """
    made = json.loads(file.read_text(encoding="utf-8"))["provenance"]["code"]
    if made != code_checksum():
        place = file.parent.parent.relative_to(home())
        warnings.warn(
            f"Some of {place} was made by other code ({made}) than altlib holds now "
            f"({code_checksum()}), as {file.name} of each says. Remove what is to be made anew.",
            stacklevel=3,
        )


def main() -> None:
    """`python -m altlib.runs PROFILE [VARIANT --seed S]`: pretrains, or finetunes one variant.

    Under torchrun or `accelerate launch` the training is shared by their processes.
    """
    parser = argparse.ArgumentParser(prog="python -m altlib.runs", description=main.__doc__)
    parser.add_argument("profile", help="a name from config/ or a YAML file")
    parser.add_argument("variant", nargs="?", help=f"one of {', '.join(VARIANTS)}")
    parser.add_argument("--seed", type=int, default=0)
    words = parser.parse_args()
    if not 0 <= words.seed < 1 << 63:
        parser.error(f"--seed is {words.seed}; it must lie from 0 to {(1 << 63) - 1}.")
    try:
        checkpoint_seconds()
        profile = load_profile(words.profile)
        if words.variant is None:
            outcome: Any = pretrain(profile.aligned())
        else:
            result = finetune(profile.run(words.variant, words.seed))
            outcome = {name: result[name] for name in ("auc", "logloss", "seconds")}
        if processes().is_main_process:
            print(outcome)
    except (ValueError, OSError, SafetensorError) as error:
        sys.exit(f"altlib: {error}")
    except KeyboardInterrupt:
        note = "altlib: interrupted; the same command goes on from the last checkpoint."
        print(note, file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
