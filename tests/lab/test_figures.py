"""Figures draw what they are given, letter by letter."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.text import Text

from altlib.lab import figures

ODD = ["$$.", "Ba$$in", "$5-$10", "$x^2$", r"\frac{1}", "_hidden", "<b>&</b>", "a%b{c}"]


def drawn(figure: figures.Figure) -> list[str]:
    """The texts that are to be seen in a figure; none of them is mathematics."""
    figure.canvas.draw()
    texts = [text for text in figure.findobj(Text) if text.get_visible()]
    assert not any(text.get_parse_math() for text in texts)
    figures.plt.close(figure)
    return [text.get_text() for text in texts]


@pytest.mark.parametrize("word", [*ODD, "a\x1bb\x00"])
def test_any_word_is_drawn_as_it_is(word: str, tmp_path: Path) -> None:
    panel = {
        "title": word,
        "rows": [word, "b"],
        "columns": [{"text": word, "group": word}, {"text": "x", "group": "b"}],
        "values": [[0.1, 0.2], [0.3, 0.4]],
        "uniform": [0.2, 0.2],
    }
    figure = figures.alignment_map(panel)
    assert drawn(figure).count(word) == 3
    html = figures.save(figure, tmp_path, "map", f'"{word}"').data
    assert html.count("<") == 3 and html.count('"') == 6
    ElementTree.parse(tmp_path / "figures" / "map.svg")


@pytest.mark.parametrize("setting", ODD)
def test_names_of_settings_and_fields_are_literal_in_legends_and_labels(setting: str) -> None:
    curves = pd.DataFrame(
        {"field": ["$f$"], "setting": setting, "rows": [9], "recovered": 0.5, "with other IDs": 0.2}
    )
    assert {"$f$", setting} <= set(drawn(figures.recovery_curves(curves)))
    costs = pd.DataFrame({"setting": [setting], "variant": "PLM", "AUC": 0.6, "AUC s.d.": 0.1})
    costs[["parameters", "GFLOP a row", "pretraining seconds"]] = [4.4, 0.3, 2000.0]
    texts = drawn(figures.plm_scaling(costs))
    assert texts.count(setting) == 3 and {"5", "2,000"} <= set(texts)
    mean = pd.DataFrame([[0.5]], [setting], [setting])
    line = {"checkpoint": setting, "sentences": "own", "own words": 0.5, "low": 0.4, "high": 0.6}
    own = pd.DataFrame([line | {"uniform": 0.3}])
    assert drawn(figures.field_attention(mean, own)).count(setting) == 3
    lengths = pd.Series([3.0, 4.0], [setting, setting])
    assert drawn(figures.sentence_lengths(lengths.to_numpy(), lengths, 5)).count(setting) == 2


def test_logarithmic_axes_have_plain_numbers() -> None:
    times = {"variant": "raw", "engine": "ONNX", "threads": 1, "batch": [1, 100, 10_000]}
    table = pd.DataFrame({**times, "p99_ms": [0.1, 1, 10], "rows_per_s": [1e4, 1e5, 1e6]})
    costs = pd.DataFrame({"variant": ["raw"], "model": ["model.onnx"], "test AUC": [0.7]})
    texts = drawn(figures.serving(table, costs))
    assert {"1", "10,000", "1,000,000"} <= set(texts)
    assert not any("math" in text for text in texts)
