"""The states of a run on disk, from which it goes on after an interruption."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn

from altlib import store


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
