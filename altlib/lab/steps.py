"""The steps that are found or made: prepare, pretrain, finetune.

A notebook and the batch run find each other's work by its key, and a change of a plot trains
nothing. An artefact is whole or absent, by `store`: one that is damaged is made anew.
"""

import json
import os
import shutil
import traceback
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from safetensors.torch import load_file, load_model, save_model
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from altlib import store
from altlib.config import (
    VARIANTS,
    DataConfig,
    Finetuning,
    PlmConfig,
    Pretraining,
    TextConfig,
    TrainingConfig,
)
from altlib.data import fetch, sources
from altlib.data.tabular import Prepared
from altlib.data.tabular import prepare as prepare_rows
from altlib.data.text import TokenTable, sentence_fields
from altlib.lab import keys, metrics
from altlib.lab.keys import data_key, text_key
from altlib.lab.provenance import provenance, versions, warn_of_change
from altlib.models import ctr, plm
from altlib.models.alignment import Alignment
from altlib.models.finetune import (
    AnswerModel,
    BothModel,
    CtrModel,
    LangModel,
    TowersModel,
    click_losses,
)
from altlib.profile import Planned
from altlib.store import home, write_json
from altlib.training.batches import Batches
from altlib.training.loop import fit, predict
from altlib.training.processes import accelerator, processes, seed_step
from altlib.training.recovery import evaluate_alignment

CALL = "ALTLIB_CALL"
"""Names a call of ./run_all.sh in the environment: what fails in it is not tried again in it."""


def found_or_made(folder: Path, write: Callable[[Path], None], everyone: bool = False) -> Path:
    """Returns an artefact's folder, which `write` fills first if it is not there or is damaged.

    Args:
        write: fills the temporary folder that the main process is given; it is renamed when all
            is written.
        everyone: whether all processes take part in `write`; otherwise the main one does.
    """
    state = processes()

    def found() -> bool:
        """Whether the artefact is there and whole: the main process looks for all."""
        known = [store.ended(folder) if state.is_main_process else {}]
        broadcast_object_list(known)
        if known[0].get("call") == os.environ.get(CALL, object()):
            raise {"absent": fetch.Unavailable}.get(known[0]["status"], Failed)(known[0]["reason"])
        whole = [state.is_main_process and folder.exists() and not store.fault(folder)]
        broadcast_object_list(whole)
        return whole[0]

    if found():  # without the lock, which a folder that is only to be read may not have
        return folder
    with store.locked(folder) if state.is_main_process else nullcontext():
        if not found():  # nor has another process made it meanwhile
            failed = store.ended(folder).get("status", "done") != "done"
            if state.is_main_process and folder.exists() and not failed:
                store.set_aside(folder, store.fault(folder))
            try:
                with store.made(folder) if state.is_main_process else nullcontext(folder) as into:
                    state.wait_for_everyone()
                    if everyone or state.is_main_process:
                        write(into)
                    state.wait_for_everyone()
            except Exception as error:
                if state.is_main_process:
                    store.note_failure(folder, failure(error))
                raise
        state.wait_for_everyone()
    return folder


class Failed(RuntimeError):
    """What failed before in the same call of ./run_all.sh, and is not tried again."""


def failure(error: Exception) -> dict[str, Any]:
    """Why a step could not be done, as its `done.json` keeps it."""
    reason = str(error)
    if not isinstance(error, (fetch.Unavailable, Failed)):
        reason = f"{type(error).__name__}: {' '.join(reason.split())}"
    return {
        "status": "absent" if isinstance(error, fetch.Unavailable) else "failed",
        "reason": reason,
        "traceback": traceback.format_exc(),
        "call": os.environ.get(CALL),
    }


def prepare(config: DataConfig) -> Prepared:
    """The data set as ids, labels and splits."""

    def write(folder: Path) -> None:
        data = sources.load(config.dataset, config.options)
        prepare_rows(
            data.frame,
            replace(data.schema.using(config.fields), label=config.label or data.schema.label),
            config,
            provenance={**data.provenance, "versions": versions()},
        ).save(folder)

    return Prepared.load(found_or_made(home() / "artifacts" / "data" / data_key(config), write))


def sentences(data: DataConfig, text: TextConfig, plm_config: PlmConfig) -> TokenTable:
    """What makes sentences of the rows of a data set for a PLM."""
    prepared = prepare(data)

    def write(folder: Path) -> None:
        tokenizer = plm.tokenizer(plm_config.name)
        TokenTable.build(prepared.values, prepared.schema, tokenizer, text).save(folder)

    folder = home() / "artifacts" / "text" / text_key(data, text, plm_config)
    table = TokenTable.load(found_or_made(folder, write), text)
    some = prepared.rows[:: 1 + len(prepared.rows) // 5000].copy()  # of a file that is only read
    present = table.assemble(some).present(some.shape[1]).double().mean(0)
    for field in sentence_fields(prepared.schema, text):
        if (lost := 1 - float(present[field])) >= 0.01:
            warnings.warn(
                f"The words of the field '{prepared.schema.fields[field].name}' are cut off from "
                f"{lost:.0%} of the sentences: text.max_length is {text.max_length}.",
                stacklevel=2,
            )
    return table


def build_alignment(config: Pretraining) -> Alignment:
    """The untrained model of a pretraining: the PLM's weights, the rest drawn from the seed."""
    data = prepare(config.data)
    text = sentences(config.data, config.text, config.plm)
    tokens = text.tokens.unique().long()
    seed_step(config.training.seed)
    id_model = ctr.build(config.ctr, data.features, len(data.schema.fields))
    language = plm.load(config.plm.name, config.plm.dropout, config.text.max_length)
    return Alignment(id_model, language, data, config.alignment, tokens)


def places(config: Pretraining | Finetuning) -> tuple[Path, Path]:
    """Where a run lies when it is made, and its checkpoints until then."""
    place = keys.folder(config)
    return place, place.parents[1] / "checkpoints" / place.name


def pretrain(config: Pretraining) -> Path:
    """Aligns the two models.

    Returns:
        A folder with model.safetensors, the weights of `Alignment`, and history.json, which holds
        losses, recovery, time and provenance.
    """
    place, checkpoints = places(config)

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
            checkpoints,
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

    folder = found_or_made(place, write, everyone=True)
    shutil.rmtree(checkpoints, ignore_errors=True)
    warn_of_change(folder / "history.json", config.plm)
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
    kind, fields = VARIANTS[config.variant].kind, data.schema.fields
    ctr_model = ctr.build(config.ctr, data.features, len(fields)) if config.ctr else None
    language, longest = None, config.text.max_length if config.text else 0
    if config.plm is not None and kind != "answer":
        language = plm.load(config.plm.name, config.plm.dropout, longest)
    if ctr_model is not None and language is not None:
        model: nn.Module = BothModel(ctr_model, language, config.alpha or "sigmoid")
    elif ctr_model is not None:
        model = CtrModel(ctr_model)
    elif language is not None and kind == "towers":
        assert config.plm is not None
        sides = torch.tensor([field.side == "user" for field in fields])
        model = TowersModel(language, plm.load(config.plm.name, config.plm.dropout), sides)
    elif language is not None:
        model = LangModel(language)
    else:
        assert config.plm is not None
        words = plm.tokenizer(config.plm.name)
        yes, no = (words(word, add_special_tokens=False)["input_ids"][0] for word in ("yes", "no"))
        if yes == no:
            raise ValueError(
                f"The tokenizer of '{config.plm.name}' gives “yes” and “no” the same first token."
            )
        model = AnswerModel(plm.load_answering(config.plm.name, config.plm.dropout), (yes, no))
    if config.pretraining is not None:
        aligned = load_file(pretrain(config.pretraining) / "model.safetensors")
        encoder = language.encoder if language is not None else None
        for part, module in (("ctr.", ctr_model), ("encoder.", encoder)):
            if module is not None:
                weights = {n[len(part) :]: w for n, w in aligned.items() if n.startswith(part)}
                module.load_state_dict(weights)
    return model


def rows_and_words(config: Finetuning) -> tuple[Prepared, TokenTable | None]:
    """What a finetuning reads."""
    if config.text is None or config.plm is None:
        return prepare(config.data), None
    return prepare(config.data), sentences(config.data, config.text, config.plm)


def train(
    config: Finetuning,
    data: Prepared,
    text: TokenTable | None,
    split: str,
    checkpoints: Path,
    hopeless: Callable[[list[float]], bool] | None = None,
) -> tuple[nn.Module, Accelerator, dict[str, Any]]:
    """Trains a variant for CTR and watches a split; returns the model, its processes, and what
    `fit` returns."""
    model = build_finetuning(config)
    run = accelerator(config.training)  # only now: the line before may have pretrained
    watched = Batches(data, data.of(split), 1024, text)
    history = fit(
        model,
        lambda model, batch: click_losses(model(batch.ids, batch.text), batch.labels),
        Batches(data, data.of("train"), config.training.batch, text),
        lambda model: scores(data, watched, predict(model, watched, run)),
        config.training,
        run,
        checkpoints,
        f"{'trial of' if hopeless else 'finetuning'} {config.variant}, seed {config.training.seed}",
        checkpoint_seconds(),
        hopeless,
    )
    return model, run, history


def finetune(config: Finetuning) -> dict[str, Any]:
    """Trains a variant for CTR and reads the test split, once.

    Returns:
        The content of results.json: metrics, history, time and provenance. Beside it lie
        predictions.npy, the probabilities of the test rows in their order, and the weights.
    """
    place, checkpoints = places(config)

    def write(folder: Path) -> None:
        data, text = rows_and_words(config)
        model, run, history = train(config, data, text, config.training.select_on, checkpoints)
        test = Batches(data, data.of("test"), 1024, text)
        probabilities = predict(model, test, run)
        epochs = history["epochs"]
        kept = epochs[epoch_kept(epochs, config.training) - 1]
        words = config.plm or (config.pretraining and config.pretraining.plm)
        if run.is_main_process:
            save_model(run.unwrap_model(model), str(folder / "model.safetensors"))
            np.save(folder / "predictions.npy", probabilities)
            write_json(
                folder / "results.json",
                {
                    "dataset": config.data.dataset,
                    "variant": config.variant,
                    "backbone": config.ctr.backbone if config.ctr else None,
                    "plm": words.name if words else None,
                    "seed": config.training.seed,
                    **scores(data, test, probabilities),
                    "watched": {"split": config.training.select_on, **kept["evaluation"]},
                    "epochs": len(epochs),
                    "train_rows": len(data.of("train")),
                    "seconds": history["seconds"],
                    "rows_per_second": speed(history),
                    "history": history,
                    "config": asdict(config),
                    "data": data.provenance,
                    "provenance": provenance(config.plm),
                },
            )

    folder = found_or_made(place, write, everyone=True)
    shutil.rmtree(checkpoints, ignore_errors=True)
    warn_of_change(folder / "results.json", config.plm)
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def trial(config: Finetuning, hopeless: Callable[[list[float]], bool]) -> dict[str, Any]:
    """Trains a variant for tuning, which sees the validation split and never the test split.

    Args:
        hopeless: told the AUC after each epoch so far, whether to go no further.

    Returns:
        The content of trial.json: "epochs" with the AUC and Logloss of the validation split after
        each, whether the trial was "hopeless", its time and provenance.
    """
    place = store.home() / "artifacts" / "trials" / keys.finetuning_key(config)
    checkpoints = place.parents[1] / "checkpoints" / f"trial-{place.name}"

    def write(folder: Path) -> None:
        data, text = rows_and_words(config)
        *_, history = train(config, data, text, "validation", checkpoints, hopeless)
        epochs = history["epochs"]
        content = {
            "epochs": [epoch["evaluation"] for epoch in epochs],
            "hopeless": hopeless([epoch["evaluation"]["auc"] for epoch in epochs]),
            "seconds": history["seconds"],
            "config": asdict(config),
            "provenance": provenance(config.plm),
        }
        write_json(folder / "trial.json", content)

    folder = found_or_made(place, write)
    shutil.rmtree(checkpoints, ignore_errors=True)
    return store.read_json(folder / "trial.json")


def epoch_kept(epochs: list[dict[str, Any]], config: TrainingConfig) -> int:
    """The epoch, from 1, whose weights a run keeps: the best watched, or the last if none was."""
    aucs = [epoch["evaluation"]["auc"] for epoch in epochs]
    return 1 + aucs.index(max(aucs)) if config.patience is not None else len(aucs)


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


def finetune_all(planned: Planned) -> None:
    """Finds or makes the runs of studies, and prints how many are there.

    A run that fails is named, with the reason, and does not stop the others; tables leave it blank.
    """
    whole = done = 0
    for study, settings in planned.items():
        for setting, several in settings.items():
            for config in several:
                whole += 1
                try:
                    finetune(config)
                    done += 1
                except Exception as error:
                    ended = failure(error)
                    name = f"{study}, {setting}: {config.variant}, seed {config.training.seed}"
                    print(f"{name}, {ended['status']}: {ended['reason']}")
    print(f"{done} of {whole} runs are there.")


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
