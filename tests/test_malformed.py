"""A seeded corpus of odd and malformed inputs: tables, descriptions and rows to predict.

Every outcome is a sentence that names the place, or exactly the right values; never another error
and never silence. What is right is known from how an input was made, not from how it is read.
"""

import bz2
import csv
import gzip
import io
import random
import warnings
from collections.abc import Callable, Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pytest
import yaml
from pyarrow import parquet

from altlib.data import sources
from altlib.data.fetch import Raw
from altlib.data.sources import ml_1m, own
from altlib.data.spelling import UNKNOWN
from altlib.serving.predictor import Predictor

COLUMNS = ["user", "city", "item", "price", "click", "time"]
DESCRIPTION = """\
file: {file}
fields:
  user: {{words: user id, side: user}}
  city: {{side: user}}
  item: {{words: product name, side: item}}
  price: {{side: item}}
rating: click
timestamp: time
"""
# What stands in a cell, and the word that it is. Some texts look like numbers, or like nothing.
TEXTS = [
    ("Bonn", "Bonn"), ("", UNKNOWN), ("  ", UNKNOWN), (" a \t b ", "a b"), ("Köln", "Köln"),
    ("a\u00a0b", "a b"), ('say "hi", you', 'say "hi", you'), ("two\nlines", "two lines"),
    ("007", "007"), ("1.10", "1.10"), ("NA", "NA"), ("null", "null"), ("None", "None"),
    ("nan", "nan"), ("-inf", "-inf"), ("true", "true"), ("1e5", "1e5"), ("=1+1", "=1+1"),
    ("\u2028", UNKNOWN), ("日本", "日本"), ("😀", "😀"), ("5' 7\"", "5' 7\""), ("\\", "\\"),
    ("a;b", "a;b"), ("#x", "#x"), ("unknown", UNKNOWN), ("1_000", "1_000"), ("9" * 40, "9" * 40),
]  # fmt: skip
NUMBERS = [
    ("2", "2"), ("2.0", "2"), ("2.50", "2.5"), ("-0.0", "0"), ("1e-07", "0.0000001"),
    ("1996.0", "1996"), ("", UNKNOWN), ("9007199254740993", "9007199254740993"),
    ("12345678901234567890", "12345678901234567890"), (".5", "0.5"), ("+3", "3"),
]  # fmt: skip
NO_NUMBER = ["", "x", "inf", "-inf", "nan", "1e30", "1e400", "1,5", "1_000", "0x10", "--1", "٣"]
NO_TIME = [*NO_NUMBER, "-9223372036854775808", "9223372036854775807", "2024-05-31"]

Rows = list[list[str]]


def refused(read: Callable[[], Any], *told: str) -> None:
    """The outcome is an error of one short line that says all of `told`."""
    with pytest.raises((ValueError, OSError)) as caught:
        read()
    sentence = str(caught.value)
    assert type(caught.value).__module__ in ("builtins", "altlib.data.fetch"), type(caught.value)
    assert "\n" not in sentence and 20 < len(sentence) < 500, sentence
    for part in told:
        assert part in sentence, f"'{part}' is not in: {sentence}"


def made(rng: random.Random, number: int = 6) -> tuple[Rows, Rows]:
    """Rows of cells and, of the same rows, words and numbers as text."""
    cells, expected = [], []
    for row in range(number):
        # One plain text a column: else it might hold numbers only, and be typed.
        texts = [rng.choice(TEXTS) if row else ("Bonn", "Bonn") for _ in range(3)]
        price = rng.choice(NUMBERS)
        click, time = str(rng.randrange(2)), str(rng.choice([rng.randrange(10**12), rng.random()]))
        cells.append([text for text, _ in texts] + [price[0], click, time])
        expected.append([word for _, word in texts] + [price[1], click, time])
    return cells, expected


def written(cells: Rows, header: list[str] = COLUMNS, end: str = "\n") -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator=end).writerows([header, *cells])
    return text.getvalue()


def load(folder: Path, content: bytes, file: str = "t.csv") -> pd.DataFrame:
    (folder / "mine.yaml").write_text(DESCRIPTION.format(file=file))
    (folder / file).write_bytes(content)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* spellings of")
        return sources.load(str(folder / "mine.yaml")).frame


def right(frame: pd.DataFrame, expected: Rows) -> None:
    """The frame has exactly these words and numbers."""
    assert frame.iloc[:, :4].astype("object").to_numpy().tolist() == [row[:4] for row in expected]
    numbers = [[float(value) for value in row[4:]] for row in expected]
    assert frame.iloc[:, 4:].to_numpy("float64").tolist() == numbers


def lines_before(cells: Rows, row: int) -> int:
    """The line of the file in which a row begins."""
    return written(cells[:row]).count("\n") + 1


@pytest.mark.parametrize("seed", range(40))
def test_odd_tables_are_read_exactly(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    cells, expected = made(rng, rng.choice([2, 6, 300]))
    order = rng.sample(range(6), 6)
    turned = [[row[column] for column in order] for row in cells]
    text = written(turned, [COLUMNS[column] for column in order], rng.choice(["\n", "\r\n"]))
    content = (rng.choice(["", "\ufeff"]) + text + rng.choice(["", "\n", "\r\n\n"])).encode()
    ending, pack = rng.choice([("", bytes), (".gz", gzip.compress), (".bz2", bz2.compress)])
    right(load(tmp_path, pack(content), f"t.csv{ending}"), expected)


def table_faults(rng: random.Random) -> Iterator[tuple[bytes, tuple[str, ...]]]:
    """Contents of a CSV file that must be refused, and what the sentence must say."""
    cells, _ = made(rng)
    row, column = rng.randrange(len(cells)), rng.randrange(6)
    line = f"line {lines_before(cells, row)}"

    def changed(value: str, column: int) -> bytes:
        other = [list(cell) for cell in cells]
        other[row][column] = value
        return written(other).encode()

    wide = [cell + [rng.choice(["", "x"])] * (number == row) for number, cell in enumerate(cells)]
    yield written(wide).encode(), ("t.csv", line, "7 columns instead of 6")
    yield written([[*cell, ""] for cell in cells]).encode(), ("t.csv", "line 2", "7 columns")
    narrow = [cell[: 6 - (number == row)] for number, cell in enumerate(cells)]
    yield written(narrow).encode(), ("t.csv", line, "5 columns instead of 6")
    header = [*COLUMNS]
    header[column] = COLUMNS[column - 1]
    yield written(cells, header).encode(), ("t.csv", "line 1", COLUMNS[column - 1], "repeated")
    header[column] = "other"
    yield written(cells, header).encode(), ("t.csv", f"no column '{COLUMNS[column]}'")
    value = rng.choice(NO_NUMBER)
    yield changed(value, 4), ("t.csv", line, "column 'click'", value[:80] or "nothing")
    value = rng.choice(NO_TIME)
    yield changed(value, 5), ("t.csv", line, "column 'time'", value[:80] or "nothing")
    blank = written(cells[:row]) + "\n" + written(cells[row:]).partition("\n")[2]
    yield blank.encode(), ("t.csv", line)
    plain = [[text if text.isalnum() else "x" for text in cell] for cell in cells]
    for quoted in ('"x', '"x"y', '"x""'):
        other = [list(cell) for cell in plain]
        other[row][rng.randrange(3)] = quoted
        text = "\n".join([",".join(COLUMNS), *map(",".join, other)])
        yield text.encode(), ("t.csv", f"line {row + 2}", "quotes do not pair")
    whole = written(cells)
    place = rng.randrange(len(whole.encode()))
    bad = whole.encode()[:place] + b"\xff" + whole.encode()[place:]
    yield bad, ("t.csv", "0x", "does not decode as utf-8")
    yield whole.encode("utf-16"), ("t.csv", "does not decode as utf-8")
    yield whole.replace(",", ";").encode(), ("t.csv",)
    yield rng.choice([b"", b"\n\n", whole.partition("\n")[0].encode()]), ("t.csv", "hold a line")


@pytest.mark.parametrize("seed", range(20))
def test_malformed_tables_are_refused_by_place(seed: int, tmp_path: Path) -> None:
    for content, told in table_faults(random.Random(seed)):
        refused(lambda content=content: load(tmp_path, content), *told)


@pytest.mark.parametrize("seed", range(20))
def test_damaged_archives_and_parquet_are_refused_or_read_exactly(
    seed: int, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    cells, expected = made(rng)
    whole = gzip.compress(written(cells).encode())
    place = rng.randrange(len(whole))
    refused(lambda: load(tmp_path, whole[:place] or b"x", "t.csv.gz"), "t.csv.gz")
    flipped = whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1 :]
    try:
        frame = load(tmp_path, flipped, "t.csv.gz")
    except ValueError as error:
        assert "t.csv.gz is cut short or damaged" in str(error)
    else:
        right(frame, expected)  # the flag, the time or the system of the header

    buffer = io.BytesIO()
    texts = dict(zip(COLUMNS, zip(*cells, strict=True), strict=True))
    numbers = {name: [float(value) for value in texts[name]] for name in ("click", "time")}
    parquet.write_table(pyarrow.table(texts | numbers), buffer)
    content = buffer.getvalue()
    right(load(tmp_path, content, "t.parquet"), expected)
    cut = rng.choice([content[: rng.randrange(len(content))], content[rng.randrange(1, 99) :]])
    refused(lambda: load(tmp_path, cut, "t.parquet"), "t.parquet", "damaged")


# A value as Python or Arrow has it, and its word; a column takes values of one kind.
KINDS: list[tuple[pyarrow.DataType, list[tuple[Any, str]]]] = [
    (pyarrow.int64(), [(7, "7"), (2**60 + 1, str(2**60 + 1)), (-1, "-1")]),
    (pyarrow.uint64(), [(7, "7"), (2**64 - 1, str(2**64 - 1))]),
    (pyarrow.int8(), [(7, "7"), (-128, "-128")]),
    (pyarrow.float64(), [(7.0, "7"), (2.5, "2.5"), (1e-7, "0.0000001"), (-0.0, "0")]),
    (pyarrow.float32(), [(np.float32(0.1), "0.1"), (np.float32(3), "3")]),
    (pyarrow.bool_(), [(True, "True"), (False, "False")]),
    (pyarrow.string(), [("Bonn", "Bonn"), ("2.50", "2.50"), (" a  b", "a b"), ("", UNKNOWN)]),
    (pyarrow.decimal128(25, 2), [(Decimal("2.50"), "2.5"), (Decimal(10**20), "1" + "0" * 20)]),
    (pyarrow.date32(), [(date(2024, 5, 31), "2024-05-31"), (date(1, 1, 1), "0001-01-01")]),
    *(
        (
            pyarrow.timestamp(unit),
            [
                (datetime(2024, 5, 31), "2024-05-31"),
                (datetime(2024, 5, 31, 14, 30), "2024-05-31 14:30:00"),
            ],
        )
        for unit in ("s", "ms", "us", "ns")
    ),
]
WORDLESS = [
    [1],
    (1, 2),
    {"a": 1},
    {1},
    b"x",
    1j,
    object(),
    2.0**53,
    -1e300,
    float("inf"),
    "a\udfff",
]


@pytest.mark.parametrize("seed", range(40))
def test_values_of_every_type_have_the_words_of_training(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    number = rng.randrange(2, 9)
    columns, expected = {}, []
    for name in COLUMNS[:4]:
        kind, values = rng.choice(KINDS)
        chosen = [rng.choice([*values, (None, UNKNOWN)]) for _ in range(number)]
        if pyarrow.types.is_string(kind):  # with a text, so that "2.50" is none of a number
            chosen[0] = values[0]
        columns[name] = pyarrow.array([value for value, _ in chosen], kind)
        expected.append([word for _, word in chosen])
    words = [list(row) for row in zip(*expected, strict=True)]
    numbers = {"click": [0.0] * number, "time": list(map(float, range(number)))}
    table = pyarrow.table(columns | numbers)
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    right(load(tmp_path, buffer.getvalue(), "t.parquet"),
          [[*row, "0", str(time)] for time, row in enumerate(words)])  # fmt: skip

    predictor = Predictor.__new__(Predictor)
    predictor.fields = COLUMNS[:4]
    frame = own.table(tmp_path / "t.parquet")
    for rows in (table, frame):
        assert [list(row) for row in predictor.words(rows)] == words
        assert [list(predictor.words(rows[n : n + 1])[0]) for n in range(number)] == words
    mappings = [
        {name: column[n].as_py() for name, column in columns.items()} for n in range(number)
    ]
    row, field = rng.randrange(number), rng.choice(predictor.fields)
    mappings[row][field] = rng.choice(WORDLESS)
    refused(lambda: predictor.words(mappings), f"Row {row + 1}, field '{field}': found")


NOT_TEXT = ["no", "Yes", "on", "off", "null", "~", "1", "1.5", "2024-05-31", "0x1f", "true"]


@pytest.mark.parametrize("seed", range(60))
def test_malformed_descriptions_are_refused_or_mean_what_they_say(
    seed: int, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    file = tmp_path / "mine.yaml"
    text = DESCRIPTION.format(file="t.csv") + "label: {positive_from: 1, scale: [0, 1]}\n"
    lines = text.splitlines()

    def describe(text: str) -> own.Description:
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        return own.describe(file)

    twice = rng.choice([0, 2, 3, 4, 5, 6, 7, 8])
    copy = (
        [*lines, lines[twice]] if twice in (0, 6, 7, 8) else [*lines[:3], lines[twice], *lines[3:]]
    )
    refused(lambda: describe("\n".join(copy)), "mine.yaml", "line", "only once")
    name = rng.choice(["user", "city", "item", "price"])
    odd = rng.choice(NOT_TEXT)
    refused(lambda: describe(text.replace(f"  {name}:", f"  {odd}:")), "mine.yaml", odd, "quotes")
    for entry in ("rating: click", "timestamp: time", "file: t.csv", "words: user id"):
        key = entry.partition(":")[0]
        value = rng.choice(NOT_TEXT)
        if value not in ("null", "~") or key in ("rating", "file"):
            wrong = text.replace(entry, f"{key}: {value}")
            refused(lambda wrong=wrong: describe(wrong), "mine.yaml", key, "quotes")
        wrong = text.replace(entry, f"{key}: {rng.choice(['[a]', '{a: b}'])}")
        refused(lambda wrong=wrong: describe(wrong), "mine.yaml", key)
    refused(lambda: describe(text.replace("side: item", "side: items")), "mine.yaml", "side")
    refused(lambda: describe(text.replace("rating: click", f"rating: {name}")), name, "label")
    begin = rng.randrange(len(text))
    edits = [
        text[:begin] + text[begin + 1 :],
        text[:begin] + rng.choice("{}[]:,#&*!|>'\"%@`\t\0-?\ud800") + text[begin:],
    ]
    for edited in (*edits, text[:begin]):
        try:
            described = describe(edited)
        except ValueError as error:
            assert str(error).startswith("mine.yaml") and "\n" not in str(error), error
            continue
        said = yaml.safe_load(edited)
        assert (described.file, described.rating) == (said["file"], said["rating"])
        assert described.timestamp == said.get("timestamp")
        assert {name: field.side for name, field in described.fields.items()} == {
            name: entry["side"] for name, entry in said["fields"].items()
        }
        if "label" in said:
            assert described.label.positive_from == said["label"]["positive_from"]


@pytest.mark.parametrize("seed", range(10))
def test_malformed_movielens_files_are_refused_or_read_exactly(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    titles = ["Misérables, Les (1995)", 'The "X" Files', "Ärger", "7:Up", "a\u00a0b", "日本"]
    files = {
        "users.dat": [f"{n}::{rng.choice('MF')}::25::{rng.randrange(21)}::0{n}" for n in (1, 2, 3)],
        "movies.dat": [f"{n}::{rng.choice(titles[:4])}::Drama|War" for n in (1, 2, 3)],
        "ratings.dat": [
            f"{u}::{m}::{rng.randint(1, 5)}::{u * 10 + m}" for u in (1, 2, 3) for m in (1, 2)
        ],
    }

    def read(files: dict[str, list[str]], encoding: str = "latin-1") -> pd.DataFrame:
        for name, lines in files.items():
            (tmp_path / name).write_bytes("\n".join(lines).encode(encoding))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ml_1m.read(Raw("ml-1m", tmp_path, "user folder", {}, True, "")).frame

    expected = [line.split("::")[1] for line in files["movies.dat"][:2]] * 3
    for encoding in ("latin-1", "utf-8", "utf-8-sig"):
        assert read(files, encoding)["title"].tolist() == expected
    name = rng.choice(list(files))
    row = rng.randrange(len(files[name]))
    values = files[name][row].split("::")
    wrongs = [
        [*values, ""], values[:-1], ["x", *values[1:]], ["", *values[1:]], ["1.5", *values[1:]],
        ["9" * 30, *values[1:]],
    ]  # fmt: skip
    for wrong in wrongs:
        lines = [*files[name]]
        lines[row] = "::".join(wrong)
        refused(lambda lines=lines: read({**files, name: lines}), f"{name}, line {row + 1}")
    again = [*files[name], files[name][row]]
    refused(lambda: read({**files, name: again}), f"{name}, line {len(again)}")
