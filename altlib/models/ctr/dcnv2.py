"""DCNv2: explicit crosses of bounded degree beside a DNN (arXiv 2008.13535, sections 3.2 and 3.5).

`DCNMix` is the low-rank mixture of experts of equations 4 and 5, `DCNFull` the full-matrix cross of
equation 1. The representation is the last cross layer's output beside the DNN's.
"""

import math

import torch
from torch import Tensor, nn

from altlib.config import CtrConfig
from altlib.models.ctr.dcn import DCN
from altlib.models.ctr.layers import IdModel


class CrossMix(nn.Module):
    """x_0 * sum_i G_i(x) (U_i tanh(C_i tanh(V_i' x)) + b) + x, all experts in one product.

    The gates G_i sum to 1, so b stands outside the sum and the stacked U_i are a single Linear.
    """

    def __init__(self, width: int, low_rank: int, experts: int) -> None:
        super().__init__()
        self.v = nn.Linear(width, experts * low_rank, bias=False)
        self.c = nn.Parameter(torch.empty(experts, low_rank, low_rank))
        self.u = nn.Linear(experts * low_rank, width)
        # Xavier for each expert; the stacked matrices' own fan would be that of all experts.
        for matrix in (self.v.weight, self.u.weight):
            nn.init.normal_(matrix, std=math.sqrt(2 / (width + low_rank)))
        nn.init.normal_(self.c, std=math.sqrt(1 / low_rank))
        nn.init.zeros_(self.u.bias)

    def forward(self, first: Tensor, x: Tensor, gates: Tensor) -> Tensor:
        projected = torch.tanh(self.v(x)).unflatten(1, self.c.shape[:2])  # B, E, r
        mixed = torch.tanh(torch.einsum("ber,esr->bes", projected, self.c))  # B, E, r
        return first * self.u((gates.unsqueeze(2) * mixed).flatten(1)) + x  # B, F*d


class DCNMix(IdModel):
    """DCNv2 with low-rank experts; one softmax gate serves all cross layers. R as `DCN`."""

    def __init__(self, config: CtrConfig, features: int, fields: int) -> None:
        super().__init__(config, features, fields)
        width = fields * config.embedding
        self.gate = nn.Linear(width, config.experts, bias=False)
        self.cross = nn.ModuleList(
            CrossMix(width, config.low_rank, config.experts) for _ in range(config.cross_layers)
        )
        self.add_head(width + config.hidden[-1])

    def represent(self, embedded: Tensor) -> Tensor:
        first = x = embedded.flatten(1)  # B, F*d
        for layer in self.cross:
            x = layer(first, x, self.gate(x).softmax(dim=1))
        return torch.cat((x, self.dnn(first)), dim=1)


class FullCross(nn.Linear):
    """x_0 * (W x + b) + x: [B, F*d] -> [B, F*d]."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width)

    def forward(self, first: Tensor, x: Tensor) -> Tensor:  # type: ignore[override]
        return first * super().forward(x) + x


class DCNFull(DCN):
    """DCNv2 with a full matrix a layer. R as `DCN`."""

    layer = FullCross
