"""The frame that every data set becomes, and the record of where it comes from.

A row is one rating; its fields are words (section 3.1 of arXiv 2310.19453). Users and items are
small tables, so their columns are made categorical once and spread over the ratings by codes.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from altlib.data.fetch import Raw
from altlib.data.schema import Schema
from altlib.data.spelling import UNKNOWN, word


@dataclass
class Dataset:
    """A data set in words.

    Attributes:
        schema: its fields and label rule.
        frame: a categorical column for each field, `rating` (float64) and `timestamp` (int64 or
            float64, seconds or what one's own file counts in; 0 where the set has none). All
            ratings are in, those the rule drops too.
        provenance: name, source, sha256, exact, counts, warnings and more; fit for JSON.
    """

    schema: Schema
    frame: pd.DataFrame
    provenance: dict[str, Any]


def words(values: pd.Series, typed: bool = False) -> "pd.Categorical[str]":
    """Values as words, by `spelling.word`.

    Args:
        values: whose index counts lines or rows, as the name of the index says.
        typed: of the field; see `schema.Field`.

    Raises:
        ValueError: a value has no word; names line or row, and column.
    """
    try:
        codes, distinct = pd.factorize(values.array)
    except TypeError:  # lists and the like, which have no word
        codes, distinct = np.arange(len(values)), values.array
    texts = []
    for code, value in enumerate(distinct):
        try:
            texts.append(word(value, typed))
        except ValueError as error:
            place = values.index[(codes == code).argmax()]
            raise ValueError(
                f"{values.index.name or 'row'} {place}, column '{values.name}': {error}."
            ) from None
    # The code of what is missing is -1.
    return pd.Categorical(pd.Series([*texts, UNKNOWN], dtype="str").take(codes))


def join(
    schema: Schema, ratings: pd.DataFrame, users: pd.DataFrame, items: pd.DataFrame
) -> pd.DataFrame:
    """Spreads the columns of users and items over the ratings.

    Args:
        schema: the fields; the first one of each side is the key of its table.
        ratings: both keys, `rating` and `timestamp`; each key stands in its table.
        users: a row a user, a column for each field of the user's side.
        items: likewise for the items.
    """
    columns: dict[str, Any] = {}
    for side, table in (("user", users), ("item", items)):
        fields = [field.name for field in schema.fields if field.side == side]
        rows = pd.Index(table[fields[0]]).get_indexer(pd.CategoricalIndex(ratings[fields[0]]))
        if (rows < 0).any():
            raise ValueError(f"'{schema.name}' has ratings whose {fields[0]} is not in its table.")
        rows, used = pd.factorize(rows, sort=True)
        for name in fields:
            columns[name] = words(table[name].iloc[used]).take(rows)
    return pd.DataFrame(
        {name: columns[name] for name in schema.field_names}
        | {
            "rating": ratings["rating"].to_numpy("float64"),
            "timestamp": ratings["timestamp"].to_numpy("int64"),
        }
    )


def coded(
    parts: Iterable[pd.DataFrame], texts: Sequence[str], numbers: Sequence[str]
) -> pd.DataFrame:
    """One frame of parts: text becomes categories part by part, numbers stay as they are."""
    known: dict[str, dict[str, int]] = {name: {} for name in texts}
    columns: dict[str, list[Any]] = {name: [] for name in (*texts, *numbers)}
    for part in parts:
        for name, seen in known.items():
            local, values = pd.factorize(part[name])
            if (local < 0).any():
                raise ValueError(f"The column '{name}' has a missing value.")
            place = np.array([seen.setdefault(value, len(seen)) for value in values], np.int32)
            columns[name].append(place[local])
        for name in numbers:
            columns[name].append(part[name].to_numpy())
    whole: dict[str, Any] = {}
    for name in list(columns):
        whole[name] = np.concatenate(columns.pop(name))
        if name in known:
            categories = pd.Index(list(known.pop(name)))
            whole[name] = pd.Categorical.from_codes(whole[name], categories=categories)
    return pd.DataFrame(whole, copy=False)


def record(
    raw: Raw,
    counts: dict[str, int],
    known: dict[str, int],
    timed: bool = False,
    odd: Sequence[str] = (),
) -> dict[str, Any]:
    """The provenance of raw files; what speaks against the published set is also warned of.

    Args:
        counts: what the files hold.
        known: what the published files hold.
        timed: whether they hold the times of their rows.
        odd: what else is to be warned of.
    """
    doubts = [
        *odd,
        *(
            f"{raw.name} has {counts[what]:,} {what}, but the published set has {number:,}."
            for what, number in known.items()
            if counts[what] != number
        ),
    ]
    if not raw.exact:
        content, effect = "ratings", ""
        if timed:
            content = "ratings and timestamps"
            effect = " Times may be rebuilt, so that a split by time is approximate."
        doubts.append(
            f"{raw.name} is not known to be the published copy (another checksum, an unpacked "
            f"folder, or no checksum pinned here), so nothing vouches for its {content}.{effect} "
            "Results may not compare with published ones."
        )
    for doubt in doubts:
        warnings.warn(doubt, stacklevel=2)
    told = {name: of for name, of in vars(raw).items() if name != "path"}
    return {**told, "counts": counts, "warnings": doubts}
