"""Raw files to ready-to-train ids and token table: time and peak memory."""

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from altlib.config import DataConfig, LabelRule, PlmConfig, TextConfig
from altlib.data.frame import coded, words
from altlib.data.schema import Field, Schema
from altlib.data.tabular import Prepared, prepare
from altlib.data.text import TokenTable
from altlib.lab import steps
from altlib.models import plm
from altlib.training.batches import Batches
from benchmarks.common import Figure, Memory, alone

PLM = "minilm-l6"
FIELDS = 15
VALUES = 20_000  # distinct values of a generated field
PART = 500_000


def movielens() -> tuple[float, float]:
    """Seconds and peak memory in GB from the raw MovieLens-1M to ids and token table."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["ALTLIB_HOME"] = home
        started, memory = time.perf_counter(), Memory()
        config = DataConfig("ml-1m")
        steps.prepare(config)
        steps.sentences(config, TextConfig(), PlmConfig(PLM))
        return time.perf_counter() - started, memory.peak()


def parts(rows: int, schema: Schema) -> Iterator[pd.DataFrame]:
    """Generated text, part by part."""
    rng = np.random.default_rng(0)
    vocabularies = [
        np.array([f"{name} number {i}" for i in range(VALUES)], object)
        for name in schema.field_names
    ]
    for first in range(0, rows, PART):
        number = min(PART, rows - first)
        yield pd.DataFrame(
            {
                name: vocabulary[(VALUES * rng.random(number) ** 3).astype(int)]
                for name, vocabulary in zip(schema.field_names, vocabularies, strict=True)
            }
            | {
                "rating": rng.integers(1, 6, number),
                "timestamp": np.arange(first, first + number),
            }
        )


def generated(rows: int) -> tuple[float, float]:
    """Seconds and peak memory in GB of a generated set, up to its first training batch.

    What it takes to make up the text is not counted.
    """
    schema = Schema(
        "generated",
        tuple(Field(f"f{i}", f"field {i}", "user" if i < 7 else "item") for i in range(FIELDS)),
        LabelRule(positive_from=4),
    )
    with tempfile.TemporaryDirectory() as folder:
        making = 0.0

        def made() -> Iterator[pd.DataFrame]:
            nonlocal making
            source = parts(rows, schema)
            while True:
                begun = time.perf_counter()
                part = next(source, None)
                making += time.perf_counter() - begun
                if part is None:
                    return
                yield part

        started, memory = time.perf_counter(), Memory()
        texts = (part.assign(**{n: words(part[n]) for n in schema.field_names}) for part in made())
        frame = coded(texts, schema.field_names, ["rating", "timestamp"])
        prepare(frame, schema).save(Path(folder))
        data = Prepared.load(Path(folder))
        table = TokenTable.build(data.values, schema, plm.load(PLM).tokenizer, TextConfig())
        batches = Batches(data, data.of("train"), 128, table)
        batches.load(batches.shuffled(0, 0)[0], torch.device("cpu"))
        return time.perf_counter() - started - making, memory.peak()


def measure() -> list[Figure]:
    seconds, memory = alone(movielens)
    name = "raw MovieLens-1M to ids and token table"
    figures = [
        Figure(f"{name}, time", seconds, "<=15", "s", seconds),
        Figure(f"{name}, peak memory", memory, "<=1.5", "GB", memory),
    ]
    small, large = 5_000_000, 20_000_000
    (first, little), (last, much) = alone(generated, small), alone(generated, large)
    name = "20 million rows of 15 fields"
    return [
        *figures,
        Figure(f"{name}, peak memory", much, "<=8", "GB", much),
        Figure(f"{name}, time", last, "", "s", last),
        Figure("time for 4 times the rows", last / first, "<=4", "s", last, first),
        Figure("memory for 4 times the rows", much / little, "<=4", "GB", much, little),
    ]


def main() -> None:
    for figure in measure():
        print(figure)


if __name__ == "__main__":
    main()
