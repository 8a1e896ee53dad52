"""Click probabilities from an exported folder: raw field values in, no torch.

`altlib.serving.export` writes such a folder. It holds model.onnx, export.json, done.json (see
`store`) and, if the model reads sentences, tokenizer.json. Nothing here imports PyTorch, so a
server starts in a second.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from altlib import store
from altlib.data.spelling import spelled, word

MANY = 20
"""Values of a field in a batch, none of them known, from which on it is told of."""

POSITIONS = 8192
"""Ids or tokens of one call of ONNX Runtime: the intermediate results of more leave the processor's
caches, and those of a PLM would fill the memory. Larger batches are scored part by part."""


class Predictor:
    """An exported model, ready to score rows.

    Args:
        folder: from `serving.export`.
        threads: of ONNX Runtime, for one row or batch.
        model: the file of the folder that is run; "model-int8.onnx" where there is one.

    Attributes:
        export: the content of export.json.
        fields: names of the fields that a row must have.

    Raises:
        FileNotFoundError: the folder is not an export, or does not hold the model.
        ValueError: a file was altered since the export.
    """

    _typed: Sequence[str] = ()
    """Names of the fields of numbers, of truth values or of dates; see `schema.Field`."""
    _spellings: Mapping[str, Mapping[str, str]] = {}
    """How the vocabulary of a field writes a number: "4.0", perhaps, for 4."""

    def __init__(self, folder: str | Path, threads: int = 1, model: str = "model.onnx") -> None:
        folder = Path(folder)
        if not (folder / "export.json").is_file():
            raise FileNotFoundError(
                f"{folder} is not an export: it has no export.json. Make one by "
                "'python -m altlib.serving export RUN OUT'."
            )
        if why := store.fault(folder, "export.json", model, "tokenizer.json"):
            raise ValueError(f"The export {folder} is damaged ({why}); export the run again.")
        models = sorted(file.name for file in folder.glob("*.onnx"))
        if model not in models:
            raise FileNotFoundError(f"{folder} holds no '{model}'; it has {', '.join(models)}.")
        self.export: dict[str, Any] = store.read_json(folder / "export.json")
        self.sentences: Sentences | None = None
        """What makes sentences of words, where the model reads them."""
        if self.export["text"] is not None:
            self.sentences = Sentences(folder / "tokenizer.json", self.export["text"])
        self.fields: list[str] = self.export["fields"]
        starts = np.cumsum([0] + [2 + len(values) for values in self.export["values"]])
        # Of each field the mask id comes first, then the unknown id, then the values.
        self._unknown = [int(start) + 1 for start in starts[:-1]]
        self._features = [
            {value: int(start) + 2 + index for index, value in enumerate(values)}
            for start, values in zip(starts[:-1], self.export["values"], strict=True)
        ]
        self._typed = self.export.get("typed", [])
        self._spellings = {
            name: {spelled(value): value for value in values}
            | dict(zip(values, values, strict=True))
            for name, values in zip(self.fields, self.export["values"], strict=True)
        }
        self._end = int(starts[-1])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            folder / model, options, providers=["CPUExecutionProvider"]
        )
        self._reads_ids = "ids" in {given.name for given in self._session.get_inputs()}

    def predict(self, rows: Any) -> np.ndarray:
        """Click probabilities [B] of rows of raw field values.

        Args:
            rows: mappings with a value for each of `fields`, or a frame of pandas, polars or Arrow
                with these columns. A value is what `spelling.word` takes; None, or a gap of the
                frame, is one that is not known. Other entries of a row are not read.

        Raises:
            ValueError: there is no row, a row lacks a field, or a value is of another type.
        """
        values = self.words(rows)
        text = self.sentences.assemble(values) if self.sentences else None
        ids = self.ids(values)
        if self._reads_ids and len(ids) >= MANY and (odd := self._odd(values, ids)):
            warnings.warn(
                f"No value of {odd} in {len(ids)} rows was seen in training: are they spelt as "
                "there?",
                stacklevel=2,
            )
        return self.score(ids, text)

    def _odd(self, values: Sequence[Sequence[str]], ids: np.ndarray) -> list[str]:
        """The fields of which no value is known in a batch with `MANY` different ones."""
        unknown: list[int] = np.flatnonzero((ids == self._unknown).all(0)).tolist()
        return [
            self.fields[f]
            for f in unknown
            if self._features[f] and len({row[f] for row in values}) >= MANY
        ]

    def words(self, rows: Any) -> list[tuple[str, ...]]:
        """The values of rows as words, in the order of `fields`, checked."""
        if hasattr(rows, "columns"):
            rows = mappings(rows, self.fields)
        elif isinstance(rows, (str, Mapping)) or not isinstance(rows, Iterable):
            raise ValueError("Rows are a list of mappings; a single row is a list of one.")
        found = []
        for number, row in enumerate(rows, start=1):
            if not isinstance(row, Mapping):
                raise ValueError(f"Row {number} is a {type(row).__name__}, not a mapping.")
            if missing := [name for name in self.fields if name not in row]:
                raise ValueError(
                    f"Row {number} has no field {missing}; a row needs each of {self.fields}."
                )
            # The garbage collector does not track tuples of words. Lists make it go through the
            # whole process every few ten thousand rows: 200 ms beside PyTorch, while a call waits.
            found.append(tuple([self._word(row[name], name, number) for name in self.fields]))
        if not found:
            raise ValueError("There is no row to predict.")
        return found

    def _word(self, value: Any, field: str, number: int) -> str:
        """The word of a raw value, as training has it."""
        try:
            found = word(value, field in self._typed)
        except ValueError as error:
            raise ValueError(f"Row {number}, field '{field}': {error}.") from None
        return found if isinstance(value, str) else self._spellings.get(field, {}).get(found, found)

    def ids(self, values: Sequence[Sequence[str]]) -> np.ndarray:
        """Feature ids [B, F] of words; one that training did not know gets the unknown id."""
        fields = (self._features, self._unknown)
        found = (
            known.get(word, unknown)
            for row in values
            for word, known, unknown in zip(row, *fields, strict=True)
        )
        return np.fromiter(found, np.int64).reshape(len(values), len(self.fields))

    def score(
        self, ids: np.ndarray | None, text: tuple[np.ndarray, np.ndarray] | None = None
    ) -> np.ndarray:
        """Click probabilities [B] of what the model reads: feature ids, sentences, or both.

        Args:
            ids: int64 [B, F], as from `ids`.
            text: tokens and attention [B, L], int64, as from `Sentences.assemble`.

        Raises:
            ValueError: ids or sentences are missing or not of these shapes, or an id is out of
                range.
        """
        given: dict[str, np.ndarray] = {}
        if self._reads_ids:
            if ids is None:
                raise ValueError("This model reads ids, and none were given.")
            if ids.dtype != np.int64 or ids.ndim != 2 or ids.shape[1] != len(self.fields):
                raise ValueError(
                    f"ids are {ids.dtype} {list(ids.shape)}; int64 [B, {len(self.fields)}] is read."
                )
            if not len(ids) or ids.min() < 0 or ids.max() >= self._end:
                raise ValueError(
                    f"ids must be at least one row of numbers from 0 to {self._end - 1}."
                )
            given["ids"] = ids
        if self.sentences:
            if text is None:
                raise ValueError("This model reads sentences, and none were given.")
            tokens, attention = text
            batch = len(given.get("ids", tokens))
            if tokens.dtype != np.int64 or attention.dtype != np.int64 or tokens.min(initial=0) < 0:
                raise ValueError("tokens and attention must be int64, and none below 0.")
            if tokens.ndim != 2 or attention.shape != tokens.shape or not len(tokens) == batch > 0:
                raise ValueError(
                    f"tokens are {list(tokens.shape)} and attention {list(attention.shape)} beside "
                    f"{batch} rows; both must be [B, L], with at least one row and as many as ids."
                )
            given |= {"tokens": tokens, "attention": attention}
        batch, width = max((array.shape for array in given.values()), key=lambda shape: shape[1])
        rows = max(1, POSITIONS // width)
        parts = [
            {name: array[start : start + rows] for name, array in given.items()}
            for start in range(0, batch, rows)
        ]
        return np.concatenate([self._session.run(["probability"], part)[0] for part in parts])


def mappings(frame: Any, fields: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of a pandas, polars or Arrow frame, each value of its column's own type."""
    names = list(getattr(frame, "column_names", frame.columns))
    if missing := [name for name in fields if name not in names]:
        raise ValueError(f"The frame has no column {missing}; it needs {fields}.")
    columns = []
    for name in fields:
        if names.count(name) > 1:
            raise ValueError(f"The frame has more than one column '{name}'; rename one.")
        column: Any = frame[name] if hasattr(frame, "__len__") else None  # one that is not lazy
        if hasattr(column, "array"):  # pandas
            columns.append(list(column.array))
            continue
        array = np.asarray(column)
        if array.dtype in (np.float16, np.float32):  # lists would hold them in a wider type
            columns.append(list(array))
        elif hasattr(column, "to_pylist"):  # Arrow
            try:
                columns.append(column.to_pylist())
            except (OverflowError, ValueError) as error:  # times that Python has no type for
                raise ValueError(
                    f"The column '{name}' ({column.type}) holds a value that cannot be read: "
                    f"{error}."
                ) from None
        elif hasattr(column, "to_list"):  # polars
            columns.append(column.to_list())
        else:
            raise ValueError(
                f"Rows are a list of mappings or a pandas, polars or Arrow frame, not of the type "
                f"{type(frame).__name__}."
            )
    return [dict(zip(fields, values, strict=True)) for values in zip(*columns, strict=True)]


class Sentences:
    """Sentences of rows, piece by piece as in training; pieces seen before are not cut again.

    Made of tokenizer.json and the entry "text" of export.json.
    """

    def __init__(self, file: Path, text: Mapping[str, Any]) -> None:
        tokenizer = Tokenizer.from_file(str(file))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True  # a value "[SEP]" is a word as any other
        self.around: list[tuple[str, str] | None] = text["around"]
        self.before, self.after, self.pad = text["before"], text["after"], text["pad"]
        self.room = text["max_length"] - len(self.before) - len(self.after)
        told = [f for f, around in enumerate(self.around) if around is not None]

        @lru_cache(maxsize=100_000)
        def cut(field: int, value: str) -> list[int]:
            head, tail = self.around[field] or ("", "")
            gap = "" if field == told[0] else " "
            piece = f"{gap}{head}{' '.join(value.split())}{tail}"
            return tokenizer.encode(piece, add_special_tokens=False).ids

        self.told, self.cut = told, cut

    def assemble(self, values: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and attention [B, L], int64, of words in the order of the fields."""
        rows = []
        for row in values:
            body = [token for field in self.told for token in self.cut(field, row[field])]
            rows.append([*self.before, *body[: self.room], *self.after])
        length = max(map(len, rows))
        tokens = np.full((len(rows), length), self.pad, dtype=np.int64)
        attention = np.zeros((len(rows), length), dtype=np.int64)
        for index, row in enumerate(rows):
            tokens[index, : len(row)] = row
            attention[index, : len(row)] = 1
        return tokens, attention
