"""Masks lie where they should, in the number they should."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from altlib.models import masking


@given(st.integers(1, 15), st.floats(0.01, 1.0), st.integers(0, 99))
def test_fields_are_masked_in_the_stated_number_and_only_where_allowed(
    fields: int, ratio: float, seed: int
) -> None:
    torch.manual_seed(seed)
    allowed = torch.rand(40, fields) < 0.7
    chosen = masking.choose_fields(allowed, ratio)
    assert not (chosen & ~allowed).any()
    expected = allowed.sum(1).clamp(max=max(1, int(fields * ratio)))
    assert torch.equal(chosen.sum(1), expected)


def test_published_numbers() -> None:
    assert masking.number_masked(8, 0.15) == 1
    assert masking.number_masked(15, 0.15) == 2
    assert masking.number_masked(8, 0.6) == 4
    assert masking.number_masked(8, 0.05) == 1


def test_every_field_has_the_same_chance() -> None:
    chosen = masking.choose_fields(torch.ones(40_000, 8, dtype=torch.bool), 0.15)
    assert torch.allclose(chosen.float().mean(0), torch.full((8,), 1 / 8), atol=0.01)


def test_fields_are_masked_together() -> None:
    together = torch.eye(4, dtype=torch.bool)
    together[1, 3] = together[3, 1] = True
    chosen = masking.choose_fields(torch.ones(500, 4, dtype=torch.bool), 0.25, together)
    assert torch.equal(chosen[:, 1], chosen[:, 3])
    assert set(chosen.sum(1).tolist()) == {1, 2}


def test_tokens_of_a_masked_field_are_its_value() -> None:
    field = torch.tensor([[-1, 0, 0, 0, 1, 1, 1, -1]])
    value = torch.tensor([[0, 0, 1, 1, 0, 1, 0, 0]]).bool()
    chosen = torch.tensor([[True, False]])
    found = masking.tokens_of(chosen, field, value)
    assert found.tolist() == [[False, False, True, True, False, False, False, False]]
    # Special tokens and padding carry the field -1, which is no field.
    assert not masking.tokens_of(torch.ones(1, 2).bool(), field, value)[0, [0, 7]].any()


def test_tokens_are_masked_in_the_stated_number_among_values() -> None:
    value = torch.rand(50, 40) < 0.5
    value[0] = False
    chosen = masking.choose_tokens(value, 0.3)
    assert not (chosen & ~value).any()
    expected = (value.sum(1) * 0.3).int().clamp(min=1)
    expected[0] = 0
    assert torch.equal(chosen.sum(1), expected)
