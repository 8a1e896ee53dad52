"""AFN: crosses of learnt order by logarithmic neurons, then a DNN (arXiv 1909.03276, section 3)."""

import torch
from torch import Tensor, nn

from altlib.config import CtrConfig
from altlib.models.ctr.layers import IdModel, dnn


class LogarithmicLayer(nn.Module):
    """exp(sum_i w_ni log |e_i| + b_n): [B, F, d] -> [B, N, d], with batch norm before and after."""

    def __init__(self, fields: int, neurons: int) -> None:
        super().__init__()
        self.before, self.after = nn.BatchNorm1d(fields), nn.BatchNorm1d(neurons)
        self.orders = nn.Linear(fields, neurons)
        nn.init.normal_(self.orders.weight, std=0.1)
        nn.init.zeros_(self.orders.bias)

    def forward(self, embedded: Tensor) -> Tensor:
        logarithms = self.before(embedded.abs().clamp(min=1e-7).log())  # B, F, d
        return self.after(torch.exp(self.orders(logarithms.mT).mT))  # B, N, d


class AFN(IdModel):
    """logit = Linear(DNN(logarithmic neurons)). R = hidden[-1]."""

    wide = deep = False

    def __init__(self, config: CtrConfig, features: int, fields: int) -> None:
        super().__init__(config, features, fields)
        self.crosses = LogarithmicLayer(fields, config.logarithmic_neurons)
        inputs = config.logarithmic_neurons * config.embedding
        self.dnn = dnn(inputs, config.hidden, config.dropout)
        self.add_head(config.hidden[-1])

    def represent(self, embedded: Tensor) -> Tensor:
        return self.dnn(self.crosses(embedded).flatten(1))
