"""One's own data: a CSV or Parquet file, and a YAML file that says what its columns are.

    file: clicks.csv
    fields:
      user: {words: user id, side: user}
      city: {side: user}
      product: {words: product name, side: item}
      category: {side: item, determined_by: [product]}
    rating: stars
    label: {positive_from: 4, dropped: [3], scale: [1, 5]}
    timestamp: time

`words` are the column's name unless said otherwise. Without `label` a rating of 1 is a click and 0
is none; without `timestamp` the profile has to say `split: random`. Each side begins with its key:
what is cold is judged by it. What determines a field is found from the data unless it is said.
`file` is found from the folder of the YAML file. The first thing that is wrong ends the reading
with a ValueError that names file, line or row, and column.
"""

from dataclasses import field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow
from pandas.api.types import (
    infer_dtype,
    is_bool_dtype,
    is_datetime64_any_dtype,
    is_integer_dtype,
)
from pyarrow import parquet
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from altlib import store
from altlib.config import LabelRule
from altlib.data import fetch
from altlib.data.fetch import Raw
from altlib.data.frame import Dataset, record, words
from altlib.data.schema import Field, Schema
from altlib.data.spelling import is_typed, spelled
from altlib.data.validation import decode, intact, once, refuse, titled
from altlib.faults import checked, entries, nearest

STRICT = ConfigDict(extra="forbid")
LARGEST = 9e18  # of a time or a rating; what marks a gap in whole numbers lies beyond
YEARS = (1900, 2200)  # of dates that are times of clicks


@dataclass(frozen=True, config=STRICT)
class Column:
    """A column that is a field; see `schema.Field`."""

    side: Literal["user", "item"]
    words: str | None = None
    determined_by: tuple[str, ...] | None = None


@dataclass(frozen=True, config=STRICT)
class Description:
    """The entries of the YAML file."""

    file: str
    fields: dict[str, Column]
    rating: str
    label: LabelRule = field(default_factory=lambda: LabelRule(1, scale=(0, 1)))
    timestamp: str | None = None

    def table(self, path: Path) -> Path:
        """Where the file lies that the YAML file at `path` describes."""
        return path.parent / Path(self.file).expanduser()


def describe(path: Path) -> Description:
    """The YAML file at `path`; a ValueError names its first fault."""
    content = entries(path)
    rule = content.get("label")
    for name, value in rule.items() if isinstance(rule, dict) else ():
        if any(isinstance(one, bool) for one in (value if isinstance(value, list) else [value])):
            raise ValueError(
                f"{path.name}: 'label.{name}' is {value}, where a number belongs; YAML takes yes, "
                "no, on and off for truth values."
            )
    described = checked(content, path.name, Description)
    if described.rating in described.fields:
        raise ValueError(
            f"{path.name}: '{described.rating}' is the rating, of which the label is made; it "
            "cannot be a field too, since a model would read the label off it."
        )
    for side in ("user", "item"):
        if side not in {column.side for column in described.fields.values()}:
            raise ValueError(
                f"{path.name} has no field of the side '{side}'; each side needs one, its key."
            )
    return described


def raw(name: str) -> Raw:
    """The YAML file and the one that it describes.

    A relative path is looked for in the folder `ALTLIB_DATA`, here, and in the project's folder: a
    notebook in JupyterLab runs elsewhere than the batch.
    """
    path = fetch.in_user_folder("ALTLIB_DATA", (name,)) or Path(name).expanduser()
    if not path.is_file():
        path = store.PROJECT / path
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no file {name} in {Path.cwd()}, in {store.PROJECT}, or in ALTLIB_DATA."
        )
    table = describe(path).table(path)
    if not table.is_file():
        raise FileNotFoundError(f"There is no file {table}, which {path.name} names.")
    checksums = {file.name: fetch.sha256(file) for file in (path, table)}
    return Raw(path.stem, path, "user folder", checksums, exact=True, note="")


def table(path: Path) -> pd.DataFrame:
    """The columns of a CSV file as text (packed ones too: .gz, .bz2, .zst), or of a Parquet file.

    Its index counts lines of the CSV file or rows of the Parquet file, and is called so.
    """
    if path.suffix.lower() == ".parquet":
        with intact(path.name):
            once(parquet.read_schema(path).names, path.name)
            frame = pd.read_parquet(path, dtype_backend="numpy_nullable")
        if frame.index.names != [None]:
            once([str(name) for name in (*frame.index.names, *frame)], path.name)
            frame = frame.reset_index()
        if frame.empty:
            raise ValueError(f"{path.name} has no rows.")
        return frame.set_index(pd.RangeIndex(1, len(frame) + 1, name="row"))
    with intact(path.name), pyarrow.input_stream(path, compression="detect") as opened:
        data = opened.read()
    return titled(decode(data, path.name, "utf-8"), path.name)


def number(file: str, values: pd.Series) -> pd.Series:
    """Values as integers or float64, none of them missing, infinite or too large for an integer."""
    if is_bool_dtype(values.dtype):
        found = values.astype("Int64")
    elif is_integer_dtype(values.dtype) or values.dtype in ("float64", "Float64"):
        found = values
    else:  # text, and the digits of a narrower float, not what a wider one makes of them
        found = pd.to_numeric(values.astype("str"), errors="coerce")
    refuse(file, values, ~found.between(-LARGEST, LARGEST).fillna(False), "a number")
    return found


def times(file: str, values: pd.Series) -> np.ndarray:
    """Times as int64 or float64: numbers as they are, dates as seconds since 1970 in UTC.

    Where a float64 could not tell times apart, numbers are counted from the first one, and dates
    with fractions of a second in their own unit.
    """
    dates = values
    kind = infer_dtype(values)
    if kind == "date" or (kind == "string" and values.str.match(r"\s*\d{4}-\d\d-\d\d").all()):
        dates = pd.to_datetime(values, errors="coerce", format="ISO8601", utc=kind == "string")
    if not is_datetime64_any_dtype(dates.dtype):
        found = number(file, values)
        if is_integer_dtype(found.dtype):
            return found.to_numpy("int64")
        if found.nunique() < values.nunique():
            exact = values.astype("object").map(lambda value: Decimal(str(value).strip()))
            found = exact - exact.min()
        return found.to_numpy("float64")
    years = dates.dt.year.between(*YEARS)
    refuse(file, values, ~years, "a time from the year {} to {}".format(*YEARS))
    moments = (dates.dt.tz_convert(None) if dates.dt.tz else dates).to_numpy()
    seconds = moments.astype("datetime64[s]")
    if (seconds == moments).all():
        return seconds.astype("int64")
    fractions = (moments - np.datetime64(0, "s")) / np.timedelta64(1, "s")
    apart = len(np.unique(fractions)) == len(np.unique(moments))
    return fractions if apart else moments.astype("int64")


def spellings(file: str, values: pd.Series) -> tuple["pd.Categorical[str]", bool, list[str]]:
    """A column as words, whether it is typed (see `schema.Field`), and what is odd about it."""
    found = words(values)
    if not is_typed(found.categories):
        return found, False, []
    typed = words(values, typed=True)
    if (number := len(typed.categories)) == len(found.categories):
        return typed, True, []
    example = next(text for text in found.categories if text not in typed.categories)
    return (
        typed,
        True,
        [
            f"{file}: the column '{values.name}' has {len(found.categories)} spellings of "
            f"{number} numbers, truth values or dates, as '{example}' for {spelled(example)}; each "
            "is one value. If they are names, begin them with a letter."
        ],
    )


def read(raw: Raw) -> Dataset:
    """Reads the file that the YAML file `raw.path` describes."""
    described = describe(raw.path)
    path = described.table(raw.path)
    frame = table(path)
    others = [described.rating] + ([described.timestamp] if described.timestamp else [])
    for name in (*described.fields, *others):
        if name not in frame:
            raise ValueError(
                f"{path.name} has no column '{name}'; {nearest(name, map(str, frame))}"
            )
    fields, columns, odd = [], {}, []
    try:
        for name, column in described.fields.items():
            columns[name], typed, doubts = spellings(path.name, frame[name])
            told = column.words or name.replace("_", " ")
            fields.append(Field(name, told, column.side, typed, column.determined_by))
            odd += doubts
    except ValueError as error:
        raise ValueError(f"{path.name}, {error}") from None
    schema = Schema(raw.name, tuple(fields), described.label)
    rating = number(path.name, frame[described.rating]).to_numpy("float64")
    timestamp: Any = 0
    if described.timestamp:
        timestamp = times(path.name, frame[described.timestamp])
    whole = pd.DataFrame({**columns, "rating": rating}).assign(timestamp=timestamp)
    provenance = record(raw, {"ratings": len(frame)}, {}, odd=odd)
    return Dataset(schema, whole, provenance)
