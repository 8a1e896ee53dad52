"""PNN: a DNN that also reads the inner products of embeddings (arXiv 1611.00144, IPNN)."""

import torch
from torch import Tensor

from altlib.config import CtrConfig
from altlib.models.ctr.layers import IdModel, dnn, pairs


class PNN(IdModel):
    """logit = Linear(DNN(embeddings beside <e_i, e_j> of every two fields)). R = hidden[-1]."""

    wide = deep = False

    def __init__(self, config: CtrConfig, features: int, fields: int) -> None:
        super().__init__(config, features, fields)
        inputs = fields * config.embedding + fields * (fields - 1) // 2
        self.dnn = dnn(inputs, config.hidden, config.dropout)
        self.add_head(config.hidden[-1])

    def represent(self, embedded: Tensor) -> Tensor:
        products = pairs(embedded).sum(2)  # B, F(F-1)/2
        return self.dnn(torch.cat((embedded.flatten(1), products), dim=1))
