"""Which fields and tokens are masked (section 3.2 of arXiv 2310.19453): pure functions.

Field-level masking hides every token of a value, so that a word is never recovered from its own
remaining pieces. What is drawn follows from the generator alone.
"""

import torch
from torch import Tensor


def number_masked(fields: int, ratio: float) -> int:
    """Masked fields of a row: `int(fields * ratio)`, but at least one unless the ratio is 0."""
    return max(1, int(fields * ratio)) if ratio > 0 else 0


def choose_fields(
    allowed: Tensor,
    ratio: float,
    together: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draws the masked fields of each row.

    Args:
        allowed: fields that may be masked [B, F] bool; a row with too few of them masks fewer.
        ratio: share of the F fields to mask.
        together: together[f, g] says that masking f also masks g [F, F] bool; None masks f alone.
        generator: source of the draw; None is torch's own.

    Returns:
        The masked fields [B, F] bool.
    """
    number = number_masked(allowed.shape[1], ratio)
    order = torch.rand(allowed.shape, device=allowed.device, generator=generator)
    order = order.masked_fill(~allowed, 2.0)
    chosen = torch.zeros_like(allowed)
    if number:
        chosen.scatter_(1, order.topk(number, dim=1, largest=False).indices, True)
    chosen &= allowed
    if together is not None:
        chosen = (chosen.float() @ together.float() > 0) & allowed
    return chosen


def choose_tokens(value: Tensor, ratio: float, generator: torch.Generator | None = None) -> Tensor:
    """Draws masked tokens without regard to fields: `ratio` of each row's value tokens.

    Args:
        value: tokens that belong to a value [B, L] bool.
        ratio: share of them to mask, at least one in a row.
        generator: source of the draw; None is torch's own.

    Returns:
        The masked tokens [B, L] bool.
    """
    order = torch.rand(value.shape, device=value.device, generator=generator)
    order = order.masked_fill(~value, 2.0)
    number = (value.sum(1) * ratio).int().clamp(min=1 if ratio > 0 else 0)
    rank = order.argsort(1).argsort(1)
    return (rank < number[:, None]) & value


def tokens_of(chosen: Tensor, field: Tensor, value: Tensor) -> Tensor:
    """The tokens of the masked fields' values.

    Args:
        chosen: masked fields [B, F] bool.
        field: the field of every token [B, L], -1 for special tokens and padding.
        value: tokens that belong to a value, not to the template's own words [B, L] bool.

    Returns:
        The masked tokens [B, L] bool.
    """
    return chosen.gather(1, field.clamp(min=0)) & value
