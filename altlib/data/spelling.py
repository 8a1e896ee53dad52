"""The word that stands for a value, by one function for the files of training and for the rows of a
server. Nothing heavy is loaded here: a server starts at once."""

import datetime
import math
import re
from collections.abc import Iterable
from contextlib import suppress
from decimal import Decimal
from typing import Any

import numpy as np

UNKNOWN = "unknown"
"""The one word for a missing value, in the data and in the sentence."""

NUMBER = re.compile(r"[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)(e[+-]?\d{1,3})?", re.ASCII | re.IGNORECASE)
TRUTH = re.compile("true|false", re.IGNORECASE)
TIME = r"[ T]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)?"
DATE = re.compile(rf"\d{{4}}-\d\d-\d\d({TIME})?", re.ASCII)


def word(value: Any, typed: bool = False) -> str:
    """The word that stands for a value.

    Args:
        value: text, a number, a truth value, a date, or nothing (None or a gap of a frame).
        typed: of the field; see `Field`.

    Returns:
        Text with its white space made single; `UNKNOWN` for what is missing or empty; every digit
        of a number, so that 2, 2.0 and 2.00 are "2"; a date as "2024-05-31" or, with a time of day,
        "2024-05-31 14:30:00".

    Raises:
        ValueError: text with a lone surrogate, a value of another type, or a float that cannot tell
            neighbouring whole numbers apart.
    """
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"found {value[:80]!r}, which contains half of a character") from None
        text = " ".join(value.split())
        return (spelled(text) if typed else text) or UNKNOWN
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return UNKNOWN
    if isinstance(value, (bool, np.bool_, int, np.integer)):
        return str(value)
    if isinstance(value, (float, np.floating, Decimal)):
        if math.isnan(value):
            return UNKNOWN
        bits = np.finfo(type(value)).nmant + 1 if not isinstance(value, Decimal) else 1000
        if abs(float(value)) >= 2.0**bits:
            raise ValueError(
                f"found {value!s} ({type(value).__name__}), which does not hold its number "
                "to the last digit; give it as text or as a whole number"
            )
        return spelled(str(value))
    if isinstance(value, datetime.datetime):
        return moment(value)
    if isinstance(value, datetime.date):
        return value.isoformat()
    raise ValueError(
        f"found {repr(value)[:80]} ({type(value).__name__}); a value is text, a number, a truth "
        "value, a date, or nothing"
    )


def moment(value: datetime.datetime) -> str:
    """The one spelling of a date with a time of day."""
    return value.isoformat(sep=" ").removesuffix(" 00:00:00")


def spelled(text: str) -> str:
    """The one spelling of a number, a truth value or a date; other text as it is."""
    if NUMBER.fullmatch(text):
        digits = format(Decimal(text), "f")
        digits = digits.rstrip("0").rstrip(".") if "." in digits else digits
        return "0" if digits == "-0" else digits
    if DATE.fullmatch(text):
        with suppress(ValueError):  # there is no such day
            return moment(datetime.datetime.fromisoformat(text))
    return text.capitalize() if TRUTH.fullmatch(text) else text


def is_typed(words: Iterable[str]) -> bool:
    """Whether all words but the unknown one are numbers, all truth values, or all dates."""
    known = [word for word in words if word != UNKNOWN]
    return any(all(map(kind.fullmatch, known)) for kind in (NUMBER, TRUTH, DATE))
