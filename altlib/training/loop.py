"""The one training loop, for pretraining and finetuning, on Accelerate.

Everything random in a step follows from (seed, epoch, step, process): a run that was killed goes
on from its last checkpoint to the very numbers of an uninterrupted one. The test split is not seen
here unless `select_on` says so, as the published code does.
"""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm.auto import tqdm

from altlib.config import TrainingConfig
from altlib.models.finetune import prediction
from altlib.training.batches import Batch, Batches
from altlib.training.checkpoint import Checkpoint
from altlib.training.processes import seed_step


@torch.no_grad()
def predict(model: nn.Module, batches: Batches, run: Accelerator) -> np.ndarray:
    """Click probabilities of `batches.rows`, in their order [N]; processes share the work."""
    model.eval()
    mine = batches.ordered()[run.process_index :: run.num_processes]
    found = torch.zeros(len(batches.data.rows), dtype=torch.float64, device=run.device)
    for rows in mine:
        ids, text, *_ = batches.load(rows, run.device)
        with run.autocast():
            logits = run.unwrap_model(model)(ids, text)
        found[torch.from_numpy(rows).to(run.device)] = prediction(logits).double()
    return run.reduce(found, "sum").cpu().numpy()[batches.rows]


def optimiser(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW with its own learning rate for the PLM, whose parameters lie under `encoder`."""
    plm: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (plm if "encoder" in name.split(".") else rest).append(parameter)
    groups = [{"params": rest, "lr": config.rate}, {"params": plm, "lr": config.plm_rate}]
    return torch.optim.AdamW(
        [{**group, "rate": group["lr"]} for group in groups if group["params"]],
        weight_decay=config.weight_decay,
        fused=True,
    )


def fit(
    model: nn.Module,
    losses: Callable[[nn.Module, Batch], dict[str, Tensor]],
    batches: Batches,
    evaluate: Callable[[nn.Module], dict[str, Any]],
    config: TrainingConfig,
    run: Accelerator,
    folder: Path,
    title: str,
    checkpoint_seconds: float = 60.0,
    hopeless: Callable[[list[float]], bool] | None = None,
) -> dict[str, Any]:
    """Trains `model` in place.

    Args:
        model: on return it has the best weights, or the last ones without `patience`.
        losses: a batch's losses by name; their sum is trained.
        batches: the training rows.
        evaluate: called `evaluations` times an epoch; its "auc" at the end of one drives early
            stopping.
        config: how to train.
        run: processes and devices, from `accelerator`.
        folder: for checkpoints; a run that was interrupted goes on from there.
        title: for the progress bar.
        checkpoint_seconds: time between checkpoints.
        hopeless: told the AUC after each epoch so far, whether to go no further.

    Returns:
        "epochs": for each its mean losses, the result of `evaluate` and its training time in
        seconds; "curve": mean losses over about 50 stretches of each epoch, with the rows seen and
        any "evaluation" within the epoch;
        "seconds": of everything, evaluation too, and before an interruption.
    """
    optimizer: Any = optimiser(model, config)
    if config.compile:
        compile_layers(model)
    model, optimizer = run.prepare(model, optimizer)
    inner = run.unwrap_model(model)
    embeddings = [
        p for name, p in inner.named_parameters() if name.endswith("ctr.embedding.weight")
    ]
    checkpoint = Checkpoint(folder)
    if config.tracker:
        run.init_trackers(folder.name)
    state: dict[str, Any] = {
        "epoch": 0, "step": 0, "epochs": [], "curve": [], "best": None, "stale": 0, "seconds": 0.0,
        "rows": 0, "sums": {}, "stretch": {}, "stretch_rows": 0, "elapsed": 0.0,
    }  # fmt: skip
    state = checkpoint.load(inner, optimizer.optimizer) or state
    begun = time.monotonic() - state["elapsed"]
    # A last batch too small to give each process a row is left out.
    odd = len(batches.rows) % batches.size
    per_epoch = len(batches.rows) // batches.size + (odd >= run.num_processes)
    bar = tqdm(
        total=config.epochs * per_epoch,
        initial=state["epoch"] * per_epoch + state["step"],
        desc=title,
        unit="batch",
        disable=not run.is_main_process,
        dynamic_ncols=True,
    )
    saved = time.monotonic()

    def save() -> None:
        nonlocal saved
        state["elapsed"] = time.monotonic() - begun
        checkpoint.save(inner, optimizer.optimizer, state)
        saved = time.monotonic()

    while state["epoch"] < config.epochs and state["stale"] < (config.patience or math.inf):
        plan = batches.shuffled(config.seed, state["epoch"])
        plan = [rows for rows in plan if len(rows) >= run.num_processes]
        # Losses are fetched many at once: for each the host would have to wait for a GPU.
        pending: list[tuple[dict[str, Tensor], int]] = []
        model.train()
        while state["step"] < len(plan):
            started = time.monotonic()
            epoch, step = state["epoch"], state["step"]
            seed_step(config.seed, epoch, step, run.process_index)
            # Every process takes as many rows as the others: a batch's odd ones are left out.
            rows = plan[step][: len(plan[step]) // run.num_processes * run.num_processes]
            batch = batches.load(rows[run.process_index :: run.num_processes], run.device)
            last = step + 1 == len(plan)
            synchronise = last or (step + 1) % config.accumulation == 0
            with nullcontext() if synchronise else run.no_sync(model), run.autocast():
                found = losses(model, batch)
                total = torch.stack(list(found.values())).sum()
                run.backward(total / config.accumulation)
            if synchronise:
                # As a term of the loss it would cost more passes over the table.
                share = (step % config.accumulation + 1) / config.accumulation
                for table in embeddings if config.embedding_l2 else ():
                    table.grad.add_(table.detach(), alpha=2 * config.embedding_l2 * share)
                done = (epoch * len(plan) + step) / (config.epochs * len(plan))
                for group in optimizer.param_groups:
                    group["lr"] = group["rate"] * rate_factor(config, done)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            state["step"] += 1
            pending.append(({name: loss.detach() for name, loss in found.items()}, len(rows)))
            looks = [at * config.evaluations // len(plan) for at in (step, state["step"])]
            looked = not last and looks[0] < looks[1]
            if last or looked or state["step"] % max(1, len(plan) // 50) == 0:
                record(state, pending)
                close_stretch(state)
                losses_now = {k: v for k, v in state["curve"][-1].items() if k != "rows"}
                bar.set_postfix({k: f"{v:.3f}" for k, v in losses_now.items()})
                run.log(losses_now, step=state["curve"][-1]["rows"])
            bar.update()
            state["seconds"] += time.monotonic() - started
            if looked:
                state["curve"][-1]["evaluation"] = evaluate(model)
                model.train()
            due = time.monotonic() - saved >= checkpoint_seconds
            if due and synchronise and not last and run.is_main_process:
                record(state, pending)
                save()
        evaluation = evaluate(model)
        numbers = evaluation.get("loss", evaluation)  # of pretraining, or AUC and Logloss
        run.log({f"evaluation/{k}": v for k, v in numbers.items()}, state["curve"][-1]["rows"])
        finish_epoch(state, evaluation, config, checkpoint, inner, run)
        if time.monotonic() - saved >= checkpoint_seconds and run.is_main_process:
            save()
        if hopeless and hopeless([epoch["evaluation"]["auc"] for epoch in state["epochs"]]):
            break
    bar.close()
    if config.tracker:
        run.end_training()
    run.wait_for_everyone()
    if config.patience is not None:
        checkpoint.load_best(inner)
    seconds = time.monotonic() - begun
    return {"epochs": state["epochs"], "curve": state["curve"], "seconds": seconds}


def compile_layers(model: nn.Module) -> None:
    """Compiles the layers of every stack in `model`: layers of one kind share their graphs, which
    serve sentences of all lengths."""
    for stack in model.modules():
        if isinstance(stack, nn.ModuleList):
            for layer in stack:
                layer.compile(dynamic=True)


def rate_factor(config: TrainingConfig, done: float) -> float:
    """What the learning rates are multiplied by when the share `done` of all steps is taken."""
    return (1 + math.cos(math.pi * done)) / 2 if config.schedule == "cosine" else 1.0


def record(state: dict[str, Any], pending: list[tuple[dict[str, Tensor], int]]) -> None:
    """Moves the losses of steps into the sums of the epoch and of the stretch of the curve.

    Raises:
        ValueError: a loss is not finite.
    """
    for name in pending[0][0] if pending else ():
        values = torch.stack([losses[name] for losses, _ in pending]).tolist()
        if not all(map(math.isfinite, values)):
            raise ValueError(
                f"The training diverged in epoch {state['epoch'] + 1}: the loss '{name}' is no "
                "longer a finite number. Lower the rates."
            )
        for value, (_, rows) in zip(values, pending, strict=True):
            for part in ("sums", "stretch"):
                state[part][name] = state[part].get(name, 0.0) + value * rows
    for part in ("stretch_rows", "rows"):
        state[part] += sum(rows for _, rows in pending)
    pending.clear()


def close_stretch(state: dict[str, Any]) -> None:
    """Turns the sums since the last point of the curve into a point."""
    seen = sum(epoch["rows"] for epoch in state["epochs"]) + state["rows"]
    means = {name: total / state["stretch_rows"] for name, total in state["stretch"].items()}
    state["curve"].append({"rows": seen, **means})
    state["stretch"], state["stretch_rows"] = {}, 0


def finish_epoch(
    state: dict[str, Any],
    evaluation: dict[str, Any],
    config: TrainingConfig,
    checkpoint: Checkpoint,
    model: nn.Module,
    run: Accelerator,
) -> None:
    """Closes an epoch's books: its record, and the best weights if it has the best AUC."""
    state["epochs"].append(
        {
            "train": {name: total / state["rows"] for name, total in state["sums"].items()},
            "evaluation": evaluation,
            "rows": state["rows"],
            "seconds": state["seconds"],
        }
    )
    if config.patience is not None:
        if state["best"] is None or evaluation["auc"] > state["best"]:
            state["best"], state["stale"] = evaluation["auc"], 0
            if run.is_main_process:
                checkpoint.keep_best(model)
        else:
            state["stale"] += 1
    state.update(epoch=state["epoch"] + 1, step=0, rows=0, seconds=0.0, sums={})
