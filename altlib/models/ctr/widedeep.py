"""Wide & Deep: a first-order term beside a DNN (arXiv 1606.07792, section 3)."""

from torch import Tensor, nn

from altlib.config import CtrConfig
from altlib.models.ctr.layers import IdModel


class WideDeep(IdModel):
    """logit = first order + Linear(DNN). R = hidden[-1].

    Args:
        config: sizes.
        features: rows of the embedding table.
        fields: F.
    """

    def __init__(self, config: CtrConfig, features: int, fields: int) -> None:
        super().__init__(config, features, fields)
        self.representation_size = config.hidden[-1]
        self.head = nn.Linear(self.representation_size, 1, bias=False)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        representation = self.dnn(self.embedding(ids).flatten(1))
        return representation, self.first_order(ids) + self.head(representation).squeeze(1)
