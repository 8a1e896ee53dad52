"""What every ID-based model shares: field embeddings, first-order term, DNN and head.

A model file then holds only its interaction. The first-order term, of those that have one, is the
wide part of Wide & Deep (arXiv 1606.07792, section 3.1).
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from altlib.config import CtrConfig


class Embedding(nn.Embedding):
    """`nn.Embedding` by `index_select`, whose gradient takes a third of the time on a CPU."""

    def forward(self, ids: Tensor) -> Tensor:
        if ids.is_cuda:  # there that gradient is summed in any order
            return super().forward(ids)
        return self.weight.index_select(0, ids.flatten()).view(*ids.shape, -1)


class IdModel(nn.Module):
    """Field embeddings and, as the class says, a first-order term and a DNN over the embeddings.

    The first-order term also stands where a model's paper has none, as in the published code of
    ALT. A model defines `represent` and calls `add_head`; one whose logit is more than its head's
    defines `forward`.

    Args:
        config: sizes.
        features: rows of the embedding table, reserved ids included.
        fields: F, ids in a row.

    Attributes:
        embedding: the table [features, d].
        representation_size: R.
        head: Linear, representation to logit; with a bias where there is no first-order term.
    """

    wide: ClassVar[bool] = True
    """Whether the model has a first-order term."""
    deep: ClassVar[bool] = True
    """Whether it has `dnn`, which reads the embeddings side by side."""
    representation_size: int

    def __init__(self, config: CtrConfig, features: int, fields: int) -> None:
        super().__init__()
        self.embedding = Embedding(features, config.embedding)
        if self.wide:
            self.linear = Embedding(features, 1)
            self.bias = nn.Parameter(self.linear.weight.new_zeros(()))
        if self.deep:
            self.dnn = dnn(fields * config.embedding, config.hidden, config.dropout)
        # Small, so that products of rarely seen features start near nothing; and a feature that
        # training never meets (a reserved id) keeps a first-order weight of exactly 0.
        nn.init.normal_(self.embedding.weight, std=1e-2)
        if self.wide:
            nn.init.zeros_(self.linear.weight)

    def add_head(self, size: int) -> None:
        """Makes the head that reads a representation of R = `size` numbers."""
        self.representation_size = size
        self.head = nn.Linear(size, 1, bias=not self.wide)

    def represent(self, embedded: Tensor) -> Tensor:
        """The representation [B, R] of embeddings [B, F, d]."""
        raise NotImplementedError

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The representation [B, R] and the logit [B] of ids [B, F]."""
        representation = self.represent(self.embedding(ids))
        logit = self.head(representation).squeeze(1)
        return representation, self.first_order(ids) + logit if self.wide else logit

    def first_order(self, ids: Tensor) -> Tensor:
        """Sum of the fields' weights and the bias: ids [B, F] -> [B]."""
        return self.linear(ids).sum(dim=(1, 2)) + self.bias


def dnn(inputs: int, hidden: tuple[int, ...], dropout: float) -> nn.Sequential:
    """Linear, ReLU and dropout for each width: [B, inputs] -> [B, hidden[-1]]."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.ReLU(inplace=True)]
        if dropout:
            layers.append(nn.Dropout(dropout))
        inputs = width
    return nn.Sequential(*layers)


def pairs(embedded: Tensor) -> Tensor:
    """e_i * e_j, element by element, of every two fields i < j: [B, F, d] -> [B, F(F-1)/2, d]."""
    first, second = torch.triu_indices(embedded.shape[1], embedded.shape[1], 1)
    return embedded[:, first] * embedded[:, second]
