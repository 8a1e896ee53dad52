"""Figures of the notebooks and the report; each takes data and returns a matplotlib figure."""

import base64
import re
from html import escape
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from altlib.config import VARIANTS

COLOURS = {"icl": "#0072b2", "mtm": "#d55e00", "mlm": "#009e73", "aligned": "#0072b2",
           "unaligned": "#999999", "user": "#cc79a7", "item": "#56b4e9"}  # fmt: skip
"""Colours that remain apart for the colour-blind (Okabe and Ito)."""

matplotlib.rcParams.update(
    {
        "svg.hashsalt": "altlib",  # the same figure gives the same file
        "figure.constrained_layout.use": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "font.size": 10,
        "text.parse_math": False,  # a "$" in words and names of the user is a "$"
    }
)


def save(figure: Figure, folder: Path, name: str, alt: str) -> HTML:
    """Writes and closes a figure, and returns it as a picture for a notebook.

    Args:
        folder: the report's; figures/<name>.svg and .png are written there.
        alt: what the figure shows, in words, for those who do not see it.
    """
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    svg, png = (folder / "figures" / f"{name}.{kind}" for kind in ("svg", "png"))
    figure.savefig(svg, metadata={"Date": None})
    # XML has no place for control characters, which words may hold.
    text = svg.read_text(encoding="utf-8")
    svg.write_text(re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", "�", text), encoding="utf-8")
    figure.savefig(png, dpi=150)
    plt.close(figure)
    data = base64.b64encode(png.read_bytes()).decode()
    style = f"width:{96 * figure.get_figwidth():.0f}px;max-width:100%;background:white"
    return HTML(
        f'<figure><img alt="{escape(alt)}" style="{style}" '
        f'src="data:image/png;base64,{data}"></figure>'
    )


def logarithmic(axes: Axes, which: str, steps: tuple[int, ...] = (1,)) -> None:
    """Makes "x", "y" or "xy" logarithmic, with plain numbers at these multiples of powers of 10:
    powers would be mathematics, which is off."""
    for letter in which:
        axes.set(**{f"{letter}scale": "log"})
        axis: Axis = getattr(axes, f"{letter}axis")
        axis.set_major_locator(LogLocator(subs=steps))
        axis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
        axis.set_minor_formatter(NullFormatter())


def study(table: pd.DataFrame) -> Figure:
    """Test AUC of each setting of a `tables.study_table`; whiskers are one standard deviation.

    A panel a variant, or a single one where each setting has a variant of its own or variants are
    compared with their controls.
    """
    settings = list(dict.fromkeys(table["setting"]))
    controlled = table["against"].isin(table["variant"]).any()
    single = controlled or len(table) == len(settings)
    panels = {"": table} if single else dict(list(table.groupby("variant", sort=False)))
    figure, axes = plt.subplots(
        1, len(panels), figsize=(1.8 + 2.6 * len(panels), 0.4 * len(settings) + 1.2), sharey=True,
        squeeze=False,
    )  # fmt: skip
    height = {setting: -index for index, setting in enumerate(settings)}
    for axis, (variant, panel) in zip(axes[0], panels.items(), strict=True):
        aligned = panel["pretraining rows"] > 0
        parts = panel.groupby(panel["variant"] if controlled else aligned, sort=False)
        for number, (name, lines) in enumerate(parts):
            place = lines["setting"].map(height) - (0.2 * number if controlled else 0)
            kind = "aligned" if aligned[lines.index].any() else "unaligned"
            axis.errorbar(lines["AUC"], place, xerr=np.nan_to_num(lines["AUC s.d."]), fmt="o",
                          color=COLOURS[kind], capsize=3, label=name)  # fmt: skip
        if controlled:
            axis.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
        else:
            axis.axvline(panel["AUC"].iloc[0], color="black", linewidth=0.8, linestyle=":")
        axis.set_yticks(list(height.values()), list(height))
        axis.set_ylim(0.4 - len(settings), 0.6)
        axis.margins(x=0.15)
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.set(title=variant)
    colours = "" if controlled else "; blue: pretrained here" if aligned.nunique() > 1 else ""
    figure.supxlabel(f"test AUC (whiskers: s.d. over seeds{colours})", fontsize=10)
    return figure


def finetuning_curves(found: pd.DataFrame) -> Figure:
    """AUC of `results.read` after each epoch on the split that early stopping watches, a line a
    run."""
    figure, axis = plt.subplots(figsize=(6.4, 3.2))
    named: set[str] = set()
    longest = 1
    for variant, result in zip(found["variant"], found["result"], strict=True):
        aucs = [epoch["evaluation"]["auc"] for epoch in result["history"]["epochs"]]
        aligned = VARIANTS[variant].aligned
        longest = max(longest, len(aucs))
        axis.plot(range(1, len(aucs) + 1), aucs, marker="o", markersize=3,
                  color=COLOURS["aligned" if aligned else "unaligned"],
                  linestyle="-" if aligned else "--",
                  label=None if variant in named else VARIANTS[variant].label)  # fmt: skip
        named.add(variant)
    if len(found):
        axis.legend(frameon=False)
    splits = " or ".join(sorted(set(found["selected_on"])))
    axis.set(xlabel="epoch", ylabel=f"{splits} AUC", xlim=(0.5, longest + 0.5))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure
