"""The pretraining step as the published code takes it, re-enacted from its description.

Written anew from the facts of the method, for speed comparisons only: nothing else uses it. Each
row is tokenised on its own every time it is met and padded to the maximum length; the PLM runs
three times, twice on the same sentences; the MLM head runs at every position; masked IDs become
feature 0; negatives come from all features; ICL compares inner products of unnormalised vectors.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from altlib.config import CtrConfig
from altlib.data.tabular import Prepared
from altlib.models import ctr
from altlib.models.heads import Projection
from altlib.models.plm import Plm


class PublishedPretraining(nn.Module):
    """Both towers, heads and losses.

    Args:
        data: the prepared rows; sentences are made from their values.
        plm: pretrained language model.
        max_length: tokens that every sentence is padded to.
        ratio: share of fields masked in each modality.
    """

    def __init__(self, data: Prepared, plm: Plm, max_length: int = 100, ratio: float = 0.15):
        super().__init__()
        self.values = data.words
        self.words = [field.words for field in data.schema.fields]
        self.tokenizer, self.encoder = plm.tokenizer, plm.encoder
        self.max_length = max_length
        self.fields, self.hidden = len(self.words), plm.hidden_size
        self.number_masked = int(self.fields * ratio)
        self.ctr = ctr.build(CtrConfig(), data.features, self.fields)
        ids = self.ctr.representation_size
        self.mlm_head = nn.Sequential(
            nn.Linear(self.hidden + ids, self.hidden),
            nn.Tanh(),
            nn.Dropout(0.2),
            nn.Linear(self.hidden, plm.vocab_size),
        )
        self.query = nn.Linear(ids, self.hidden)
        self.query_norm = nn.LayerNorm(self.hidden)
        self.to_fields = nn.Linear(self.hidden + ids, self.fields * 32)
        self.features = nn.Embedding(data.features, 32)
        self.feature_bias = nn.Embedding(data.features, 1)
        self.noise = torch.tensor(data.counts, dtype=torch.float) / float(data.counts.sum())
        self.projections = nn.ModuleList(
            [Projection(size, 128, 0.2) for size in (self.hidden, ids)]
        )

    def tokenise(self, rows: list[list[int]]) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, attention and MLM labels [B, max_length], row after row; -100 is no label."""
        tokens, attention, labels = [], [], []
        for row in rows:
            values = [self.values[index] for index in row]
            masked = set(torch.randperm(self.fields)[: self.number_masked].tolist())
            sentence, spans = "", []
            for field, value in enumerate(values):
                sentence += (" " if sentence else "") + f"{self.words[field]} is "
                if field in masked:
                    spans.append((len(sentence), len(sentence) + len(value)))
                sentence += f"{value}."
            encoded = self.tokenizer(
                sentence,
                padding="max_length",
                truncation=True,
                max_length=self.max_length,
                return_offsets_mapping=True,
            )
            label = [
                token if any(end > a and begin < b for a, b in spans) and begin < end else -100
                for token, (begin, end) in zip(
                    encoded["input_ids"], encoded["offset_mapping"], strict=True
                )
            ]
            tokens.append(encoded["input_ids"])
            attention.append(encoded["attention_mask"])
            labels.append(label)
        return torch.tensor(tokens), torch.tensor(attention), torch.tensor(labels)

    def states(self, tokens: Tensor, attention: Tensor) -> Tensor:
        return self.encoder(input_ids=tokens, attention_mask=attention).last_hidden_state

    def forward(self, rows: list[list[int]], ids: Tensor) -> Tensor:
        """The sum of the three losses for value indices of `rows` and feature ids [B, F]."""
        tokens, attention, labels = self.tokenise(rows)
        vector = self.ctr(ids)[0]

        mask = torch.full_like(tokens, self.tokenizer.mask_token_id)
        masked = self.states(torch.where(labels == -100, tokens, mask), attention)
        wide = vector[:, None].expand(-1, masked.shape[1], -1)
        logits = self.mlm_head(torch.cat([masked, wide], -1))  # B, L, V
        mlm = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)

        chosen = torch.rand(ids.shape).argsort(1)[:, : self.number_masked]  # B, M
        hidden_vector = self.ctr(ids.scatter(1, chosen, 0))[0]
        states = self.states(tokens, attention)
        query = self.query_norm(self.query(hidden_vector))
        weights = torch.einsum("bh,blh->bl", query, states).softmax(-1)
        context = torch.einsum("bl,blh->bh", weights, states)
        fields = self.to_fields(torch.cat([context, hidden_vector], -1)).view(len(ids), -1, 32)
        mtm = self.nce(
            fields.gather(1, chosen[..., None].expand(-1, -1, 32)).flatten(0, 1),
            ids.gather(1, chosen).flatten(),
        )

        text = self.projections[0](self.states(tokens, attention)[:, 0])
        similar = text @ self.projections[1](vector).T / 0.7
        target = torch.arange(len(ids))
        icl = (F.cross_entropy(similar, target) + F.cross_entropy(similar.T, target)) / 2
        return mlm + mtm + icl

    def nce(self, query: Tensor, targets: Tensor, negatives: int = 25) -> Tensor:
        """NCE of queries [M, 32] for `targets` [M], negatives drawn from all features."""
        drawn = torch.multinomial(self.noise, len(targets) * negatives, replacement=True)
        features = torch.cat([targets[:, None], drawn.view(-1, negatives)], 1)
        score = torch.einsum("md,mkd->mk", query, self.features(features))
        score = score + self.feature_bias(features).squeeze(-1) - math.log(len(self.noise))
        logit = score - (negatives * self.noise[features]).clamp(min=1e-9).log()
        wanted = torch.zeros_like(logit)
        wanted[:, 0] = 1
        return F.binary_cross_entropy_with_logits(logit, wanted, reduction="sum") / len(targets)
