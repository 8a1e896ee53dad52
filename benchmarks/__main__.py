"""`python -m benchmarks [NAME ...]`: measures, and writes reports/benchmarks."""

import argparse
import importlib

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from altlib.lab import figures, show
from altlib.store import home

MODULES = ("pretraining", "id_models", "prepare", "language")


def bars(table: pd.DataFrame) -> Figure:
    """How many times faster than the peer each benchmark is, on a log axis with a line at 1."""
    lines = table[table["unit"] == "rows/s"].iloc[::-1]
    figure, axis = plt.subplots(figsize=(8, 0.4 * len(lines) + 1.2))
    drawn = axis.barh(
        lines["benchmark"], lines["value"] - 1, left=1, color=figures.COLOURS["aligned"]
    )
    axis.bar_label(drawn, [f" {value:.1f}×" for value in lines["value"]])
    axis.axvline(1, color="black", linewidth=0.8)
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter("{x:g}×")
    axis.margins(x=0.15)
    axis.set(xlabel="times the peer's rows a second")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", default=MODULES, help="which ones; all by default")
    folder = home() / "reports" / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    whole = folder / "benchmarks.csv"
    old = pd.read_csv(whole) if whole.exists() else pd.DataFrame(columns=["module"])
    for name in parser.parse_args().names:
        kept, new = old[old["module"] != name], []
        for measured in importlib.import_module(f"benchmarks.{name}").measure():
            print(measured, flush=True)
            new.append({**measured.row(), "module": name})
            old = pd.concat([kept, pd.DataFrame(new)], ignore_index=True)
            old.to_csv(whole, index=False)
    show.write(old.drop(columns="module"), folder, "benchmarks")
    figures.save(
        bars(old), folder, "benchmarks", "Speed as a multiple of the peer's; a line marks 1."
    )


if __name__ == "__main__":
    main()
