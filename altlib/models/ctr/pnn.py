"""PNN: a DNN that also reads the inner products of embeddings (arXiv 1611.00144, IPNN)."""

import torch
from torch import Tensor, nn

from altlib.config import CtrConfig
from altlib.models.ctr.layers import IdModel, dnn, pairs


class PNN(IdModel):
    """logit = Linear(DNN(embeddings beside <e_i, e_j> of every two fields)). R = hidden[-1].

    Args:
        config: sizes.
        features: rows of the embedding table.
        fields: F.
    """

    wide = deep = False

    def __init__(self, config: CtrConfig, features: int, fields: int) -> None:
        super().__init__(config, features, fields)
        inputs = fields * config.embedding + fields * (fields - 1) // 2
        self.dnn = dnn(inputs, config.hidden, config.dropout)
        self.representation_size = config.hidden[-1]
        self.head = nn.Linear(self.representation_size, 1)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        embedded = self.embedding(ids)  # B, F, d
        products = pairs(embedded).sum(2)  # B, F(F-1)/2
        representation = self.dnn(torch.cat((embedded.flatten(1), products), dim=1))
        return representation, self.head(representation).squeeze(1)
