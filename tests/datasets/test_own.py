from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from altlib import datasets, runs
from altlib.datasets import own
from altlib.schema import UNKNOWN, LabelRule

DESCRIPTION = """\
file: clicks.csv
fields:
  user: {words: user id, side: user}
  home_town: {side: user}
  product: {words: product name, side: item, twin: product}
  code: {side: item, twin: product}
rating: stars
label: {positive_from: 4, dropped: [3], scale: [1, 5]}
timestamp: time
"""
GAP = """\
file: c.parquet
fields: {user: {side: user}, product: {side: item}}
rating: stars
"""
ROWS = (
    "user,home_town,product,code,stars,time,note\n7,Köln,Big  Tea,001,5,30,x\n8,,Tea,002,2,10,y\n"
)


def write(folder: Path, description: str = DESCRIPTION, rows: str = ROWS) -> str:
    (folder / "mine.yaml").write_text(description)
    (folder / "clicks.csv").write_text(rows, encoding="utf-8")
    return str(folder / "mine.yaml")


def test_columns_become_fields(tmp_path: Path) -> None:
    data = datasets.load(write(tmp_path))
    assert data.frame.astype("object").to_numpy().tolist() == [
        ["7", "Köln", "Big Tea", "001", 5, 30],
        ["8", UNKNOWN, "Tea", "002", 2, 10],
    ]
    assert [field.words for field in data.schema.fields] == [
        "user id", "home town", "product name", "code",
    ]  # fmt: skip
    assert data.schema.twins() == [[0], [1], [2, 3], [2, 3]]
    assert data.schema.label == LabelRule(4, (3,), (1, 5))
    assert set(data.provenance["sha256"]) == {"mine.yaml", "clicks.csv"}
    assert data.provenance["warnings"] == []


def test_parquet_gives_the_same(tmp_path: Path) -> None:
    plain = datasets.load(write(tmp_path)).frame
    pd.read_csv(tmp_path / "clicks.csv", dtype={"code": "str"}).to_parquet(tmp_path / "c.parquet")
    name = write(tmp_path, DESCRIPTION.replace("clicks.csv", "c.parquet"))
    assert datasets.load(name).frame.equals(plain)
    gap = pd.DataFrame({"user": [7, None, 8], "product": ["Tea"] * 3, "stars": [1, 5, 5]})
    gap.to_parquet(tmp_path / "c.parquet")
    assert datasets.load(write(tmp_path, GAP)).frame["user"].tolist() == ["7", UNKNOWN, "8"]


def test_a_click_needs_no_label_rule_and_no_time(tmp_path: Path) -> None:
    lines = [line for line in DESCRIPTION.splitlines() if line[:5] not in ("label", "times")]
    data = datasets.load(write(tmp_path, "\n".join(lines), ROWS.replace(",5,", ",1,")))
    assert data.schema.label == LabelRule(1, scale=(0, 1))
    assert data.frame["timestamp"].tolist() == [0, 0]


def test_a_change_of_either_file_makes_another_key(tmp_path: Path) -> None:
    config = runs.DataConfig(write(tmp_path))
    keys = [runs.data_key(config)]
    for description, rows in (
        (DESCRIPTION, ROWS + "9,,Tea,002,2,10,z\n"),
        (f"{DESCRIPTION}#", ROWS),
    ):
        write(tmp_path, description, rows)
        keys.append(runs.data_key(config))
    assert len(set(keys)) == 3


def test_a_relative_path_is_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"There is no file mine\.yaml in .*elsewhere"):
        datasets.load("mine.yaml")
    monkeypatch.setattr(own, "PROJECT", tmp_path)
    assert len(datasets.load("mine.yaml").frame) == 2


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("rating: stars", "rating: star", "clicks.csv has no column 'star'; did you mean 'stars'"),
        ("{side: user}", "{side: shop}", r"mine.yaml: 'fields.home_town.side' is 'shop'"),
        ("rating: stars", "", "mine.yaml: the entry 'rating' is missing"),
        ("clicks.csv", "gone.csv", r"There is no file .*gone\.csv, of which mine\.yaml speaks"),
        ("timestamp: time", "timestamp: note", "clicks.csv, row 1, column 'note': found 'x'"),
        ("side: item", "side: user", "mine.yaml has no field of the side 'item'"),
        ("label:", "lable:", "there is no entry 'lable'; did you mean 'label'"),
    ],
)
def test_a_fault_is_named(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in DESCRIPTION
    with pytest.raises((ValueError, FileNotFoundError), match=told):
        datasets.load(write(tmp_path, DESCRIPTION.replace(old, new)))


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
    profile = runs.load_profile(
        str(Path(__file__).parents[1] / "tiny.yaml"),
        {"data": {"dataset": name, "options": None}, "plm": {"name": tiny_plm}},
    )
    result = runs.finetune(profile.run("alt_both", 0))
    assert result["train_rows"] == 320 and 0 <= result["auc"] <= 1
    assert result["data"]["name"] == "mine"
