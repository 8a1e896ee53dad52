"""Template and token table: sentences without strings (section 3.1 of arXiv 2310.19453).

A sentence is a fixed template around values, and there are far fewer values than rows. Each value
is tokenised once, with the template words around it; a batch is then assembled by integer gathers,
and the field of every token is known for free. Pieces are cut at white space, where neither
WordPiece nor byte-level BPE merges, so that the tokens equal the tokenizer's on the full sentence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from altlib.config import TextConfig
from altlib.data.schema import Schema


@dataclass(frozen=True)
class TextBatch:
    """Sentences of a batch as tokens.

    Attributes:
        tokens: token ids [B, L].
        attention: False at padding [B, L] bool.
        field: the field each token belongs to [B, L]; -1 for special tokens and padding.
        value: tokens of a value, as opposed to the template's own words [B, L] bool.
    """

    tokens: Tensor
    attention: Tensor
    field: Tensor
    value: Tensor

    def present(self, fields: int) -> Tensor:
        """Fields with at least one value token in the sentence [B, F] bool."""
        count = torch.zeros(len(self.tokens), fields, device=self.tokens.device)
        return count.scatter_add_(1, self.field.clamp(min=0), self.value.float()) > 0


def specials(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and after a sentence."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    for start in range(len(full)):
        if bare and full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    raise ValueError(
        f"The tokenizer makes {bare} of the word 'a', and {full} of it as a sentence: the special "
        "tokens cannot be told from the word's own."
    )


def pieces(schema: Schema, config: TextConfig, field: int, values: Sequence[str]) -> list[str]:
    """The template filled for each of a field's values, white space made single."""
    words = schema.fields[field].words
    head, tail = config.around(words)
    for text in (head, *values, tail):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"The field '{schema.fields[field].name}' has the text {text!r}, which is not "
                "valid Unicode: half of a surrogate pair stands alone. Repair it in the data."
            ) from None
    return [head + " ".join(value.split()) + tail for value in values]


def sentence_fields(schema: Schema, config: TextConfig) -> list[int]:
    """Positions of the fields in the sentence."""
    for name in config.leave_out:
        if name not in schema.field_names:
            raise ValueError(
                f"text.leave_out names '{name}', which is not a field of '{schema.name}'; "
                f"its fields are {schema.field_names}."
            )
    told = [f for f, name in enumerate(schema.field_names) if name not in config.leave_out]
    if not told:
        raise ValueError(f"text.leave_out leaves no field of '{schema.name}' in the sentence.")
    return told


@dataclass
class TokenTable:
    """The tokens of every value, and the assembly of sentences from them.

    Attributes:
        config: template and lengths.
        tokens: tokens of all pieces, one after the other [T].
        value: whether a token belongs to the value [T] bool.
        starts: where each value's piece begins in `tokens` [W + 1]; W counts the values of all
            fields, and a field that the sentence leaves out has empty pieces.
        before, after: special tokens around the sentence.
        pad: the padding token.
    """

    config: TextConfig
    tokens: Tensor
    value: Tensor
    starts: Tensor
    before: Tensor
    after: Tensor
    pad: int

    def __post_init__(self) -> None:
        special = len(self.before) + len(self.after)
        if self.config.max_length <= special:
            raise ValueError(
                f"text.max_length is {self.config.max_length}, but the PLM puts {special} special "
                f"tokens around each sentence; give at least {special + 1}."
            )

    @staticmethod
    def build(
        values: Sequence[Sequence[str]],
        schema: Schema,
        tokenizer: PreTrainedTokenizerBase,
        config: TextConfig,
    ) -> "TokenTable":
        """Tokenises every value of every field once, in the order of the value indices.

        The tokenizer is a fast one, which tells where in the text a token stands.

        Raises:
            ValueError: no token is left for words, a text is no Unicode, or the tokenizer makes
                other tokens of whole sentences than of their pieces.
        """
        told = sentence_fields(schema, config)
        before, after = specials(tokenizer)
        tokens: list[int] = []
        inside: list[bool] = []
        starts = [0]
        first_row, last_row = [], []  # of the first and of the last value of each field, as text
        for field, words in enumerate(values):
            if field not in told:
                starts += [len(tokens)] * len(words)
                continue
            texts = pieces(schema, config, field, words)
            first_row.append(texts[0])
            last_row.append(texts[-1])
            gap = "" if field == told[0] else " "
            head, tail = config.around(schema.fields[field].words)
            start = len(gap) + len(head)
            encoded = tokenizer(
                [gap + text for text in texts],
                add_special_tokens=False,
                return_offsets_mapping=True,
                return_attention_mask=False,
                return_token_type_ids=False,
                split_special_tokens=True,  # a value "[SEP]" is a word as any other
                verbose=False,  # longer than the PLM reads: it is cut when assembled
            )
            for text, ids, spans in zip(
                texts, encoded["input_ids"], encoded["offset_mapping"], strict=True
            ):
                end = len(gap) + len(text) - len(tail)
                tokens += ids
                inside += [first < end and last > start for first, last in spans]
                starts.append(len(tokens))
        table = TokenTable(
            config=config,
            tokens=torch.tensor(tokens, dtype=torch.int32),
            value=torch.tensor(inside, dtype=torch.bool),
            starts=torch.tensor(starts),
            before=torch.tensor(before, dtype=torch.long),
            after=torch.tensor(after, dtype=torch.long),
            pad=int(tokenizer.pad_token_id),
        )
        ends = np.cumsum([len(words) for words in values])
        batch = table.assemble(np.array([[0, *ends[:-1]], ends - 1]))
        whole = tokenizer(
            [" ".join(first_row), " ".join(last_row)],
            truncation=True,
            max_length=config.max_length,
            split_special_tokens=True,
        )["input_ids"]
        made = [t[real].tolist() for t, real in zip(batch.tokens, batch.attention, strict=True)]
        if made != whole:
            raise ValueError(
                "The tokenizer makes other tokens of a whole sentence than of its pieces, since it "
                "does not keep words apart at white space; take another PLM."
            )
        return table

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Tokens of each row's sentence, special ones included [B].

        Args:
            rows: value indices [B, F].
        """
        size = self.starts.diff().numpy()
        total = sum(size[rows[:, f]] for f in range(rows.shape[1]))
        return np.minimum(total + len(self.before) + len(self.after), self.config.max_length)

    def assemble(self, rows: np.ndarray, multiple: int = 1) -> TextBatch:
        """The sentences of `rows`, value indices [B, F], as one batch, padded to a length that is a
        multiple of `multiple`."""
        which = torch.from_numpy(np.ascontiguousarray(rows)).long()
        batch, fields = which.shape
        size = self.starts[which + 1] - self.starts[which]  # B, F
        room = self.config.max_length - len(self.before) - len(self.after)
        end = size.cumsum(1).clamp(max=room)  # B, F: what lies beyond the room is cut off
        size = end - torch.nn.functional.pad(end, (1, 0))[:, :-1]
        lead, body = len(self.before), end[:, -1:]
        longest = room if self.config.pad == "maximum" else int(body.max())
        length = -(-(lead + longest + len(self.after)) // multiple) * multiple

        flat = size.flatten()
        first = self.starts[which].flatten() - (flat.cumsum(0) - flat)
        source = torch.arange(int(flat.sum())) + torch.repeat_interleave(first, flat)
        place = torch.arange(length)
        attention = place < lead + body + len(self.after)
        target = ((place >= lead) & (place < lead + body)).nonzero(as_tuple=True)
        tokens = torch.full((batch, length), self.pad)
        field = torch.full((batch, length), -1)
        value = torch.zeros(batch, length, dtype=torch.bool)
        tokens[:, :lead] = self.before
        tokens.scatter_(
            1, lead + body + torch.arange(len(self.after)), self.after.expand(batch, -1)
        )
        tokens[target] = self.tokens[source].long()
        field[target] = torch.repeat_interleave(torch.arange(fields).repeat(batch), flat)
        value[target] = self.value[source]
        return TextBatch(tokens, attention, field, value)

    def save(self, folder: Path) -> None:
        """Writes the arrays as .npy files into `folder`."""
        for name in ("tokens", "value", "starts", "before", "after"):
            np.save(folder / f"text_{name}.npy", getattr(self, name).numpy())
        np.save(folder / "text_pad.npy", self.pad)

    @staticmethod
    def load(folder: Path, config: TextConfig) -> "TokenTable":
        """Reads what `save` wrote."""
        arrays = {
            name: torch.from_numpy(np.load(folder / f"text_{name}.npy"))
            for name in ("tokens", "value", "starts", "before", "after")
        }
        return TokenTable(config=config, pad=int(np.load(folder / "text_pad.npy")), **arrays)
