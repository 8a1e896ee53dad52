"""Rows as batches."""

import numpy as np

from altlib.training.batches import buckets


def test_buckets_hold_every_row_once_and_little_padding() -> None:
    lengths = np.random.default_rng(0).integers(20, 60, 10_000)
    batches = buckets(lengths, 128, np.random.default_rng(1))
    assert np.array_equal(np.sort(np.concatenate(batches)), np.arange(10_000))
    padded = sum(len(b) * lengths[b].max() for b in batches)
    assert padded < 1.05 * lengths.sum()
    again = buckets(lengths, 128, np.random.default_rng(2))
    assert not np.array_equal(batches[0], again[0])
