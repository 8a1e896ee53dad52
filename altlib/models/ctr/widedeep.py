"""Wide & Deep: a first-order term beside a DNN (arXiv 1606.07792, section 3)."""

from torch import Tensor

from altlib.config import CtrConfig
from altlib.models.ctr.layers import IdModel


class WideDeep(IdModel):
    """logit = first order + Linear(DNN). R = hidden[-1]."""

    def __init__(self, config: CtrConfig, features: int, fields: int) -> None:
        super().__init__(config, features, fields)
        self.add_head(config.hidden[-1])

    def represent(self, embedded: Tensor) -> Tensor:
        return self.dnn(embedded.flatten(1))
