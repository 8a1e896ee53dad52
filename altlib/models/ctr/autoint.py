"""AutoInt: self-attention over the fields of a row (arXiv 1810.11921, section 4.4), beside a DNN.

With the DNN in parallel it is the paper's AutoInt+ (section 5.4). The representation is the
flattened output of the last interacting layer beside the DNN's.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, scaled_dot_product_attention

from altlib.config import CtrConfig
from altlib.models.ctr.layers import IdModel


class InteractingLayer(nn.Module):
    """ReLU(heads' attention over the fields + W_res e): [B, F, d] -> [B, F, d], equations 5 to 8.

    Scores are plain inner products, as in the paper: no division by the root of the width.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(width, 4 * width, bias=False)  # query, key, value and W_res

    def forward(self, embedded: Tensor) -> Tensor:
        *projected, residual = self.project(embedded).chunk(4, dim=2)
        query, key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)  # B, heads, F, d/heads
            for part in projected
        )
        attended = scaled_dot_product_attention(query, key, value, scale=1.0)
        return relu(attended.transpose(1, 2).flatten(2) + residual)


class AutoInt(IdModel):
    """logit = first order + Linear(attention beside DNN). R = F*d + hidden[-1]."""

    def __init__(self, config: CtrConfig, features: int, fields: int) -> None:
        super().__init__(config, features, fields)
        self.attention = nn.Sequential(
            *(
                InteractingLayer(config.embedding, config.attention_heads)
                for _ in range(config.attention_layers)
            )
        )
        self.add_head(fields * config.embedding + config.hidden[-1])

    def represent(self, embedded: Tensor) -> Tensor:
        attended = self.attention(embedded).flatten(1)  # B, F*d
        return torch.cat((attended, self.dnn(embedded.flatten(1))), dim=1)
