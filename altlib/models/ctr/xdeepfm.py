"""xDeepFM: a compressed interaction network (CIN) beside a DNN (arXiv 1803.05170, section 3)."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from altlib.config import CtrConfig
from altlib.models.ctr.layers import IdModel


class CIN(nn.Module):
    """x_h = sum over i, j of W_hij (x_i * e_j), layer by layer, equation 6; no activation. A layer
    has H = `maps` feature maps."""

    def __init__(self, fields: int, maps: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Linear(before * fields, after, bias=False)
            for before, after in pairwise((fields, *maps))
        )

    def forward(self, embedded: Tensor) -> Tensor:
        """Sum over d of every feature map: [B, F, d] -> [B, sum of H]."""
        first = x = embedded.mT  # B, d, F
        pooled = []
        for layer in self.layers:
            outer = (x.unsqueeze(3) * first.unsqueeze(2)).flatten(2)  # B, d, H*F
            x = layer(outer)  # B, d, H
            pooled.append(x.sum(1))
        return torch.cat(pooled, dim=1)


class XDeepFM(IdModel):
    """logit = first order + Linear(CIN beside DNN). R = sum of `cin` + hidden[-1]."""

    def __init__(self, config: CtrConfig, features: int, fields: int) -> None:
        super().__init__(config, features, fields)
        self.cin = CIN(fields, config.cin)
        self.add_head(sum(config.cin) + config.hidden[-1])

    def represent(self, embedded: Tensor) -> Tensor:
        return torch.cat((self.cin(embedded), self.dnn(embedded.flatten(1))), dim=1)
