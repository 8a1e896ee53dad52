"""AFM: a factorisation machine with attention over its pairs (arXiv 1708.04617, section 3)."""

from torch import Tensor, nn

from altlib.config import CtrConfig
from altlib.models.ctr.layers import IdModel, pairs


class AFM(IdModel):
    """logit = first order + p' sum_ij a_ij (e_i * e_j), a = softmax(h' ReLU(W (e_i * e_j) + b)).

    The attention is as wide as an embedding; dropout acts on the weighed sum. R = d.
    """

    deep = False

    def __init__(self, config: CtrConfig, features: int, fields: int) -> None:
        super().__init__(config, features, fields)
        width = config.embedding
        self.attention = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1, bias=False)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.add_head(width)

    def represent(self, embedded: Tensor) -> Tensor:
        products = pairs(embedded)  # B, P, d
        weights = self.attention(products).softmax(1)  # B, P, 1
        return self.dropout((weights * products).sum(1))
