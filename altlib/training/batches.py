"""Rows of a data set as batches that a model reads."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from altlib.data.tabular import Prepared
from altlib.data.text import TextBatch, TokenTable
from altlib.models.alignment import Masks


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
        rows: positions of the rows to go through [N].
        size: rows of a batch.
        text: makes the sentences; None for a model that reads IDs only.
        mask: draws what is masked of ids and sentences; None where nothing is.
    """

    data: Prepared
    rows: np.ndarray
    size: int
    text: TokenTable | None = None
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


def buckets(lengths: np.ndarray, batch: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Batches of rows of about equal length, in random order.

    Rows are shuffled, sorted by length within runs of 50 batches, and cut; a run keeps enough
    chance in a batch's make-up, while hardly any padding is left.

    Args:
        lengths: tokens of each row [N].
        batch: rows of a batch; the last one may be smaller.
    """
    order = generator.permutation(len(lengths))
    runs = np.split(order, range(50 * batch, len(order), 50 * batch))
    order = np.concatenate([run[np.argsort(lengths[run], kind="stable")] for run in runs])
    batches = np.split(order, range(batch, len(order), batch))
    return [batches[i] for i in generator.permutation(len(batches))]
