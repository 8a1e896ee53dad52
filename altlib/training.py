"""The one training loop, for pretraining and finetuning, on Accelerate.

Everything random in a step follows from (seed, epoch, step, process): a run that was killed goes
on from its last checkpoint to the very numbers of an uninterrupted one. The test split is not seen
here unless `select_on` says so, as the published code does.
"""

import json
import math
import os
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.state import AcceleratorState
from pydantic.dataclasses import dataclass as checked
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn
from tqdm.auto import tqdm

from altlib import store
from altlib.alignment import Masks
from altlib.faults import STRICT, Amount, Count, Seed
from altlib.finetune import prediction
from altlib.tabular import Prepared
from altlib.text import SentenceTokens, TextBatch, TokenTable, buckets


@checked(frozen=True, config=STRICT)
class TrainingConfig:
    """How a model is trained.

    Attributes:
        epochs: passes over the training split, at most.
        batch: rows of an optimiser step on all processes, unless accumulated.
        rate: AdamW's learning rate of everything but the PLM.
        plm_rate: learning rate of the PLM.
        weight_decay: AdamW's, decoupled.
        embedding_l2: weight of the squared norm of the ID embeddings in the loss.
        schedule: "constant", or "cosine" down to 0 over all epochs.
        patience: stop after this many epochs without a better AUC and keep the best weights;
            None trains all epochs and keeps the last.
        evaluations: how often an epoch the model is evaluated; early stopping looks at the last.
        select_on: the split whose AUC early stopping watches.
        accumulation: batches whose gradients make one optimiser step.
        precision: "auto" is bf16 on a GPU and fp32 on a CPU, where bf16 is slower.
        compile: the layers of the PLM by torch.compile, and cross layers; takes half a minute at
            the start and needs a C++ compiler, and a run is then not repeatable to the last bit.
        seed: of weights, order, masks and dropout.
    """

    epochs: Count
    batch: Count
    rate: Amount
    plm_rate: Amount = 5e-5
    weight_decay: Amount = 0.0
    embedding_l2: Amount = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    patience: Count | None = None
    evaluations: Count = 1
    select_on: Literal["validation", "test"] = "validation"
    accumulation: Count = 1
    precision: Literal["auto", "no", "bf16"] = "auto"
    compile: bool = False
    seed: Seed = 0


class Batch(NamedTuple):
    """Rows as a model reads them.

    Attributes:
        ids: feature ids [B, F].
        text: the sentences, if the model reads any.
        labels: clicks [B].
        masks: what is masked in pretraining.
    """

    ids: Tensor
    text: TextBatch | None
    labels: Tensor
    masks: Masks | None = None

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device; a GPU fetches it while the host goes on."""
        return Batch(*(sent(part, device) for part in self))


def sent(part: Any, device: torch.device) -> Any:
    """A tensor, or a dataclass of tensors, on `device`."""
    if part is None or device.type == "cpu":
        return part
    if isinstance(part, Tensor):
        return part.pin_memory().to(device, non_blocking=True)
    return replace(part, **{name: sent(value, device) for name, value in vars(part).items()})


@dataclass
class Batches:
    """Rows of a data set as batches of ids, sentences and labels.

    Attributes:
        data: the prepared data set.
        rows: positions of the rows to go through [N].
        size: rows of a batch.
        text: makes the sentences; None for a model that reads IDs only.
        mask: draws what is masked of ids and sentences; None where nothing is.
    """

    data: Prepared
    rows: np.ndarray
    size: int
    text: TokenTable | SentenceTokens | None = None
    mask: Callable[[Tensor, TextBatch], Masks] | None = None

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each row's sentence [N]; the rows, which may lie on disk, are read in parts."""
        if self.text is None:
            return np.zeros(len(self.rows))
        parts = np.array_split(self.rows, 1 + len(self.rows) // 1_000_000)
        return np.concatenate([self.text.lengths(self.data.rows[part]) for part in parts])

    def shuffled(self, seed: int, epoch: int) -> list[np.ndarray]:
        """The rows of each batch of an epoch, in random order; sentences of about equal length."""
        generator = np.random.default_rng([seed, epoch])
        return [self.rows[batch] for batch in buckets(self.lengths, self.size, generator)]

    def ordered(self) -> list[np.ndarray]:
        """The rows of each batch, shortest sentences first, for evaluation."""
        rows = self.rows[np.argsort(self.lengths, kind="stable")]
        return np.split(rows, range(self.size, len(rows), self.size))

    def load(self, rows: np.ndarray, device: torch.device) -> Batch:
        """`rows` as a batch on `device`."""
        ids = torch.from_numpy(self.data.ids(rows))
        labels = torch.from_numpy(self.data.labels[rows])
        # Lengths that fused attention on a GPU asks for.
        multiple = 8 if device.type == "cuda" else 1
        text = self.text.assemble(self.data.rows[rows], multiple) if self.text else None
        masks = self.mask(ids, text) if self.mask and text else None
        return Batch(ids, text, labels, masks).to(device)


def seed_step(*numbers: int) -> None:
    """Seeds torch from a tuple of numbers, as (seed, epoch, step, process)."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
    # torch.manual_seed would also note a stack trace for each kind of GPU that is not in use.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)


def processes() -> PartialState:
    """This process among those of torchrun or `accelerate launch`; alone without them."""
    # Accelerate heeds these more than what it is told, and no key of an artefact holds them.
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        del os.environ[name]
    # Without being told, it takes several processes on CPUs for as many single ones.
    return PartialState(cpu=not torch.cuda.is_available())


def accelerator(config: TrainingConfig) -> Accelerator:
    """The processes and devices of this run, in the precision that `config` asks for.

    It takes the place of the one before: Accelerate keeps one precision a process, and would refuse
    to finetune in another than that of pretraining.
    """
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if torch.cuda.is_available() else "no"
    processes()  # leaves Accelerate nothing to read from the environment
    AcceleratorState._reset_state()
    # Pretraining leaves the CTR logit unused, finetuning whatever only aligns.
    return Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision=precision,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )


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


@torch.no_grad()
def evaluate_alignment(
    model: nn.Module, batches: Batches, run: Accelerator, seed: int
) -> dict[str, Any]:
    """Losses and recovery of the masked words and IDs, with the same masks at every call.

    Returns:
        "loss": mean of each loss; "recovery": for each kind of `Alignment.recovery` and each field
        the number of masked items, the share that comes back and their mean loss in nats,
        {name: [number, share, loss]}.
    """
    inner = run.unwrap_model(model).eval()
    names = batches.data.schema.field_names
    totals: dict[str, float] = {}
    sums: dict[str, np.ndarray] = {}
    # Every process takes all rows, so that each knows the same result.
    for step, rows in enumerate(batches.ordered()):
        seed_step(seed, step)
        ids, text, _, masks = batches.load(rows, run.device)
        with run.autocast():
            for name, loss in inner(ids, text, masks).items():
                totals[name] = totals.get(name, 0.0) + float(loss) * len(rows) / len(batches.rows)
            for name, (field, *measures) in inner.recovery(ids, text, masks).items():
                total = sums.setdefault(name, np.zeros((3, len(names))))
                of = field.cpu().numpy()
                for line, measure in zip(total, [torch.ones_like(field), *measures], strict=True):
                    np.add.at(line, of, measure.double().cpu().numpy())
    recovery = {
        kind: {
            name: [int(number), right / number, loss / number]
            for name, number, right, loss in zip(names, *total.tolist(), strict=True)
            if number
        }
        for kind, total in sums.items()
    }
    return {"loss": totals, "recovery": recovery}


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


class Checkpoint:
    """The last two states of a run and its best weights on disk, each whole or absent.

    Tensors lie there as safetensors, the rest as JSON.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.best = folder / "best"
        folder.mkdir(parents=True, exist_ok=True)

    def save(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]
    ) -> None:
        """Writes a checkpoint and then removes all but the one before."""
        target = self.folder / f"step-{state['epoch']:05d}-{state['step']:07d}"
        with store.made(target) as temporary:
            save_model(model, str(temporary / "model.safetensors"))
            moments = {
                f"{index}.{name}": value
                for index, entry in optimizer.state_dict()["state"].items()
                for name, value in entry.items()
            }
            save_file(moments, temporary / "optimizer.safetensors")
            (temporary / "state.json").write_text(json.dumps(state), encoding="utf-8")
        for old in sorted(self.folder.glob("step-*"))[:-2]:
            shutil.rmtree(old)

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
        """Puts the newest checkpoint's state into model and optimizer and returns the rest.

        One that is damaged or does not fit is set aside with a warning, and the one before is
        taken; without any the model is as it was.
        """
        found = sorted(self.folder.glob("step-*"), reverse=True)
        begun = {n: t.clone() for n, t in model.state_dict().items()} if found else {}
        for folder in found:
            try:
                return self._read(folder, model, optimizer)
            except (ValueError, LookupError, RuntimeError, OSError, SafetensorError) as error:
                store.set_aside(folder, " ".join(str(error).split())[:300])
                model.load_state_dict(begun)
        return None

    def _read(
        self, folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> dict[str, Any]:
        state = store.read_json(folder / "state.json")
        if why := store.fault(folder) or (state["best"] is not None and store.fault(self.best)):
            raise ValueError(why)
        entries: dict[int, dict[str, Tensor]] = {}
        for name, value in load_file(folder / "optimizer.safetensors").items():
            index, key = name.split(".")
            entries.setdefault(int(index), {})[key] = value
        load_model(model, str(folder / "model.safetensors"))
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": entries, "param_groups": groups})
        return state

    def keep_best(self, model: nn.Module) -> None:
        """Writes the model as the best one so far."""
        with store.made(self.best) as temporary:
            save_model(model, str(temporary / "model.safetensors"))

    def load_best(self, model: nn.Module) -> None:
        """Puts the best weights into the model.

        Raises:
            ValueError: they are damaged; the next run begins from the start.
        """
        load_model(model, str(store.checked(self.best / "model.safetensors")))


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

    while state["epoch"] < config.epochs and not stopped(state, config):
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
                bar.set_postfix(
                    {k: f"{v:.3f}" for k, v in state["curve"][-1].items() if k != "rows"}
                )
            bar.update()
            state["seconds"] += time.monotonic() - started
            if looked:
                state["curve"][-1]["evaluation"] = evaluate(model)
                model.train()
            due = time.monotonic() - saved >= checkpoint_seconds
            if due and synchronise and not last and run.is_main_process:
                record(state, pending)
                save()
        finish_epoch(state, evaluate(model), config, checkpoint, inner, run)
        if time.monotonic() - saved >= checkpoint_seconds and run.is_main_process:
            save()
    bar.close()
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


def stopped(state: dict[str, Any], config: TrainingConfig) -> bool:
    """Whether the AUC has not risen for `patience` epochs."""
    return config.patience is not None and state["stale"] >= config.patience


def record(state: dict[str, Any], pending: list[tuple[dict[str, Tensor], int]]) -> None:
    """Moves the losses of steps into the sums of the epoch and of the stretch of the curve.

    Raises:
        ValueError: a loss is not finite.
    """
    for name in pending[0][0] if pending else ():
        values = torch.stack([losses[name] for losses, _ in pending]).tolist()
        if not all(map(math.isfinite, values)):
            raise ValueError(
                f"The training came apart in epoch {state['epoch'] + 1}: the loss '{name}' is no "
                "finite number any more. Lower the rates."
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
