"""DCN: crosses by one vector a layer, beside a DNN (arXiv 1708.05123, section 2)."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from altlib.config import CtrConfig
from altlib.models.ctr.layers import IdModel


class Cross(nn.Module):
    """x_0 (x' w) + b + x: [B, F*d] -> [B, F*d], equation 3."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.w = nn.Linear(width, 1, bias=False)
        self.b = nn.Parameter(torch.zeros(width))

    def forward(self, first: Tensor, x: Tensor) -> Tensor:
        return first * self.w(x) + self.b + x


class DCN(IdModel):
    """logit = first order + Linear(last cross beside DNN). R = F*d + hidden[-1]."""

    layer: ClassVar[type[nn.Module]] = Cross

    def __init__(self, config: CtrConfig, features: int, fields: int) -> None:
        super().__init__(config, features, fields)
        width = fields * config.embedding
        self.cross = nn.ModuleList(self.layer(width) for _ in range(config.cross_layers))
        self.add_head(width + config.hidden[-1])

    def represent(self, embedded: Tensor) -> Tensor:
        first = x = embedded.flatten(1)  # B, F*d
        for layer in self.cross:
            x = layer(first, x)
        return torch.cat((x, self.dnn(first)), dim=1)
