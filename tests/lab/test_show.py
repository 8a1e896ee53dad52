"""Tables as people see them."""

import re
from html import unescape
from pathlib import Path

import mistune
import numpy as np
import pandas as pd
import pytest

from altlib.lab import show, stamps
from altlib.profile import load_profile
from altlib.store import home, write_json


def test_numbers_are_shown_as_people_read_them() -> None:
    frame = pd.DataFrame(
        {"AUC": [0.81234, np.nan], "p": [0.0001, 0.25], "low": [0.1, -0.1], "rows": [1234, 5]}
    ).assign(p50_ms=[0.10912, 7315.6], p99_ms=[0.0, np.inf])
    shown = show.shown(frame).to_dict("list")
    assert shown == {
        "AUC": ["0.8123", "–"],
        "p": ["< 0.001", "0.250"],
        "low": ["+0.1000", "-0.1000"],
        "rows": ["1,234", "5"],
        "p50_ms": ["0.109", "7,316"],
        "p99_ms": ["0.00", "∞"],
    }


def test_a_table_of_another_configuration_is_not_read(tmp_path: Path) -> None:
    tiny = str(Path(__file__).parents[1] / "tiny.yaml")
    config = load_profile(tiny)
    frame = pd.DataFrame({"own words": [0.5]})
    show.write(frame, stamps.report_folder(config), "own_words")
    assert not len(show.read(config, "12_alignment", "own_words"))
    stamps.stamp("12_alignment", config)
    assert show.read(config, "12_alignment", "own_words").equals(frame)
    changed = load_profile(tiny, {"pretraining": {"seed": 7}})
    assert not len(show.read(changed, "12_alignment", "own_words"))
    assert stamps.failed_notebooks(config) == []
    stamp = home() / "artifacts" / "stamps" / config.name / "12_alignment.json"
    write_json(stamp, {"notebook": "12_alignment", "failed": "It broke."})
    assert not len(show.read(config, "12_alignment", "own_words"))
    assert stamps.failed_notebooks(config) == ["notebook 12_alignment (It broke)"]


def test_a_damaged_table_or_stamp_is_named_and_left_out() -> None:
    config = load_profile(str(Path(__file__).parents[1] / "tiny.yaml"))
    show.write(pd.DataFrame({"a": [1]}), stamps.report_folder(config), "own_words")
    stamps.stamp("12_alignment", config)
    (stamps.report_folder(config) / "tables" / "own_words.csv").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"own_words\.csv is damaged .* run the notebook 12_align"):
        assert not len(show.read(config, "12_alignment", "own_words"))
    stamp = home() / "artifacts" / "stamps" / config.name / "12_alignment.json"
    stamp.write_bytes(stamp.read_bytes()[:20])
    assert not len(show.read(config, "12_alignment", "own_words"))
    (failed,) = stamps.failed_notebooks(config)
    assert failed == "notebook 12_alignment (12_alignment.json is damaged; run it again)"


def test_words_and_names_are_literal_in_markdown(tmp_path: Path) -> None:
    odd = ["x|y", "two\nlines", "<script>", "&lt; <b> R&D", r"\|", "`c`", "[a](b)", "~~s~~",
           "$1-$2", "*i*", "_i_", "__b__", "snake_case", "< 0.001", "trailing\\"]  # fmt: skip
    frame = pd.DataFrame({name: odd for name in ["plain", "a|b", "<i>", "$x$"]})
    show.write(frame, tmp_path, "odd")
    text = (tmp_path / "tables" / "odd.md").read_text(encoding="utf-8")
    assert "snake_case" in text and "< 0.001" in text  # no more signs than needed
    page = mistune.create_markdown(escape=False, plugins=["table", "strikethrough", "math"])(text)
    cells = [unescape(cell).strip() for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", page)]
    assert cells == [*frame, *(" ".join(word.split()) for word in odd for _ in frame)]
    assert set(re.findall(r"</?(\w+)", page)) == {"table", "thead", "tbody", "tr", "th", "td"}
    assert "$x$" in frame._repr_html_() and "tex2jax_ignore" in frame._repr_html_()


@pytest.mark.parametrize("word", ["None", "NA", "null", "nan", "007", "0.10", "true"])
def test_a_name_like_a_gap_is_read_as_it_was_written(word: str) -> None:
    config = load_profile(str(Path(__file__).parents[1] / "tiny.yaml"))
    frame = pd.DataFrame({"checkpoint": [word], "own words": [np.nan]})
    show.write(frame, stamps.report_folder(config), "own_words")
    stamps.stamp("12_alignment", config)
    assert show.read(config, "12_alignment", "own_words").equals(frame)
