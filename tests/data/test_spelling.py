"""The words of values."""

import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from altlib.data.spelling import UNKNOWN, is_typed, word


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, UNKNOWN),
        (float("nan"), UNKNOWN),
        (pd.NA, UNKNOWN),
        (pd.NaT, UNKNOWN),
        (" \u00a0\n", UNKNOWN),
        (" big\u00a0\n tea ", "big tea"),
        ("007", "007"),
        ("2.50", "2.50"),
        (7, "7"),
        (7.0, "7"),
        (-0.0, "0"),
        (2.5, "2.5"),
        (np.float32(0.1), "0.1"),
        (np.float16(0.1), "0.1"),
        (1e-7, "0.0000001"),
        (2.0**53 - 1, "9007199254740991"),
        (np.int64(2**60 + 1), "1152921504606846977"),
        (np.uint64(2**64 - 1), "18446744073709551615"),
        (10**30 + 1, "1000000000000000000000000000001"),
        (Decimal("1234567890123456789012345678901.50"), "1234567890123456789012345678901.5"),
        (True, "True"),
        (np.False_, "False"),
        (datetime.date(2024, 5, 31), "2024-05-31"),
        (pd.Timestamp("2024-05-31"), "2024-05-31"),
        (pd.Timestamp("2024-05-31 14:30:00.5"), "2024-05-31 14:30:00.500000"),
    ],
)
def test_a_value_has_one_word(value: Any, expected: str) -> None:
    assert word(value) == expected


@pytest.mark.parametrize(
    "value",
    ["2.5", "2.50", "+2.5", " 2.500 ", "25e-1", 2.5, np.float32(2.5), Decimal("2.50")],
)
def test_a_number_of_a_typed_field_has_one_spelling(value: Any) -> None:
    assert word(value, typed=True) == "2.5"


@pytest.mark.parametrize("text", ["2024-05-31", "2024-05-31T00:00", "2024-05-31 00:00:00.000"])
def test_a_date_of_a_typed_field_has_the_spelling_of_parquet(text: str) -> None:
    assert word(text, typed=True) == word(datetime.datetime(2024, 5, 31)) == "2024-05-31"
    assert is_typed([text, UNKNOWN]) and not is_typed([text, "2024"])


def test_only_numbers_and_truth_values_of_a_typed_field_are_spelled_anew() -> None:
    texts = ["1996.0", "TRUE", "-0.0", ".5", "5.", "007", "1.2.3", "1e9999", "٣", "x 2.0", "inf"]
    assert [word(text, typed=True) for text in [*texts, "2024-02-30"]] == [
        "1996", "True", "0", "0.5", "5", "007", "1.2.3", "1e9999", "٣", "x 2.0", "inf",
        "2024-02-30",
    ]  # fmt: skip
    assert is_typed(["1", "2.50", UNKNOWN]) and is_typed(["true", "False"])
    for mixed in (["1", "x"], ["1", "true"], ["01", "2"]):
        assert not is_typed(mixed)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("a\ud800", "half of a character"),
        ([1], r"found \[1\] \(list\)"),
        (np.array(["a"]), "ndarray"),
        (b"x", "bytes"),
        ({"a": 1}, "dict"),
        (2.0**53, "does not hold its number to the last digit"),
        (np.float32(2.0**24), "does not hold its number to the last digit"),
        (float("inf"), "found inf"),
    ],
)
def test_what_has_no_word_is_refused(value: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        word(value)
