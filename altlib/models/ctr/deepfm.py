"""DeepFM: a factorisation machine and a DNN over the same embeddings (arXiv 1703.04247, section 2).

The second-order term is sum over i < j of <e_i, e_j>, computed in O(F d) as half of the square of
the sum less the sum of the squares. Before its last sum it is a vector [d], the bi-interaction.
"""

import torch
from torch import Tensor, nn

from altlib.config import CtrConfig
from altlib.models.ctr.layers import IdModel


def bi_interaction(embedded: Tensor) -> Tensor:
    """Sum over i < j of e_i * e_j, element by element: [B, F, d] -> [B, d]."""
    return (embedded.sum(1).square() - embedded.square().sum(1)) / 2


class DeepFM(IdModel):
    """logit = first order + sum of the bi-interaction + Linear(DNN).

    The FM itself is a scalar, so the representation holds the vector that it sums, beside the
    DNN's output: R = d + hidden[-1].
    """

    def __init__(self, config: CtrConfig, features: int, fields: int) -> None:
        super().__init__(config, features, fields)
        self.representation_size = config.embedding + config.hidden[-1]
        self.head = nn.Linear(config.hidden[-1], 1, bias=False)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        embedded = self.embedding(ids)  # B, F, d
        pairs = bi_interaction(embedded)  # B, d
        deep = self.dnn(embedded.flatten(1))  # B, hidden[-1]
        logit = self.first_order(ids) + pairs.sum(1) + self.head(deep).squeeze(1)
        return torch.cat((pairs, deep), dim=1), logit
