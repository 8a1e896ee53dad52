"""Which fields and tokens are masked (section 3.2 of arXiv 2310.19453): pure functions.

Field-level masking hides every token of a value, so that a word is never recovered from its own
remaining pieces. What is drawn follows from the generator alone.
"""

import torch
from torch import Tensor


def number_masked(fields: int, ratio: float) -> int:
    """Masked fields of a row: `int(fields * ratio)`, but at least one."""
    return max(1, int(fields * ratio))


def choose_fields(
    allowed: Tensor,
    ratio: float,
    together: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draws the masked fields of each row [B, F] bool.

    Args:
        allowed: fields that may be masked [B, F] bool; a row with too few of them masks fewer.
        ratio: share of the F fields to mask, in (0, 1].
        together: together[f, g] says that masking f also masks g [F, F] bool; None masks f alone.
        generator: source of the draw; None is torch's own.
    """
    number = number_masked(allowed.shape[1], ratio)
    order = torch.rand(allowed.shape, device=allowed.device, generator=generator)
    order = order.masked_fill(~allowed, 2.0)
    lowest = order.topk(number, dim=1, largest=False).indices
    chosen = torch.zeros_like(allowed).scatter_(1, lowest, True) & allowed
    if together is not None:
        chosen = (chosen.float() @ together.float() > 0) & allowed
    return chosen


def choose_tokens(value: Tensor, ratio: float, generator: torch.Generator | None = None) -> Tensor:
    """Draws masked tokens [B, L] bool without regard to fields: `ratio` of each row's value tokens
    [B, L] bool, at least one in a row; a `generator` of None is torch's own."""
    order = torch.rand(value.shape, device=value.device, generator=generator)
    order = order.masked_fill(~value, 2.0)
    number = (value.sum(1) * ratio).int().clamp(min=1)
    rank = order.argsort(1).argsort(1)
    return (rank < number[:, None]) & value


def tokens_of(chosen: Tensor, field: Tensor, value: Tensor) -> Tensor:
    """The tokens of the masked fields' values [B, L] bool.

    Args:
        chosen: masked fields [B, F] bool.
        field, value: of every token [B, L]; see `TextBatch`.
    """
    return chosen.gather(1, field.clamp(min=0)) & value
