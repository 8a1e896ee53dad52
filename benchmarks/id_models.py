"""Training of ID-based models against the same models of deepctr-torch, each by its own loop."""

import contextlib
import io
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from deepctr_torch.inputs import SparseFeat
from deepctr_torch.models import AutoInt, DCNMix, DeepFM
from deepctr_torch.models.basemodel import BaseModel
from torch import nn

from altlib.config import BACKBONES, CtrConfig, DataConfig, TrainingConfig
from altlib.data.tabular import Prepared
from altlib.lab import steps
from altlib.models import ctr
from altlib.models.finetune import CtrModel, click_losses
from altlib.training.batches import Batches
from altlib.training.loop import fit
from altlib.training.processes import accelerator
from benchmarks.common import Figure, compared

BATCH, WIDTH, DNN = 1024, 32, (300, 300, 128)
TARGETS = {"dcnv2": ">=3", "deepfm": ">=2", "autoint": ">=2.5"}
L2 = 1e-5  # of the embeddings; deepctr-torch has it on the small weights outside the DNN, too


def peers(data: Prepared) -> dict[str, BaseModel]:
    """The models of deepctr-torch in the sizes of ours."""
    sizes = np.diff(data.vocabulary.starts)
    columns = [
        SparseFeat(name, int(size), embedding_dim=WIDTH)
        for name, size in zip(data.schema.field_names, sizes, strict=True)
    ]
    models = {
        "dcnv2": DCNMix(
            columns, columns, cross_num=2, dnn_hidden_units=DNN, low_rank=32, num_experts=4
        ),
        "deepfm": DeepFM(columns, columns, dnn_hidden_units=DNN),
        "autoint": AutoInt(columns, columns, att_layer_num=3, att_head_num=2, dnn_hidden_units=DNN),
    }
    for model in models.values():
        model.compile("adam", "binary_crossentropy")
    return models


def measure(rounds: int = 5, rows: int = 102_400) -> list[Figure]:
    """Rows a second of one epoch over `rows` rows of MovieLens-1M, both on the CPU."""
    if torch.cuda.is_available():
        raise SystemExit("This compares CPUs: set CUDA_VISIBLE_DEVICES to nothing.")
    data = steps.prepare(DataConfig("ml-1m"))
    chosen = data.of("train")[:rows]
    local = data.ids(chosen) - data.vocabulary.starts[:-1]
    labels = data.labels[chosen].astype(np.float32)
    config = TrainingConfig(epochs=1, batch=BATCH, rate=1e-3, embedding_l2=L2)
    batches = Batches(data, chosen, BATCH)

    def our_epoch(model: nn.Module) -> Callable[[], None]:
        def epoch() -> None:
            with tempfile.TemporaryDirectory() as folder:
                fit(
                    model,
                    lambda model, batch: click_losses(model(batch[0], None), batch[2]),
                    batches,
                    lambda model: {"auc": 0.0},
                    config,
                    accelerator(config),
                    Path(folder),
                    "",
                    checkpoint_seconds=float("inf"),
                )

        return epoch

    def peer_epoch(model: BaseModel) -> Callable[[], None]:
        inputs = {
            name: local[:, f].astype(np.float32) for f, name in enumerate(data.schema.field_names)
        }

        def epoch() -> None:
            with contextlib.redirect_stdout(io.StringIO()):
                model.fit(dict(inputs), labels, batch_size=BATCH, epochs=1, verbose=0)

        return epoch

    figures = []
    for name, peer in peers(data).items():
        torch.manual_seed(0)
        model = CtrModel(
            ctr.build(CtrConfig(backbone=name), data.features, len(data.schema.fields))
        )
        figures.append(
            compared(
                f"training of {BACKBONES[name]}",
                TARGETS[name],
                rows,
                peer_epoch(peer),
                our_epoch(model),
                rounds,
            )
        )
    return figures


def main() -> None:
    for figure in measure():
        print(figure)


if __name__ == "__main__":
    main()
