"""`python -m altlib.serving`: exports a finetuned run, and scores rows with what was exported.

python -m altlib.serving export RUN OUT    # RUN: PROFILE/VARIANT/SEED, or a run's folder
python -m altlib.serving predict OUT rows.csv
"""

import argparse
import sys
from pathlib import Path

from altlib.data.sources import own
from altlib.serving.export import export
from altlib.serving.predictor import Predictor


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m altlib.serving",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    exporting = commands.add_parser("export", help="write a finetuned run as a folder with ONNX")
    exporting.add_argument("run", help="PROFILE/VARIANT/SEED, as quick/alt_ctr/0, or a folder")
    exporting.add_argument("out", help="the folder to make")
    exporting.add_argument("--int8", action="store_true", help="add a model of 8-bit numbers")
    predicting = commands.add_parser("predict", help="print rows with their probabilities, as CSV")
    predicting.add_argument("out", help="a folder that export made")
    predicting.add_argument("rows", help="a CSV or Parquet file with a column for each field")
    words = parser.parse_args()
    try:
        if words.command == "export":
            print(export(words.run, words.out, words.int8))
        else:
            rows = own.table(Path(words.rows))
            if "probability" in rows:
                raise ValueError(f"{words.rows} has a column 'probability' already; rename it.")
            rows["probability"] = Predictor(words.out, threads=2).predict(rows)
            rows.to_csv(sys.stdout, index=False)
    except (ValueError, OSError) as error:
        sys.exit(f"altlib: {error}")


if __name__ == "__main__":
    main()
