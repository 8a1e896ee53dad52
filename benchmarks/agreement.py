"""Test AUC of our ID-based models and of those of deepctr-torch, by the same loop and budget.

`python -m benchmarks.agreement` trains each with three seeds on MovieLens-100K as the profile
"quick" does, and writes reports/benchmarks/tables/agreement.csv and .md after each. Models that
stand there are not trained again: delete the table to begin anew.
"""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from deepctr_torch.inputs import SparseFeat
from deepctr_torch.models import AFM, AFN, DCN, PNN, WDL, AutoInt, DCNMix, DeepFM, xDeepFM
from torch import Tensor, nn

from altlib.config import BACKBONES, CtrConfig
from altlib.data.tabular import Prepared
from altlib.data.text import TextBatch
from altlib.lab import metrics, show, steps
from altlib.models import ctr
from altlib.models.finetune import CtrModel, click_losses
from altlib.profile import load_profile
from altlib.store import home
from altlib.training.batches import Batches
from altlib.training.loop import fit, predict
from altlib.training.processes import accelerator, seed_step

SEEDS = range(3)
SIZES = CtrConfig()


class Peer(nn.Module):
    """A model of deepctr-torch as our loop wants it.

    Args:
        model: takes ids that begin anew in each field, as floats, and returns probabilities.
        starts: first feature id of each field [F].
    """

    starts: Tensor

    def __init__(self, model: nn.Module, starts: np.ndarray) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("starts", torch.from_numpy(starts))

    def forward(self, ids: Tensor, text: TextBatch | None) -> dict[str, Tensor]:
        """Logits {"ctr": [B]} of ids [B, F]."""
        probability = self.model((ids - self.starts).float()).squeeze(1)
        return {"ctr": torch.logit(probability, eps=1e-7)}


def peers(data: Prepared, seed: int) -> dict[str, nn.Module]:
    """The models of deepctr-torch in the sizes of ours, by our names."""
    columns = [
        SparseFeat(name, int(size), embedding_dim=SIZES.embedding)
        for name, size in zip(data.schema.field_names, np.diff(data.vocabulary.starts), strict=True)
    ]
    both, every = (columns, columns), {"seed": seed}
    deep = {"dnn_hidden_units": SIZES.hidden, **every}
    return {
        "afm": AFM(*both, attention_factor=SIZES.embedding, **every),
        "pnn": PNN(columns, **deep),
        "widedeep": WDL(*both, **deep),
        "dcn": DCN(*both, cross_num=SIZES.cross_layers, **deep),
        "deepfm": DeepFM(*both, **deep),
        "xdeepfm": xDeepFM(
            *both, cin_layer_size=SIZES.cin, cin_split_half=False, cin_activation="linear", **deep
        ),
        "afn": AFN(
            *both,
            ltl_hidden_size=SIZES.logarithmic_neurons,
            afn_dnn_hidden_units=SIZES.hidden,
            init_std=1e-2,  # as ours: logarithms tell how small embeddings begin
            **every,
        ),
        "autoint": AutoInt(
            *both,
            att_layer_num=SIZES.attention_layers,
            att_head_num=SIZES.attention_heads,
            **deep,
        ),
        "dcnv2": DCNMix(
            *both,
            cross_num=SIZES.cross_layers,
            low_rank=SIZES.low_rank,
            num_experts=SIZES.experts,
            **deep,
        ),
    }


def trained(model: nn.Module, data: Prepared, seed: int) -> float:
    """Test AUC after training with the budget of "quick" and early stopping on validation."""
    budget = load_profile("quick", {"finetuning": {"ctr": {"seed": seed}}}).finetuning.ctr
    run = accelerator(budget)
    watched, test = (Batches(data, data.of(split), 1024) for split in ("validation", "test"))

    def auc(model: nn.Module, batches: Batches) -> float:
        return metrics.auc(data.labels[batches.rows], predict(model, batches, run))

    with tempfile.TemporaryDirectory() as folder:
        fit(
            model,
            lambda model, batch: click_losses(model(batch[0], None), batch[2]),
            Batches(data, data.of("train"), budget.batch),
            lambda model: {"auc": auc(model, watched)},
            budget,
            run,
            Path(folder),
            "",
            checkpoint_seconds=float("inf"),
        )
    return auc(model, test)


def main() -> None:
    data = steps.prepare(load_profile("quick").data)
    fields = len(data.schema.fields)
    folder = home() / "reports" / "benchmarks"
    table = folder / "tables" / "agreement.csv"
    lines = pd.read_csv(table).to_dict("records") if table.exists() else []
    done = {line["model"] for line in lines}
    for name in peers(data, 0):
        if BACKBONES[name] in done:
            continue
        aucs: dict[str, list[float]] = {"altlib": [], "deepctr-torch": []}
        for seed in SEEDS:
            seed_step(seed)
            ours = CtrModel(ctr.build(CtrConfig(backbone=name), data.features, fields))
            aucs["altlib"].append(trained(ours, data, seed))
            theirs = Peer(peers(data, seed)[name], data.vocabulary.starts[:-1])
            aucs["deepctr-torch"].append(trained(theirs, data, seed))
        line: dict[str, object] = {"model": BACKBONES[name]}
        for of, found in aucs.items():
            line[of], line[f"{of}, s.d."] = np.mean(found), np.std(found, ddof=1)
        lines.append(line)
        print(line, flush=True)
        show.write(pd.DataFrame(lines), folder, "agreement")


if __name__ == "__main__":
    main()
