"""Figures of the notebooks and the report; each takes data and returns a matplotlib figure."""

import base64
import re
from collections.abc import Mapping
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from altlib.config import VARIANTS
from altlib.data.tabular import Prepared

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
    """Writes figures/<name>.svg and .png, and returns the picture for a notebook.

    Args:
        figure: it is closed.
        folder: the report's.
        name: of the files.
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
    return HTML(
        f'<figure><img alt="{escape(alt)}" style="max-width:100%;background:white" '
        f'src="data:image/png;base64,{data}"></figure>'
    )


def logarithmic(axes: Axes, which: str, steps: tuple[int, ...] = (1,)) -> None:
    """Makes axes logarithmic, with plain numbers: powers would be mathematics, which is off.

    Args:
        axes: of a panel.
        which: "x", "y" or "xy".
        steps: the multiples of powers of 10 that have a number.
    """
    for letter in which:
        axes.set(**{f"{letter}scale": "log"})
        axis: Axis = getattr(axes, f"{letter}axis")
        axis.set_major_locator(LogLocator(subs=steps))
        axis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
        axis.set_minor_formatter(NullFormatter())


def data_overview(data: Prepared) -> Figure:
    """How often each field's features occur in training, by rank, and the test split's make-up."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    starts = data.vocabulary.starts
    colours = sns.color_palette("colorblind", len(data.schema.fields))
    for f in range(len(data.schema.fields)):
        counts = np.sort(data.counts[starts[f] + 2 : starts[f + 1]])[::-1]
        left.plot(np.arange(1, len(counts) + 1), counts, color=colours[f])
    logarithmic(left, "xy")
    left.set(xlabel="rank of the feature", ylabel="training rows",
             title="Few features have many rows")  # fmt: skip
    # Labels of lines would be left out where they begin with "_".
    words = [field.words for field in data.schema.fields]
    left.legend(left.lines, words, fontsize=8, frameon=False)
    shares = data.provenance["cold test rows"]
    labels = ["positive", "cold user", "cold item"]
    test = data.of("test")
    heights = [float(data.labels[test].mean()), shares["user"], shares["item"]]
    bars = right.bar(labels, heights, color=[COLOURS["aligned"], COLOURS["user"], COLOURS["item"]])
    right.bar_label(bars, [f"{h:.1%}" for h in heights])
    right.set(ylim=(0, 1.08), ylabel="share of test rows", title="The test split")
    return figure


def sentence_lengths(lengths: np.ndarray, tokens: pd.Series, limit: int) -> Figure:
    """Lengths of the sentences, and how many tokens the value of each field takes.

    Args:
        lengths: tokens of each sentence [N].
        tokens: mean tokens of a value, by the field's words.
        limit: longest sentence allowed.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4))
    left.hist(lengths, bins=np.arange(lengths.min(), lengths.max() + 2) - 0.5, color="#56b4e9")
    left.axvline(limit, color="black", linestyle="--")
    left.annotate(f" limit {limit}", (limit, left.get_ylim()[1] * 0.9), ha="right")
    left.set(xlabel="tokens of the sentence", ylabel="rows", title="Far below the limit"
             if lengths.max() < limit else "Some sentences are cut")  # fmt: skip
    place = np.arange(len(tokens))[::-1]
    right.barh(place, tokens.to_numpy(), color="#56b4e9")
    right.set_yticks(place, tokens.index)
    right.set(xlabel="mean tokens of a value", title="What a masked field hides")
    return figure


def pretraining_curves(history: dict[str, Any]) -> Figure:
    """Each loss over the rows seen: training as a line, validation as points."""
    curve = pd.DataFrame(history["curve"])
    names = [name for name in ("icl", "mtm", "mlm") if name in curve]
    figure, axes = plt.subplots(1, len(names), figsize=(3.4 * len(names), 3.2), squeeze=False)
    seen = np.cumsum([epoch["rows"] for epoch in history["epochs"]])
    for axis, name in zip(axes[0], names, strict=True):
        axis.plot(curve["rows"] / 1000, curve[name], color=COLOURS[name], label="training")
        losses = [epoch["evaluation"]["loss"][name] for epoch in history["epochs"]]
        axis.plot(seen / 1000, losses, "o", color="black", label="validation")
        axis.set(title=name.upper(), xlabel="thousand rows seen", ylabel="loss")
        axis.set_ylim(bottom=0)
    axes[0, 0].legend(frameon=False)
    return figure


def recovery(table: pd.DataFrame) -> Figure:
    """Share of masked IDs and words that come back, by field, beside the most frequent feature.

    Args:
        table: from `tables.recovery`.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), sharey=True)
    place = np.arange(len(table))[::-1]
    left.barh(place, table["MTM accuracy"], color=COLOURS["mtm"], height=0.6)
    left.plot(table["most frequent"], place, "k|", markersize=14, label="always the most frequent")
    left.set_yticks(place, table["field"])
    left.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, -0.14), fontsize=8)
    left.set(xlim=(0, 1), xlabel="recovered share", title="MTM: IDs recovered")
    right.barh(place, table["MLM accuracy"], color=COLOURS["mlm"], height=0.6)
    right.set(xlim=(0, 1), xlabel="recovered share", title="MLM: words recovered")
    return figure


def recovery_curves(table: pd.DataFrame, measure: str = "recovered") -> Figure:
    """Recovery of masked words over training, a panel a field and a line a setting.

    Dashed lines are the recovered share with the IDs of another row.

    Args:
        table: from `tables.recovery_curves`.
        measure: "recovered" or "loss".
    """
    fields = list(dict.fromkeys(table["field"]))
    settings = list(dict.fromkeys(table["setting"]))
    columns = min(4, len(fields))
    rows = -(-len(fields) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.9 * columns, 2.3 * rows + 0.5), sharex=True, squeeze=False
    )
    colours = dict(zip(settings, sns.color_palette("colorblind", len(settings)), strict=True))
    for axis in axes.flat[len(fields) :]:
        axis.set_axis_off()
    for axis, name in zip(axes.flat, fields, strict=False):
        for setting, lines in table[table["field"] == name].groupby("setting", sort=False):
            seen = lines["rows"] / 1000
            axis.plot(seen, lines[measure], color=colours[setting])
            if measure == "recovered":
                axis.plot(seen, lines["with other IDs"], color=colours[setting], linestyle="--")
        axis.set(title=name)
        axis.set_ylim(bottom=0, top=1.02 if measure == "recovered" else None)
    figure.supxlabel("thousand rows seen")
    figure.supylabel({"recovered": "recovered share", "loss": "loss of a token in nats"}[measure])
    handles = [Line2D([], [], color=colour) for colour in colours.values()]
    figure.legend(handles, settings, loc="outside upper center", ncols=3, frameon=False)
    return figure


def main_results(table: pd.DataFrame, metric: str = "AUC") -> Figure:
    """A metric of each variant over its seeds; whiskers are one standard deviation.

    Args:
        table: from `tables.main_table`.
        metric: "AUC" or "Logloss".
    """
    figure, axis = plt.subplots(figsize=(6.4, 0.45 * len(table) + 1.2))
    place = np.arange(len(table))[::-1]
    for p, (_, line) in zip(place, table.iterrows(), strict=True):
        colour = COLOURS["aligned" if line["variant"].startswith("ALT") else "unaligned"]
        axis.errorbar(line[metric], p, xerr=np.nan_to_num(line[f"{metric} s.d."]), fmt="o",
                      color=colour, capsize=3)  # fmt: skip
        axis.annotate(f"{line[metric]:.4f}", (line[metric], p), xytext=(0, 7),
                      textcoords="offset points", ha="center", fontsize=8)  # fmt: skip
    raw = table.loc[table["variant"].str.contains("raw"), metric]
    if len(raw):
        axis.axvline(raw.iloc[0], color="black", linewidth=0.8, linestyle=":")
    seeds = [f"{v} (n = {n})" for v, n in zip(table["variant"], table["seeds"], strict=True)]
    axis.set_yticks(place, seeds)
    axis.set_ylim(-0.6, len(table) - 0.2)
    axis.margins(x=0.15)
    better = {"AUC": "higher is better", "Logloss": "lower is better"}[metric]
    axis.set(xlabel=f"{metric} on the test split ({better})")
    return figure


def differences(table: pd.DataFrame) -> Figure:
    """AUC of each variant less that of raw, with 95 % paired bootstrap intervals.

    Args:
        table: from `tables.main_table`.
    """
    lines = table[table["AUC − raw"].notna()]
    figure, axis = plt.subplots(figsize=(6.4, 0.45 * len(lines) + 1.2))
    place = np.arange(len(lines))[::-1]
    middle = lines["AUC − raw"].to_numpy()
    spread = np.stack([middle - lines["low"].to_numpy(), lines["high"].to_numpy() - middle])
    colours = [
        COLOURS["aligned" if variant.startswith("ALT") else "unaligned"]
        for variant in lines["variant"]
    ]
    for p, m, s, colour in zip(place, middle, spread.T, colours, strict=True):
        axis.errorbar(m, p, xerr=s[:, None], fmt="o", color=colour, capsize=3)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(place, lines["variant"])
    axis.set_ylim(-0.6, len(lines) - 0.4)
    axis.set(xlabel="AUC less that of the raw ID-based model")
    return figure


def study(table: pd.DataFrame) -> Figure:
    """Test AUC of each setting; whiskers are one standard deviation.

    A panel a variant, or a single one where each setting has a variant of its own or variants are
    compared with their controls.

    Args:
        table: from `tables.study_table`.
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
        axis.set(title=variant, xlabel="test AUC")
    return figure


def plm_scaling(table: pd.DataFrame) -> Figure:
    """Test AUC against parameters, arithmetic and time of the PLM of each setting.

    Args:
        table: from `tables.plm_scaling`.
    """
    costs = {
        "parameters": "parameters of the PLM in millions",
        "GFLOP a row": "GFLOP a row of pretraining",
        "pretraining seconds": "seconds of pretraining",
    }
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), sharey=True)
    for axis, (name, label) in zip(axes, costs.items(), strict=True):
        for variant, lines in table.groupby("variant", sort=False):
            axis.errorbar(lines[name], lines["AUC"], yerr=np.nan_to_num(lines["AUC s.d."]), fmt="o",
                          capsize=3, label=variant)  # fmt: skip
            for _, line in lines.iterrows():
                axis.annotate(line["setting"], (line[name], line["AUC"]), xytext=(4, 4),
                              textcoords="offset points", fontsize=8)  # fmt: skip
        logarithmic(axis, "x", steps=(1, 2, 5))
        axis.set(xlabel=label)
        axis.margins(x=0.3)
    axes[0].set(ylabel="test AUC")
    axes[0].legend(frameon=False)
    return figure


def alignment_map(panel: Mapping[str, Any]) -> Figure:
    """Attention of each masked field (row) on the words of a sentence, grouped by their fields.

    Args:
        panel: from `explorer.panel`.
    """
    values = np.array(panel["values"])
    words = [column["text"] for column in panel["columns"]]
    groups = [column["group"] for column in panel["columns"]]
    figure, axis = plt.subplots(figsize=(0.26 * len(words) + 2.6, 0.34 * len(values) + 1.7))
    image = axis.imshow(values, cmap="cividis", vmin=0, aspect="auto")
    axis.set_xticks(range(len(words)), words, rotation=90, fontsize=8)
    axis.set_yticks(range(len(values)), panel["rows"])
    for place, (before, after) in enumerate(pairwise(groups)):
        if before != after:
            axis.axvline(place + 0.5, color="white", linewidth=1.2)
    for row, name in enumerate(panel["rows"]):
        own = [place for place, group in enumerate(groups) if group == name]
        if own:
            axis.add_patch(Rectangle((own[0] - 0.5, row - 0.5), len(own), 1, fill=False,
                                     edgecolor="#e69f00", linewidth=1.6))  # fmt: skip
    axis.set(ylabel="masked field", title=panel["title"])
    axis.spines[:].set_visible(False)
    level = np.mean(panel["uniform"])
    figure.colorbar(image, label=f"attention (uniform: {level:.3f} a word)", pad=0.01)
    return figure


def field_attention(mean: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """Mean attention of masked fields on the words of fields, and that on their own words.

    Args:
        mean, table: from `explorer.own_words`.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), width_ratios=[1.3, 1])
    sns.heatmap(mean, cmap="cividis", vmin=0, annot=100 * mean, fmt=".0f", ax=left, square=True,
                annot_kws={"fontsize": 8}, cbar_kws={"label": "mean attention"})  # fmt: skip
    left.set(xlabel="words of", ylabel="masked field", title="Mean attention in %")
    place = np.arange(len(table))[::-1]
    aside = table["sentences"].map({"own": "", "of other rows": ",\nsentences of other rows"})
    spread = [table["own words"] - table["low"], table["high"] - table["own words"]]
    right.errorbar(table["own words"], place, xerr=spread, fmt="o", capsize=3,
                   color=COLOURS["aligned"])  # fmt: skip
    right.axvline(table["uniform"].iloc[0], color="black", linewidth=0.8, linestyle=":")
    right.set_yticks(place, table["checkpoint"] + aside)
    right.set_ylim(-0.6, len(table) - 0.4)
    right.set_xlim(left=0)
    right.set(xlabel="attention on a field's own words (dotted: uniform)", title="Own words")
    return figure


def serving(table: pd.DataFrame, costs: pd.DataFrame) -> Figure:
    """Test AUC against p99 latency of 100 candidates, and rows a second against the batch.

    Args:
        table: from `serving.measure`.
        costs: from `serving.costs`.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    one = table[table["threads"] == table["threads"].min()]
    engines = {"PyTorch": "s", "ONNX": "o", "ONNX int8": "^"}
    aucs = costs.set_index(["variant", "model"])["test AUC"]
    variants = list(dict.fromkeys(costs["variant"]))
    colours = dict(zip(variants, sns.color_palette("colorblind", len(variants)), strict=True))
    for variant in variants:
        lines = one[one["variant"] == variant]
        for engine, marker in engines.items():
            of = lines[lines["engine"] == engine]
            if not len(of):
                continue
            model = "model-int8.onnx" if engine == "ONNX int8" else "model.onnx"
            left.plot(of.loc[of["batch"] == 100, "p99_ms"], [aucs[variant, model]], marker,
                      color=colours[variant],
                      fillstyle="none" if engine == "PyTorch" else "full")  # fmt: skip
            right.plot(of["batch"], of["rows_per_s"], marker=marker, color=colours[variant],
                       linestyle={"ONNX": "-"}.get(engine, ":"), markersize=4)  # fmt: skip
    left.axvline(10, color="black", linewidth=0.8, linestyle=":")
    logarithmic(left, "x", steps=(1, 2, 5))
    left.set(xlabel="p99 of 100 candidates in ms, one thread (dotted: 10 ms)",
             ylabel="test AUC", title="What AUC costs")  # fmt: skip
    left.margins(x=0.25, y=0.15)
    logarithmic(right, "xy")
    right.set(xlabel="rows of a batch", ylabel="rows a second", title="Throughput, one thread")
    handles = [Line2D([], [], color=colour, marker="o", label=variant, linestyle="")
               for variant, colour in colours.items()]  # fmt: skip
    handles += [Line2D([], [], color="black", marker=marker, label=engine, linestyle="",
                       fillstyle="none" if engine == "PyTorch" else "full")
                for engine, marker in engines.items()]  # fmt: skip
    figure.legend(handles=handles, loc="outside right center", frameon=False)
    return figure


def finetuning_curves(found: pd.DataFrame) -> Figure:
    """AUC after each epoch on the split that early stopping watches, one line a run.

    Args:
        found: from `results.read`.
    """
    figure, axis = plt.subplots(figsize=(6.4, 3.2))
    named: set[str] = set()
    for variant, result in zip(found["variant"], found["result"], strict=True):
        aucs = [epoch["evaluation"]["auc"] for epoch in result["history"]["epochs"]]
        aligned = VARIANTS[variant].aligned
        axis.plot(range(1, len(aucs) + 1), aucs, marker="o", markersize=3,
                  color=COLOURS["aligned" if aligned else "unaligned"],
                  linestyle="-" if aligned else "--",
                  label=None if variant in named else variant)  # fmt: skip
        named.add(variant)
    if len(found):
        axis.legend(frameon=False)
    splits = " or ".join(sorted(set(found["selected_on"])))
    axis.set(xlabel="epoch", ylabel=f"{splits} AUC")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
