"""One's own data: a CSV or Parquet file, and a YAML file that says what its columns are.

    file: clicks.csv
    fields:
      user: {words: user id, side: user}
      city: {side: user}
      product: {words: product name, side: item, twin: product}
    rating: stars
    label: {positive_from: 4, dropped: [3], scale: [1, 5]}
    timestamp: time

`words` are the column's name unless said otherwise. Without `label` a rating of 1 is a click and 0
is none; without `timestamp` the profile has to say `split: random`. Each side begins with its key:
what is cold is judged by it.
"""

from dataclasses import field
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from altlib import fetch
from altlib.datasets.frame import Dataset, record, words
from altlib.faults import entries, explain, nearest
from altlib.fetch import Raw
from altlib.schema import Field, LabelRule, Schema

PROJECT = Path(__file__).resolve().parents[2]
STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=STRICT)
class Column:
    """A column that is a field; see `schema.Field`."""

    side: Literal["user", "item"]
    words: str | None = None
    twin: str | None = None


@dataclass(frozen=True, config=STRICT)
class Description:
    """The entries of the YAML file."""

    file: str
    fields: dict[str, Column]
    rating: str
    label: LabelRule = field(default_factory=lambda: LabelRule(1, scale=(0, 1)))
    timestamp: str | None = None


def describe(path: Path) -> Description:
    """The YAML file at `path`; a ValueError names its first fault."""
    try:
        return TypeAdapter(Description).validate_python(entries(path))
    except ValidationError as error:
        raise ValueError(explain(error, path.name, Description)) from None


def is_own(name: str) -> bool:
    """Whether a data set's name is that of a YAML file."""
    return name.endswith((".yaml", ".yml"))


def raw(name: str) -> Raw:
    """The YAML file and the one that it describes.

    A relative path is looked for in the folder `ALTLIB_DATA`, here, and in the project's folder: a
    notebook in JupyterLab runs elsewhere than the batch.

    Raises:
        FileNotFoundError: one of them is not there.
        ValueError: the YAML file has a fault.
    """
    path = fetch.in_user_folder("ALTLIB_DATA", (name,)) or Path(name).expanduser()
    if not path.is_file():
        path = PROJECT / path
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no file {name} in {Path.cwd()}, in {PROJECT}, or in ALTLIB_DATA."
        )
    table = path.with_name(describe(path).file)
    if not table.is_file():
        raise FileNotFoundError(f"There is no file {table}, of which {path.name} speaks.")
    checksums = {file.name: fetch.sha256(file) for file in (path, table)}
    return Raw(path.stem, path, "user folder", checksums, exact=True, note="")


def table(path: Path) -> pd.DataFrame:
    """The columns of a CSV file as text, or those of a Parquet file."""
    if path.suffix == ".parquet":  # a gap shall not make fractions of whole numbers
        return pd.read_parquet(path).convert_dtypes()
    try:
        return pd.read_csv(path, dtype="str", keep_default_na=False, na_values=[""])
    except (UnicodeDecodeError, pd.errors.ParserError) as error:
        raise ValueError(f"{path.name} cannot be read as CSV in UTF-8: {error}.") from error


def read(raw: Raw) -> Dataset:
    """Reads the file that the YAML file `raw.path` describes, which lies beside it.

    Raises:
        ValueError: an entry is wrong, or a column is missing or has a value that is no number.
    """
    described = describe(raw.path)
    frame = table(raw.path.with_name(described.file))
    numbers = [described.rating] + ([described.timestamp] if described.timestamp else [])
    for name in (*described.fields, *numbers):
        if name not in frame:
            raise ValueError(
                f"{described.file} has no column '{name}'; {nearest(name, map(str, frame))}"
            )
    for name in numbers:
        number = pd.to_numeric(frame[name], errors="coerce")
        if (wrong := number.isna()).any():
            row = int(wrong.to_numpy().argmax())
            raise ValueError(
                f"{described.file}, row {row + 1}, column '{name}': found "
                f"'{frame[name].iloc[row]}', but it must be a number."
            )
        frame[name] = number
    for side in ("user", "item"):
        if side not in {column.side for column in described.fields.values()}:
            raise ValueError(
                f"{raw.path.name} has no field of the side '{side}'; each side needs one, its key."
            )
    schema = Schema(
        raw.name,
        tuple(
            Field(name, column.words or name.replace("_", " "), column.side, column.twin)
            for name, column in described.fields.items()
        ),
        described.label,
    )
    columns: dict[str, Any] = {
        name: pd.Categorical(words(frame[name])) for name in schema.field_names
    }
    columns["rating"] = frame[described.rating].to_numpy("float32")
    times = frame[described.timestamp] if described.timestamp else pd.Series(0, frame.index)
    columns["timestamp"] = times.to_numpy("int64")
    return Dataset(schema, pd.DataFrame(columns), record(raw, {"ratings": len(frame)}, {}))
