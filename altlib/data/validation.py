"""Raw files to tables of text, and tables held against rules.

Nothing is guessed or skipped: the first thing that is wrong ends the reading with a ValueError, one
sentence that names file, line, column and rule; a file that is not there is a FileNotFoundError.
Lines are those of a text file, from 1 and with its header; where there are no lines, as in Parquet,
rows are counted from 1.
"""

import csv as text_csv
import math
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pyarrow
from pyarrow import csv

DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, pyarrow.ArrowException)
"""What reading a damaged, encrypted or unknown archive raises; `RuntimeError` is zipfile's."""


@contextmanager
def stream(path: Path, file: str) -> Iterator[pyarrow.NativeFile]:
    """Opens a file in a folder or a zip, at whatever depth it lies, unpacked if gzipped."""
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


def read_text(path: Path, file: str, encoding: str) -> str:
    """The text of a file that `stream` opens, as `decode` gives it."""
    with intact(f"{file} in {path.name}"), stream(path, file) as opened:
        data = opened.read()
    if not data.strip():
        raise ValueError(f"{file} in {path} is empty; it should hold a line a row.")
    return decode(data, file, encoding)


@contextmanager
def intact(file: str) -> Iterator[None]:
    """Turns the errors of reading a damaged file into a ValueError that names it."""
    try:
        yield
    except FileNotFoundError:
        raise
    except DAMAGED as error:
        text = " ".join(str(error).split())
        raise ValueError(f"{file} is cut short or damaged ({text}); get it again.") from error


def find(path: Path, file: str, members: list[str]) -> str:
    """The member of `path` whose last part is `file`, gzipped or not, the least deep one."""
    found = [m for m in members if Path(m).name in (file, f"{file}.gz")]
    if not found:
        raise FileNotFoundError(
            f"{path} holds no file '{file}'; it holds {', '.join(members[:10]) or 'nothing'}."
        )
    depths = [len(Path(member).parts) for member in found]
    first, *others = [m for m, depth in zip(found, depths, strict=True) if depth == min(depths)]
    if others:
        raise ValueError(f"{path} holds both {first} and {others[0]}; keep one of them.")
    return first


def decode(data: bytes, file: str, encoding: str) -> str:
    r"""Text of a file with "\n" as line ends; a ValueError names the line that does not decode.

    A file of a latin-1 set that an editor saved as UTF-8 is read as such: letters beyond ASCII that
    are UTF-8 throughout are not latin-1.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if encoding == "latin-1":
            text = data.decode(encoding)
        else:
            line = data.count(b"\n", 0, error.start) + 1
            raise ValueError(
                f"{file}, line {line}: the byte 0x{error.object[error.start]:02x} does not decode "
                f"as {encoding}; save the file as text in this encoding."
            ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def titled(text: str, file: str, delimiter: str = ",", quote: str | None = '"') -> pd.DataFrame:
    """A table of text whose first line names its columns, as `split_lines` gives it."""
    header, _, rest = text.partition("\n")
    dialect: dict[str, Any] = {"quotechar": quote} if quote else {"quoting": text_csv.QUOTE_NONE}
    reader: Any = text_csv.reader([header], delimiter=delimiter, strict=True, **dialect)
    try:
        columns = next(reader, []) or [""]
    except text_csv.Error as error:
        raise ValueError(f"{file}, line 1: {error}: {header[:80]!r}.") from None
    once(columns, f"{file}, line 1")
    if not rest.strip():
        what = "has a header but no rows" if header.strip() else "is empty"
        raise ValueError(f"{file} {what}; it should hold a line a row.")
    frame = split_lines(rest, file, columns, 2, delimiter, quote)
    if (empty := frame.isna().all(axis=1)).any():
        raise ValueError(f"{file}, line {frame.index[empty][0]}: there is no value in this line.")
    return frame


def once(columns: list[str], place: str) -> None:
    """Raises a ValueError if a column name is repeated."""
    for number, name in enumerate(columns):
        if name in columns[:number]:
            raise ValueError(f"{place}: the column '{name}' is repeated; rename one.")


def record_lines(
    text: str, file: str, columns: int, first: int, delimiter: str, **dialect: Any
) -> list[int]:
    """The line in which each record begins, where quoted values may go over several lines."""
    taken: list[str] = []

    def physical() -> Iterator[str]:
        for line in StringIO(text):
            taken.append(line)
            yield line

    reader = text_csv.reader(physical(), delimiter=delimiter, strict=True, **dialect)
    lines, line = [], first
    try:
        for _ in reader:
            if len(taken) > 1 and all(one.count(delimiter) == columns - 1 for one in taken):
                warnings.warn(
                    f"{file}: a quote that line {line} opens is closed in line "
                    f"{line + len(taken) - 1}, but each of these lines looks like a row; check "
                    "whether a quote is missing.",
                    stacklevel=2,
                )
            lines.append(line)
            line += len(taken)
            taken.clear()
    except text_csv.Error as error:
        raise ValueError(
            f"{file}, line {line}: its quotes do not pair ({error}): {taken[0][:80]!r}; a quote "
            "inside a quoted value must be doubled or escaped."
        ) from None
    return lines


def split_lines(
    text: str,
    file: str,
    columns: list[str],
    first: int,
    delimiter: str = "\t",
    quote: str | None = None,
    escape: str | None = None,
) -> pd.DataFrame:
    """A table of text whose index, called "line", is the line number in the file.

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
    """
    text = text.rstrip("\n")
    lines: Any = None
    if quote and quote in text:
        dialect = {"quotechar": quote, "escapechar": escape, "doublequote": escape is None}
        lines = record_lines(text, file, len(columns), first, delimiter, **dialect)
    wrong: list[csv.InvalidRow] = []

    def note(row: csv.InvalidRow) -> str:
        wrong.append(row)
        return "skip"

    with intact(file):
        table = csv.read_csv(
            pyarrow.py_buffer(text.encode()),
            # Only a single thread knows the number of a line.
            read_options=csv.ReadOptions(column_names=columns, use_threads=False),
            parse_options=csv.ParseOptions(
                delimiter=delimiter,
                quote_char=quote or False,
                double_quote=escape is None,
                escape_char=escape or False,
                ignore_empty_lines=False,
                newlines_in_values=lines is not None,
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
        line = lines[row.number - 1] if lines else row.number + first - 1
        raise ValueError(
            f"{file}, line {line}: {row.actual_columns} columns instead of "
            f"{len(columns)} ({', '.join(columns)}): {row.text[:80]!r}."
        )
    frame = table.to_pandas()
    frame.index = pd.Index(lines or range(first, first + len(frame)), name="line")
    return frame


def refuse(file: str, values: pd.Series, wrong: pd.Series, right: str) -> None:
    """Raises a ValueError that names the first value of a column that is wrong, and what is right.

    The index of the values counts lines or rows, as its name says.
    """
    if wrong.any():
        row = int(wrong.to_numpy("bool").argmax())
        place = f"{values.index.name} {values.index[row]}"
        found = "nothing" if values.isna().iloc[row] else f"'{str(values.iloc[row])[:80]}'"
        raise ValueError(
            f"{file}, {place}, column '{values.name}': found {found}, but it must be {right}."
        )


def check(
    file: str, frame: pd.DataFrame, columns: dict[str, pa.Column], key: list[str] | None = None
) -> pd.DataFrame:
    """Holds a table against rules and turns its columns into their types.

    Args:
        file: its name.
        frame: a table from `split_lines` or `titled`.
        columns: the rules of each column; their `description` says what is accepted.
        key: columns that no two rows may share.
    """
    if missing := [name for name in columns if name not in frame]:
        raise ValueError(
            f"{file}: there is no column '{missing[0]}'; there are {', '.join(map(str, frame))}."
        )
    for column, rule in columns.items():
        if rule.coerce:  # Python takes "1_0" and digits of every script for numbers
            odd = frame[column].str.contains(r"[^\x00-\x7f]|_", na=False)
            refuse(file, frame[column], odd, str(rule.description))
    try:
        frame = pa.DataFrameSchema(columns).validate(frame, lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases
        # A column with a value of another type stays text, on which every other rule fails.
        types = cases["check"].astype("str").str.startswith("coerce_dtype")
        worst = (cases[types] if types.any() else cases).sort_values("index", kind="stable").iloc[0]
        column, line = worst["column"], pd.Series(frame.index == worst["index"])
        refuse(file, frame[column], line, str(columns[column].description))
    if key and (again := frame.duplicated(key)).any():
        pairs = frame.groupby(key, dropna=False).ngroup().to_numpy()
        position = again.to_numpy().argmax()
        lines = frame.index[pairs == pairs[position]]
        named = ", ".join(f"{name} {frame[name].iloc[position]}" for name in key)
        raise ValueError(
            f"{file}, line {lines[1]}: {named} is already in line {lines[0]}; each pair of "
            f"{' and '.join(key)} may occur only once."
        )
    return frame


def decimal(low: float = -math.inf, high: float = math.inf, nullable: bool = False) -> pa.Column:
    """The rule for a number from `low` to `high`."""
    return pa.Column(
        "float64",
        [pa.Check.in_range(low, high), pa.Check(np.isfinite)],
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


def identifier(low: int = 1) -> pa.Column:
    """The rule for the key of a table."""
    return pa.Column(
        "int64",
        pa.Check.ge(low),
        unique=True,
        report_duplicates="exclude_first",
        coerce=True,
        description=f"a whole number from {low} that no earlier line has",
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
