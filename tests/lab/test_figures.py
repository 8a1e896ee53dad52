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
    table = pd.DataFrame(
        {"setting": [word, "b"], "variant": [word, "c"], "AUC": [0.6, 0.7], "AUC s.d.": [0.1, 0.1]}
    ).assign(against="", **{"pretraining rows": 0})
    figure = figures.study(table)
    assert drawn(figure).count(word) == 1  # beside its line; a panel serves all variants
    html = figures.save(figure, tmp_path, "study", f'"{word}"').data
    assert html.count("<") == 3 and html.count('"') == 6
    ElementTree.parse(tmp_path / "figures" / "study.svg")


def test_logarithmic_axes_have_plain_numbers() -> None:
    figure, axis = figures.plt.subplots()
    axis.plot([1, 100, 10_000], [0.1, 1, 10])
    figures.logarithmic(axis, "xy")
    texts = drawn(figure)
    assert {"1", "10,000", "0.1"} <= set(texts)
    assert not any("math" in text for text in texts)


def test_runs_are_lines_and_variants_stand_once_in_the_legend() -> None:
    def result(*aucs: float) -> dict[str, object]:
        return {"history": {"epochs": [{"evaluation": {"auc": auc}} for auc in aucs]}}

    found = pd.DataFrame(
        {
            "variant": ["raw", "raw", "alt_ctr"],
            "result": [result(0.6, 0.7), result(0.5), result(0.8)],
            "selected_on": "validation",
        }
    )
    figure = figures.finetuning_curves(found)
    assert [line.get_linestyle() for line in figure.axes[0].lines] == ["--", "--", "-"]
    texts = drawn(figure)
    assert (
        texts.count("ID-based model (raw)") == texts.count("ALT_ctr") == 1
        and "validation AUC" in texts
    )
    assert drawn(figures.finetuning_curves(found[:0]))
