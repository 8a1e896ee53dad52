"""The heads of pretraining: projections of ICL, words of MLM, cross-attention of MTM."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Projection(nn.Module):
    """A tower's vector in the space where ICL compares: a residual two-layer head."""

    def __init__(self, size: int, projection: int, dropout: float) -> None:
        super().__init__()
        self.inward = nn.Linear(size, projection)
        self.hidden = nn.Linear(projection, projection)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(projection)

    def forward(self, x: Tensor) -> Tensor:
        projected = self.inward(x)  # B, D
        return self.norm(projected + self.dropout(self.hidden(F.gelu(projected))))


class OwnMlmHead(nn.Module):
    """The PLM's own MLM head; the ID vector is projected in and added to the token's state.

    The projection starts at zero, so that training starts from the PLM's own predictions.
    """

    def __init__(self, head: nn.Module, hidden: int, ids: int) -> None:
        super().__init__()
        assert isinstance(head.decoder, nn.Linear)
        self.decoder = head.decoder
        head.decoder = nn.Identity()
        self.transform = head
        self.inward = nn.Linear(ids, hidden, bias=False)
        nn.init.zeros_(self.inward.weight)

    def forward(self, states: Tensor, vector: Tensor, tokens: Tensor) -> Tensor:
        """Logits [M, K] of `tokens` [K] from states [M, H] and ID vectors [M, R]."""
        hidden = self.transform(states + self.inward(vector))
        return F.linear(hidden, F.embedding(tokens, self.decoder.weight), self.decoder.bias[tokens])


class NewMlmHead(nn.Module):
    """The published MLM head: state and ID vector side by side, then two layers."""

    def __init__(self, hidden: int, ids: int, tokens: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(hidden + ids, hidden),
            nn.Tanh(),
            nn.Dropout(dropout),
            nn.Linear(hidden, tokens),
        )

    def forward(self, states: Tensor, vector: Tensor, tokens: Tensor) -> Tensor:
        """Logits [M, K] of the K tokens that it was made for."""
        return self.layers(torch.cat([states, vector], -1))


class CrossAttention(nn.Module):
    """One query, the ID vector, attends to the words: single head, keys and values are states."""

    def __init__(self, ids: int, hidden: int, scaled: bool) -> None:
        super().__init__()
        self.query = nn.Linear(ids, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.scale = 1 / math.sqrt(hidden) if scaled else 1.0

    def forward(self, vector: Tensor, states: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
        """Attends from vector [B, R] to states [B, L, H] where attention [B, L] is True.

        Returns:
            The context [B, H] and the attention weights [B, L].
        """
        query = self.norm(self.query(vector))  # B, H
        scores = self.scale * torch.einsum("bh,blh->bl", query, states)
        weights = scores.masked_fill(~attention, -torch.inf).softmax(-1)
        return torch.einsum("bl,blh->bh", weights, states), weights


class MeanPooling(nn.Module):
    """In place of `CrossAttention`: every word counts the same, whatever is asked."""

    def forward(self, vector: Tensor, states: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
        """The mean [B, H] of states [B, L, H] where attention [B, L], and the weights [B, L]."""
        weights = attention / attention.sum(1, keepdim=True)
        return torch.einsum("bl,blh->bh", weights.to(states.dtype), states), weights
