import bz2
import gzip
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pytest
from pyarrow import parquet

from altlib.config import DataConfig, LabelRule
from altlib.data import sources
from altlib.data.sources import own
from altlib.data.spelling import UNKNOWN
from altlib.data.tabular import label
from altlib.lab import keys, steps
from altlib.profile import load_profile

DESCRIPTION = """\
file: clicks.csv
fields:
  user: {words: user id, side: user}
  home_town: {side: user}
  product: {words: product name, side: item}
  code: {side: item, determined_by: [product]}
rating: stars
label: {positive_from: 4, dropped: [3], scale: [1, 5]}
timestamp: time
"""
GAP = """\
file: c.parquet
fields: {user: {side: user}, product: {side: item}}
rating: stars
"""
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
ROWS = (
    "user,home_town,product,code,stars,time,note\n7,Köln,Big  Tea,001,5,30,x\n8,,Tea,002,2,10,y\n"
)


def write(folder: Path, description: str = DESCRIPTION, rows: str = ROWS) -> str:
    (folder / "mine.yaml").write_text(description)
    (folder / "clicks.csv").write_text(rows, encoding="utf-8")
    return str(folder / "mine.yaml")


def test_columns_become_fields(tmp_path: Path) -> None:
    data = sources.load(write(tmp_path))
    assert data.frame.astype("object").to_numpy().tolist() == [
        ["7", "Köln", "Big Tea", "001", 5, 30],
        ["8", UNKNOWN, "Tea", "002", 2, 10],
    ]
    assert [field.words for field in data.schema.fields] == [
        "user id", "home town", "product name", "code",
    ]  # fmt: skip
    assert [field.determined_by for field in data.schema.fields] == [None, None, None, ("product",)]
    assert data.schema.label == LabelRule(4, (3,), (1, 5))
    assert set(data.provenance["sha256"]) == {"mine.yaml", "clicks.csv"}
    assert data.provenance["warnings"] == []


def test_parquet_gives_the_same(tmp_path: Path) -> None:
    plain = sources.load(write(tmp_path)).frame
    pd.read_csv(tmp_path / "clicks.csv", dtype={"code": "str"}).to_parquet(tmp_path / "c.parquet")
    name = write(tmp_path, DESCRIPTION.replace("clicks.csv", "c.parquet"))
    assert sources.load(name).frame.equals(plain)
    gap = pd.DataFrame({"user": [7, None, 8], "product": ["Tea"] * 3, "stars": [1, 5, 5]})
    gap.to_parquet(tmp_path / "c.parquet")
    assert sources.load(write(tmp_path, GAP)).frame["user"].tolist() == ["7", UNKNOWN, "8"]


def test_a_click_needs_no_label_rule_and_no_time(tmp_path: Path) -> None:
    lines = [line for line in DESCRIPTION.splitlines() if line[:5] not in ("label", "times")]
    data = sources.load(write(tmp_path, "\n".join(lines), ROWS.replace(",5,", ",1,")))
    assert data.schema.label == LabelRule(1, scale=(0, 1))
    assert data.frame["timestamp"].tolist() == [0, 0]


def test_a_change_of_either_file_makes_another_key(tmp_path: Path) -> None:
    config = DataConfig(write(tmp_path))
    seen = [keys.data_key(config)]
    for description, rows in (
        (DESCRIPTION, ROWS + "9,,Tea,002,2,10,z\n"),
        (f"{DESCRIPTION}#", ROWS),
    ):
        write(tmp_path, description, rows)
        seen.append(keys.data_key(config))
    assert len(set(seen)) == 3


def test_a_relative_path_is_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"There is no file mine\.yaml in .*elsewhere"):
        sources.load("mine.yaml")
    monkeypatch.setattr("altlib.store.PROJECT", tmp_path)
    assert len(sources.load("mine.yaml").frame) == 2


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("rating: stars", "rating: star", "clicks.csv has no column 'star'; did you mean 'stars'"),
        ("{side: user}", "{side: shop}", r"mine.yaml: 'fields.home_town.side' is 'shop'"),
        ("rating: stars", "", "mine.yaml: the entry 'rating' is missing"),
        ("clicks.csv", "gone.csv", r"There is no file .*gone\.csv, which mine\.yaml names"),
        ("timestamp: time", "timestamp: note", "clicks.csv, line 2, column 'note': found 'x'"),
        ("side: item", "side: user", "mine.yaml has no field of the side 'item'"),
        ("rating: stars", "rating: code", "mine.yaml: 'code' is the rating, of which the label"),
        ("home_town:", "no:", "mine.yaml: line 4: the name no is not text in YAML"),
        ("home_town:", "2024-05-31:", "line 4: the name 2024-05-31 is not text in YAML"),
        ("home_town:", "user:", "line 4: the entry 'user' is already in line 3"),
        ("side: item,", "side: item, side: user,", "line 6: the entry 'side' is already in line 6"),
        ("timestamp: time", "rating: time", "line 9: the entry 'rating' is already in line 7"),
        ("timestamp: time", "timestamp: on", "mine.yaml: 'timestamp' is True, which is not text"),
        ("words: user id", "words: 5", "mine.yaml: 'fields.user.words' is 5, which is not text"),
        ("words: user id", r'words: "\ud800"', "mine.yaml: .* surrogates not allowed"),
        ("timestamp: time", "timestamp: 2024-13-45", "mine.yaml: month must be in 1..12"),
        ("timestamp: time", "timestamp: " + 1500 * "[", "mine.yaml is not a YAML file"),
        ("positive_from: 4", "positive_from: .nan", "mine.yaml: .* positive_from = nan"),
        ("positive_from: 4", "positive_from: yes", "mine.yaml: 'label.positive_from' is True, wh"),
        ("dropped: [3]", "dropped: [no]", r"mine.yaml: 'label.dropped' is \[False\], where"),
        ("timestamp: time", "timestamp: !!timestamp time", "mine.yaml: "),
        ("{positive_from: 4, dropped: [3], scale: [1, 5]}", "5", "mine.yaml: 'label' is 5"),
        ("[1, 5]", "[5, 1]", "mine.yaml: A label rule .* the scale must rise"),
        ("label:", "lable:", "there is no entry 'lable'; did you mean 'label'"),
    ],
)
def test_a_fault_is_named(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in DESCRIPTION
    with pytest.raises((ValueError, FileNotFoundError), match=told):
        sources.load(write(tmp_path, DESCRIPTION.replace(old, new)))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("30,x\n", "30,x,\n", r"clicks.csv, line 2: 8 columns instead of 7 \(user, home_town"),
        ("10,y\n", "10\n", "clicks.csv, line 3: 6 columns instead of 7"),
        ("30,x\n", "30,x\n\n", "clicks.csv, line 3: there is no value in this line"),
        ("user,", "note,", "clicks.csv, line 1: the column 'note' is repeated"),
        ("Köln", '"Köln', "clicks.csv, line 2: its quotes do not pair"),
        ("Köln", '"Kö"ln', "clicks.csv, line 2: its quotes do not pair"),
        ("user,", '"user,', "clicks.csv, line 1: unexpected end of data"),
        ("001,5", "001,", "clicks.csv, line 2, column 'stars': found nothing, but it must be a"),
        ("001,5", "001,inf", "clicks.csv, line 2, column 'stars': found 'inf'"),
        ("002,2,10", "002,2,", "clicks.csv, line 3, column 'time': found nothing"),
        ("002,2,10", "002,2,1e30", "clicks.csv, line 3, column 'time': found '1e30'"),
        ("002,2,10", "002,2,-9223372036854775808", "clicks.csv, line 3, column 'time'"),
        (ROWS, ROWS.splitlines()[0], "clicks.csv has a header but no rows"),
        (ROWS, "", "clicks.csv is empty"),
    ],
)
def test_a_fault_of_the_table_is_named(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in ROWS
    with pytest.raises(ValueError, match=told):
        sources.load(write(tmp_path, rows=ROWS.replace(old, new, 1)))


def test_lines_are_those_of_the_file_where_a_value_has_several(tmp_path: Path) -> None:
    rows = ROWS.replace("Big  Tea", '"Big\nTea, ""hot"""')
    frame = sources.load(write(tmp_path, rows=rows)).frame
    assert frame["product"].tolist() == ['Big Tea, "hot"', "Tea"]
    with pytest.raises(ValueError, match=r"clicks\.csv, line 4, column 'stars': found 'x'"):
        sources.load(write(tmp_path, rows=rows.replace("002,2", "002,x")))
    rows = 'user,product,stars\na,"x,1\nb,y",5\n'
    with pytest.warns(UserWarning, match="a quote that line 2 opens is closed in line 3, but each"):
        sources.load(write(tmp_path, GAP.replace("c.parquet", "clicks.csv"), rows))


def test_a_file_is_found_from_the_folder_of_its_description_packed_or_not(tmp_path: Path) -> None:
    expected = sources.load(write(tmp_path)).frame
    (tmp_path / "data").mkdir()
    data = "\ufeff" + ROWS.replace("\n", "\r\n")
    for file in ("data/clicks.csv", "data/../data/clicks.csv.gz", str(tmp_path / "data/c.csv.bz2")):
        pack = {".gz": gzip.compress, ".bz2": bz2.compress}.get(Path(file).suffix, bytes)
        (tmp_path / file).write_bytes(pack(data.encode()))
        name = write(tmp_path, DESCRIPTION.replace("clicks.csv", file))
        assert sources.load(name).frame.equals(expected)
    whole = gzip.compress(ROWS.encode())
    damaged = {"cut": whole[:-9], "none": b"user", "flipped": whole[:30] + b"\0" + whole[31:]}
    name = write(tmp_path, DESCRIPTION.replace("clicks.csv", "c.csv.gz"))
    for content in damaged.values():
        (tmp_path / "c.csv.gz").write_bytes(content)
        with pytest.raises(ValueError, match=r"c\.csv\.gz is cut short or damaged"):
            sources.load(name)


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    name, file = write(tmp_path, GAP), tmp_path / "c.parquet"
    pd.DataFrame({"user": [7], "product": ["Tea"], "stars": [1]}).to_parquet(file)
    whole = file.read_bytes()
    for content in (b"", b"PAR1", whole[:-9], whole[: len(whole) // 2], b"x" * 99):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"c\.parquet is cut short or damaged"):
            sources.load(name)
    columns = [pyarrow.array([1]), pyarrow.array(["Tea"]), pyarrow.array([1]), pyarrow.array([2])]
    table = pyarrow.Table.from_arrays(columns, ["user", "product", "stars", "stars"])
    parquet.write_table(table, file)
    with pytest.raises(ValueError, match=r"c\.parquet: the column 'stars' is repeated"):
        sources.load(name)
    parquet.write_table(table.slice(0, 0).select([0, 1, 2]), file)
    with pytest.raises(ValueError, match=r"c\.parquet has no rows"):
        sources.load(name)


def parquet_of(folder: Path, **columns: Any) -> str:
    """The description of a Parquet file of two rows."""
    rest = {"user": ["a", "b"], "product": ["x", "y"], "stars": [1, 0]}
    parquet.write_table(pyarrow.table(rest | columns), folder / "c.parquet")
    timed = "timestamp: time" if "time" in columns else ""
    return write(folder, GAP + timed)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pyarrow.array([2**60 + 1, None]), ["1152921504606846977", UNKNOWN]),
        (pyarrow.array([2**64 - 1, None], pyarrow.uint64()), ["18446744073709551615", UNKNOWN]),
        (pyarrow.array([0.1, 2], pyarrow.float32()), ["0.1", "2"]),
        (pyarrow.array([7.0, None]), ["7", UNKNOWN]),
        (pyarrow.array([7.0, 7.5]), ["7", "7.5"]),
        (pyarrow.array([Decimal("1.50"), Decimal("2.00")]), ["1.5", "2"]),
        (pyarrow.array([True, None]), ["True", UNKNOWN]),
        (pyarrow.array(["2.50", "2"]), ["2.5", "2"]),
        (pyarrow.array(["2.50", "x"]), ["2.50", "x"]),
        (pyarrow.array(["a", None]).dictionary_encode(), ["a", UNKNOWN]),
        (pyarrow.array([date(2024, 5, 31), None]), ["2024-05-31", UNKNOWN]),
        (pyarrow.array([0, 1500], pyarrow.timestamp("ms")),
         ["1970-01-01", "1970-01-01 00:00:01.500000"]),
    ],
)  # fmt: skip
def test_values_of_parquet_stay_what_they_are(
    tmp_path: Path, values: Any, expected: list[str]
) -> None:
    assert sources.load(parquet_of(tmp_path, product=values)).frame["product"].tolist() == expected


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (pyarrow.array([["a"], ["b", "c"]]), r"row 1, column 'product': found .*\(ndarray\)"),
        (pyarrow.array([{"a": 1}, None]), r"row 1, column 'product': found .*\(dict\)"),
        (pyarrow.array([b"x", None]), "row 1, column 'product': found b'x'"),
        (pyarrow.array([1.5, 2.0**60]), "row 2, column 'product': found .*last digit"),
    ],
)
def test_values_of_parquet_that_are_no_words_are_named(
    tmp_path: Path, values: Any, told: str
) -> None:
    with pytest.raises(ValueError, match=rf"c\.parquet, {told}"):
        sources.load(parquet_of(tmp_path, product=values))


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (pyarrow.array([5, 2**60 + 1]), [5, 2**60 + 1]),
        (pyarrow.array([0.75, 0.25]), [0.75, 0.25]),
        (pyarrow.array([0.1, 0.3], pyarrow.float32()), [0.1, 0.3]),
        (pyarrow.array(["1.5", "7"]), [1.5, 7]),
        (pyarrow.array([date(1970, 1, 2), date(1970, 1, 1)]), [86400, 0]),
        *((pyarrow.array([n, 0], pyarrow.timestamp(unit)), [1, 0]) for unit, n in UNITS.items()),
        (pyarrow.array([1500, 1499], pyarrow.timestamp("ms", "Europe/Berlin")), [1.5, 1.499]),
        (pyarrow.array([1700000000000000002, 1700000000000000001], pyarrow.timestamp("ns")),
         [1700000000000000002, 1700000000000000001]),
    ],
)  # fmt: skip
def test_times_keep_fractions_and_order_in_one_unit(
    tmp_path: Path, times: Any, expected: list[float]
) -> None:
    assert sources.load(parquet_of(tmp_path, time=times)).frame["timestamp"].tolist() == expected


def test_dates_in_text_are_times(tmp_path: Path) -> None:
    rows = ROWS.replace(",30,", ",2024-05-31T10:00:00+02:00,").replace(",10,", ",2024-05-31,")
    found = sources.load(write(tmp_path, rows=rows)).frame["timestamp"]
    assert found.tolist() == [1717142400, 1717113600]
    wrong = rows.replace("2024-05-31,", "2024-05-41,")
    with pytest.raises(ValueError, match=r"clicks\.csv, line 3, column 'time': found '2024-05-41'"):
        sources.load(write(tmp_path, rows=wrong))


@pytest.mark.parametrize(
    "times",
    [
        pyarrow.array([0, None], pyarrow.timestamp("us")),
        pyarrow.array([0, 10**16], pyarrow.timestamp("ms")),
        pyarrow.array([0, -(10**11)], pyarrow.timestamp("s")),
        pyarrow.array([0, None]),
        pyarrow.array([0, float("inf")]),
        pyarrow.array([0, float("nan")]),
        pyarrow.array([0, 2**63 - 1]),
        pyarrow.array(["5", "soon"]),
        pyarrow.array([date(2024, 1, 1), date(9999, 12, 31)]),
    ],
)
def test_a_time_that_is_none_is_named(tmp_path: Path, times: Any) -> None:
    with pytest.raises(ValueError, match=r"c\.parquet, row 2, column 'time': found"):
        sources.load(parquet_of(tmp_path, time=times))


@pytest.mark.parametrize(
    "times",
    [["1700000000.000000002", "1700000000.000000001"], ["9007199254740993", "9007199254740992.5"]],
)
def test_times_that_a_float_cannot_tell_apart_keep_their_order(
    tmp_path: Path, times: list[str]
) -> None:
    rows = "user,product,stars,time\n" + "".join(f"a,b,1,{time}\n" for time in times)
    description = GAP.replace("c.parquet", "clicks.csv") + "timestamp: time\n"
    for name in (
        write(tmp_path, description, rows),
        parquet_of(tmp_path, time=pyarrow.array(list(map(Decimal, times)))),
    ):
        first, second = sources.load(name).frame["timestamp"]
        assert first > second


def test_an_index_called_as_a_column_is_named(tmp_path: Path) -> None:
    frame = pd.DataFrame({"user": ["a"]}, pd.RangeIndex(1, name="user"))
    frame.to_parquet(tmp_path / "c.parquet")
    with pytest.raises(ValueError, match=r"c\.parquet: the column 'user' is repeated"):
        own.table(tmp_path / "c.parquet")


def test_numbers_have_one_spelling_in_csv_and_what_that_merges_is_told(tmp_path: Path) -> None:
    rows = "user,product,stars\n1996.0,2.50,1\n,2.5,0\n7,n/a,1\n"
    description = GAP.replace("c.parquet", "clicks.csv")
    data = sources.load(write(tmp_path, description, rows))
    assert data.frame["user"].tolist() == ["1996", UNKNOWN, "7"]
    assert data.frame["product"].tolist() == ["2.50", "2.5", "n/a"]
    assert [field.typed for field in data.schema.fields] == [True, False]
    with pytest.warns(UserWarning, match="'product' has 3 spellings of 2 numbers, .* as '2.50'"):
        data = sources.load(write(tmp_path, description, rows.replace("n/a", "8")))
    assert data.frame["product"].tolist() == ["2.5", "2.5", "8"]
    assert len(data.provenance["warnings"]) == 1


def test_thresholds_are_compared_in_one_type(tmp_path: Path) -> None:
    stars = pyarrow.array([0.7, 0.3], pyarrow.float32())
    name = parquet_of(tmp_path, stars=stars)
    (tmp_path / "mine.yaml").write_text(
        GAP + "label: {positive_from: 0.7, dropped: [0.3], scale: [0.3, 0.7]}"
    )
    data = sources.load(name)
    keep, labels = label(data.frame["rating"].to_numpy(), data.schema.label)
    assert (keep.tolist(), labels.tolist()) == ([True, False], [1, 0])


def test_it_goes_through_every_step(tmp_path: Path, tiny_plm: str) -> None:
    rng = np.random.default_rng(0)
    number = 400
    product = rng.integers(20, size=number)
    rows = pd.DataFrame(
        {
            "user": rng.integers(30, size=number),
            "home_town": rng.choice(["Köln", "Bonn"], number),
            "product": [f"tea {p}" for p in product],
            "code": product,
            "stars": rng.choice([1, 5], number),
            "time": np.arange(number),
        }
    )
    name = write(tmp_path, rows=rows.to_csv(index=False))
    profile = load_profile(
        str(Path(__file__).parents[2] / "tiny.yaml"),
        {"data": {"dataset": name, "options": None}, "plm": {"name": tiny_plm}},
    )
    result = steps.finetune(profile.run("alt_both", 0))
    assert result["train_rows"] == 320 and 0 <= result["auc"] <= 1
    assert result["data"]["name"] == "mine"
