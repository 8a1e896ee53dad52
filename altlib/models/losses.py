"""The three pretraining losses as pure functions of tensors (section 3.3 of arXiv 2310.19453).

ICL is the symmetric InfoNCE of CLIP (arXiv 2103.00020) between the two towers; MLM is the cross
entropy of masked words; MTM tells the masked feature from others by noise contrastive estimation
(arXiv 1206.6426) or by the full softmax.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


def gather(x: Tensor) -> Tensor:
    """All processes' `x` along the first dimension: [B, D] -> [P * B, D].

    The own rows carry gradients, P-fold: when every process computes the same loss of all rows and
    data parallelism averages the processes' gradients, the result is that of a single process. No
    process has to wait for another's backward pass.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x.detach().contiguous())
    parts[dist.get_rank()] = x.detach() + len(parts) * (x - x.detach())
    return torch.cat(parts)


def icl(text: Tensor, ids: Tensor, scale: Tensor | float, gathered: bool = True) -> Tensor:
    """Instance-level contrastive loss: row i's sentence against row i's IDs.

    The other rows of the batch are the negatives, on every process if `gathered`.

    Args:
        text: projected text vectors [B, D]; normalise them for a cosine.
        ids: projected ID vectors [B, D].
        scale: factor of the inner products, one over the temperature.
    """
    if gathered:
        text, ids = gather(text), gather(ids)
    logits = scale * text @ ids.T  # P * B, P * B
    targets = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def mlm(logits: Tensor, targets: Tensor) -> Tensor:
    """Masked language modelling: cross entropy of [M, V] logits at the M masked tokens.

    Positions with target -100 are left out. No masked token gives 0, with a gradient of 0.
    """
    total = F.cross_entropy(logits, targets, reduction="sum", ignore_index=-100)
    return total / (targets != -100).sum().clamp(min=1)


class Noise(nn.Module):
    """Where MTM draws its negatives: the unigram distribution of features.

    Args:
        counts: how often the training split has each feature [V]; 0 for reserved ids.
        starts: first feature id of each field, and V at the end [F + 1].
        within_field: draw from the masked field only; otherwise from the features of all fields.

    Attributes:
        cumulative: exclusive running sum of the features' counts [V + 1], in float64; a feature
            that was never counted (mask, unknown) is never drawn.
        low, high: the range of feature ids to draw from, for each field [F].
    """

    cumulative: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, counts: Tensor, starts: Tensor, within_field: bool) -> None:
        super().__init__()
        low, high = starts[:-1], starts[1:]
        if not within_field:
            low, high = torch.zeros_like(low), torch.full_like(high, len(counts))
        total = F.pad(counts.double().cumsum(0), (1, 0))
        for name, values in (("cumulative", total), ("low", low), ("high", high)):
            self.register_buffer(name, values, persistent=False)

    def draw(self, fields: Tensor, number: int) -> Tensor:
        """`number` features for each entry of `fields` [M], drawn with replacement: [M, K]."""
        low, high = self.cumulative[self.low[fields]], self.cumulative[self.high[fields]]
        point = torch.rand(len(fields), number, dtype=torch.float64, device=fields.device)
        point = low[:, None] + point * (high - low)[:, None]
        return torch.searchsorted(self.cumulative, point, right=True) - 1

    def log_probability(self, features: Tensor, fields: Tensor) -> Tensor:
        """Log-probability of `features` [M, K] under the noise of `fields` [M]: [M, K]."""
        mass = self.cumulative[self.high[fields]] - self.cumulative[self.low[fields]]
        count = self.cumulative[features + 1] - self.cumulative[features]
        return (count / mass[:, None]).log().float()


def score(query: Tensor, features: Tensor, table: Tensor, bias: Tensor) -> Tensor:
    """Scores of `features` [M, K] for `query` [M, D], by output `table` [V, D] and `bias` [V]."""
    # An embedding's gradient is summed in a fixed order, unlike that of table[features].
    vectors = F.embedding(features, table)  # M, K, D
    return torch.einsum("md,mkd->mk", query, vectors) + F.embedding(features, bias[:, None])[..., 0]


def nce(
    query: Tensor,
    targets: Tensor,
    fields: Tensor,
    table: Tensor,
    bias: Tensor,
    noise: Noise,
    negatives: int,
) -> Tensor:
    """Noise contrastive estimation: is a feature the masked one, or noise?

    The scores' normaliser is held at ln V, as in the published code: an untrained model starts
    near the uniform distribution.

    Args:
        query: one vector for each masked field [M, D].
        targets: the masked features [M].
        fields: the masked features' fields [M].
        table, bias: output embedding [V, D] and [V].
        noise: distribution of the negatives.
        negatives: how many are drawn for each masked field.
    """
    if len(targets) == 0:
        return query.sum() * 0.0
    features = torch.cat([targets[:, None], noise.draw(fields, negatives)], 1)  # M, 1 + K
    log_noise = noise.log_probability(features, fields) + torch.tensor(float(negatives)).log()
    normaliser = torch.tensor(float(len(table))).log()
    logit = score(query, features, table, bias).float() - normaliser - log_noise
    return (F.softplus(-logit[:, 0]) + F.softplus(logit[:, 1:]).sum(1)).mean()


def full_softmax(
    query: Tensor,
    targets: Tensor,
    fields: Tensor,
    table: Tensor,
    bias: Tensor,
    noise: Noise,
    negatives: int,
) -> Tensor:
    """Exact softmax over every feature that `noise` could draw.

    Arguments as for `nce`; `negatives` is not used.
    """
    if len(targets) == 0:
        return query.sum() * 0.0
    logit = (query @ table.T + bias).float()
    feature = torch.arange(len(table), device=query.device)
    allowed = (feature >= noise.low[fields, None]) & (feature < noise.high[fields, None])
    allowed &= noise.cumulative.diff() > 0
    return F.cross_entropy(logit.masked_fill(~allowed, -torch.inf), targets)


MTM: dict[str, Callable[..., Tensor]] = {"nce": nce, "full": full_softmax}
"""The forms of the MTM loss by name; all take the arguments of `nce`."""
