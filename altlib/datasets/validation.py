"""Raw files to tables of text, and tables held against rules.

Nothing is guessed or skipped: the first thing that is wrong ends the reading with one sentence
that names file, line, column and rule.
"""

import math
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pandera.pandas as pa
import pyarrow
from pyarrow import csv


@contextmanager
def stream(path: Path, file: str) -> Iterator[pyarrow.NativeFile]:
    """Opens a file in a folder or a zip, at whatever depth it lies, unpacked if gzipped.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: the zip is damaged.
    """
    with ExitStack() as stack:
        if path.is_dir():
            members = [str(m.relative_to(path)) for m in sorted(path.rglob("*")) if m.is_file()]
            member = find(path, file, members)
            source: Any = stack.enter_context((path / member).open("rb"))
        else:
            try:
                archive = stack.enter_context(zipfile.ZipFile(path))
                member = find(path, file, archive.namelist())
                source = stack.enter_context(archive.open(member))
            except (zipfile.BadZipFile, EOFError) as error:
                raise ValueError(
                    f"{path.name} is not a whole zip file ({error}); get it again, or unpack what "
                    "is right into a folder."
                ) from error
        packed = "gzip" if member.endswith(".gz") else None
        yield stack.enter_context(pyarrow.input_stream(source, compression=packed))


def content(path: Path, file: str) -> bytes:
    """The bytes of a file that `stream` opens.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is empty or cut short, or the zip is damaged.
    """
    try:
        with stream(path, file) as opened:
            data = opened.read()
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(
            f"{file} in {path.name} is cut short or damaged ({error}); get it again."
        ) from error
    if not data.strip():
        raise ValueError(f"{file} in {path} is empty; it should hold a line a row.")
    return data


def find(path: Path, file: str, members: list[str]) -> str:
    """The member of `path` whose last part is `file`, gzipped or not, the least deep one."""
    found = [m for m in members if Path(m).name in (file, f"{file}.gz")]
    if not found:
        raise FileNotFoundError(
            f"{path} holds no file '{file}'; it holds {', '.join(members[:10]) or 'nothing'}."
        )
    return min(found, key=lambda m: len(Path(m).parts))


def decode(data: bytes, file: str, encoding: str) -> str:
    """Text of a file; a ValueError names the line of a byte that does not decode."""
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{file}, line {line}: the byte 0x{error.object[error.start]:02x} does not decode as "
            f"{encoding}; save the file in this encoding."
        ) from error


def split_lines(
    text: str,
    file: str,
    columns: list[str],
    first: int,
    delimiter: str = "\t",
    quote: str | None = None,
    escape: str | None = None,
) -> pd.DataFrame:
    r"""A table of text whose index is the line number in the file.

    Args:
        text: lines of values, without a header.
        file: its name.
        columns: names of the columns, one for each value of a line.
        first: line number of the first line.
        delimiter: between the values.
        quote: around values that may hold the delimiter.
        escape: before a quote that belongs to the value; without it such a quote is doubled.

    Returns:
        A column of str each; an empty value is missing.

    Raises:
        ValueError: a line has more or fewer values.
    """
    wrong: list[csv.InvalidRow] = []

    def note(row: csv.InvalidRow) -> str:
        wrong.append(row)
        return "skip"

    table = csv.read_csv(
        pyarrow.py_buffer(text.rstrip("\r\n").encode()),
        # Only a single thread knows the number of a line.
        read_options=csv.ReadOptions(column_names=columns, use_threads=False),
        parse_options=csv.ParseOptions(
            delimiter=delimiter,
            quote_char=quote or False,
            double_quote=escape is None,
            escape_char=escape or False,
            ignore_empty_lines=False,
            invalid_row_handler=note,
        ),
        convert_options=csv.ConvertOptions(
            column_types=dict.fromkeys(columns, pyarrow.string()),
            null_values=[""],
            strings_can_be_null=True,
        ),
    )
    if wrong:
        row = wrong[0]
        raise ValueError(
            f"{file}, line {row.number + first - 1}: {row.actual_columns} columns instead of "
            f"{len(columns)} ({', '.join(columns)}): {row.text[:80]!r}."
        )
    frame = table.to_pandas()
    frame.index = pd.RangeIndex(first, first + len(frame))
    return frame


def check(
    file: str, frame: pd.DataFrame, columns: dict[str, pa.Column], key: list[str] | None = None
) -> pd.DataFrame:
    """Holds a table against rules and turns its columns into their types.

    Args:
        file: its name.
        frame: a table whose index is the line number in the file.
        columns: the rules of each column; their `description` says what is accepted.
        key: columns that no two rows may share.

    Raises:
        ValueError: the first line that breaks a rule.
    """
    if missing := [name for name in columns if name not in frame]:
        raise ValueError(
            f"{file}: there is no column '{missing[0]}'; there are {', '.join(map(str, frame))}."
        )
    try:
        frame = pa.DataFrameSchema(columns).validate(frame, lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases
        # A column with a value of another type stays text, on which every other rule fails.
        types = cases["check"].astype("str").str.startswith("coerce_dtype")
        worst = (cases[types] if types.any() else cases).sort_values("index", kind="stable").iloc[0]
        value = "nothing" if pd.isna(worst["failure_case"]) else f"'{worst['failure_case']}'"
        raise ValueError(
            f"{file}, line {worst['index']}, column '{worst['column']}': found {value}, but it "
            f"must be {columns[worst['column']].description}."
        ) from error
    if key and (again := frame.duplicated(key)).any():
        keys = frame[key].to_numpy()
        pair = keys[again.to_numpy().argmax()]
        lines = frame.index[(keys == pair).all(axis=1)]
        named = ", ".join(f"{name} {value}" for name, value in zip(key, pair, strict=True))
        raise ValueError(
            f"{file}, line {lines[1]}: {named} is already in line {lines[0]}; each pair of "
            f"{' and '.join(key)} may stand only once."
        )
    return frame


def decimal(low: float = -math.inf, high: float = math.inf, nullable: bool = False) -> pa.Column:
    """The rule for a number from `low` to `high`."""
    return pa.Column(
        "float64",
        pa.Check.in_range(low, high),
        coerce=True,
        nullable=nullable,
        description="a number" + (f" from {low:g} to {high:g}" if math.isfinite(low) else ""),
    )


def number(low: int, high: int | None = None, nullable: bool = False) -> pa.Column:
    """The rule for a whole number from `low` (to `high`)."""
    return pa.Column(
        "Int64" if nullable else "int64",
        pa.Check.ge(low) if high is None else pa.Check.in_range(low, high),
        coerce=True,
        nullable=nullable,
        description=f"a whole number from {low}" + ("" if high is None else f" to {high}"),
    )


def identifier() -> pa.Column:
    """The rule for the key of a table."""
    return pa.Column(
        "int64",
        pa.Check.ge(1),
        unique=True,
        report_duplicates="exclude_first",
        coerce=True,
        description="a whole number from 1 that no earlier line has",
    )


def name() -> pa.Column:
    """The rule for the key of a table that is text."""
    return pa.Column(
        "str",
        unique=True,
        report_duplicates="exclude_first",
        description="a text that no earlier line has",
    )


def text() -> pa.Column:
    """The rule for a column of words; it may be empty."""
    return pa.Column(nullable=True, description="words, or empty")


def reference(keys: pd.Series, file: str) -> pa.Column:
    """The rule for a column that points at a row of another file."""
    return pa.Column(
        str(keys.dtype),
        pa.Check.isin(keys.tolist()),
        coerce=True,
        description=f"the number of a row of {file}",
    )


def code(codes: Iterable[str]) -> pa.Column:
    """The rule for a column of codes; it may be empty."""
    allowed = list(codes)
    return pa.Column(
        "str",
        pa.Check.isin(allowed),
        nullable=True,
        description=f"one of {', '.join(allowed)}, or empty",
    )
