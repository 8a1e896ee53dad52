"""FinalMLP: two gated MLPs, fused bilinearly (arXiv 2304.00902, section 3)."""

import math

import torch
from torch import Tensor, nn

from altlib.config import CtrConfig
from altlib.models.ctr.layers import IdModel, dnn


class Stream(nn.Module):
    """DNN(2 sigmoid(g) * e): a gate g that the stream has learnt selects among the embeddings."""

    def __init__(self, inputs: int, hidden: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(inputs))
        self.dnn = dnn(inputs, hidden, dropout)

    def forward(self, embedded: Tensor) -> Tensor:
        return self.dnn(2 * self.gate.sigmoid() * embedded)


class FinalMLP(IdModel):
    """logit = b + w_1' o_1 + w_2' o_2 + sum over heads of o_1h' W_h o_2h. R = 2 hidden[-1].

    The gates are free parameters, the paper's form for data without a context to gate by.
    """

    wide = deep = False

    def __init__(self, config: CtrConfig, features: int, fields: int) -> None:
        super().__init__(config, features, fields)
        self.heads = config.fusion_heads
        inputs, width = fields * config.embedding, config.hidden[-1] // config.fusion_heads
        self.first, self.second = (Stream(inputs, config.hidden, config.dropout) for _ in range(2))
        self.add_head(2 * config.hidden[-1])
        self.fusion = nn.Parameter(torch.empty(self.heads, width, width))
        nn.init.normal_(self.fusion, std=1 / math.sqrt(width))  # Xavier for each head

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        embedded = self.embedding(ids).flatten(1)  # B, F*d
        first, second = self.first(embedded), self.second(embedded)  # B, hidden[-1]
        one, two = (o.unflatten(1, (self.heads, -1)) for o in (first, second))
        fused = torch.einsum("bhi,hij,bhj->b", one, self.fusion, two)
        representation = torch.cat((first, second), dim=1)
        return representation, self.head(representation).squeeze(1) + fused
