"""The alignment explorer: which words a masked field reads, and what comes back of it.

Cross-attention of MTM (section 3.3 of arXiv 2310.19453) asks the words of a sentence for a masked
ID. `Explorer` shows it for one row in a notebook, `page` as a file; `own_words` measures over many
rows whether fields attend to their own words. Attention is not an explanation: it says where the
model reads, not why it answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from scipy.stats import bootstrap
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from altlib import store
from altlib.config import Finetuning, Pretraining
from altlib.data.tabular import RESERVED, Prepared
from altlib.data.text import TextBatch, TokenTable, sentence_fields
from altlib.faults import nearest
from altlib.lab import keys, results, steps
from altlib.models import plm
from altlib.models.alignment import Alignment, Masks, Views

CAUTION = (
    "Attention says where the model reads, not why it answers. Hiding words shows what it needs."
)
NEEDS_ROWS = 2_000
"""Rows over which the means of what is needed are taken at most: each is read once a field."""


@torch.inference_mode()
def attention(model: Alignment, ids: Tensor, text: TextBatch) -> tuple[Tensor, Tensor]:
    """Cross-attention of each row once for each masked field.

    A field is masked together with others as the model was trained.

    Args:
        model: with MTM by cross-attention, in evaluation mode.
        ids: feature ids [B, F].
        text: the same rows as sentences.

    Returns:
        Weights over the tokens [B, F, L], and the query that asks for the masked field [B, F, D].
    """
    fields = ids.shape[1]
    vectors = masked_vectors(model, ids)
    states = model.encode_text(text.tokens, text.attention)
    read = [model.attend(vectors[:, f], text, states) for f in range(fields)]
    weights = torch.stack([weights for _, weights in read], 1)
    queries = torch.stack([query[:, f] for f, (query, _) in enumerate(read)], 1)
    return weights, queries


@torch.inference_mode()
def dependence(model: Alignment, data: Prepared, ids: Tensor, text: TextBatch) -> Tensor:
    """How much worse each masked field comes back without the words of each field [B, F, F], in
    nats: the loss of recovering the field's ID with a field's words masked, less that with the
    whole sentence.

    NaN stands where its ID is unknown, and so cannot be recovered. Arguments as for `attention`.
    """
    fields = range(ids.shape[1])
    vectors = masked_vectors(model, ids)
    hidden = [(text.field == f) & text.value for f in fields]
    tokens = torch.stack(
        [text.tokens, *(text.tokens.masked_fill(h, model.mask_token) for h in hidden)]
    )
    states = model.encode_text(tokens.flatten(0, 1), text.attention.repeat(len(tokens), 1))
    losses = []
    for of in states.unflatten(0, (len(tokens), -1)):
        queries = [model.attend(vectors[:, f], text, of)[0][:, f] for f in fields]
        losses.append(torch.stack([loss(model, data, queries[f], ids[:, f], f) for f in fields], 1))
    return torch.stack(losses[1:], 2) - losses[0][:, :, None]


def loss(model: Alignment, data: Prepared, query: Tensor, truth: Tensor, field: int) -> Tensor:
    """Negative log-probability of the true ids [B] among the known ones of a field, in nats, from
    queries [B, D]; NaN for an unknown one."""
    place = truth - (int(data.vocabulary.starts[field]) + RESERVED)
    scores = known_scores(model, data, query, field)
    if not scores.shape[-1]:
        return scores.new_full(truth.shape, torch.nan)
    found = F.cross_entropy(scores, place.clamp(min=0), reduction="none")
    return found.masked_fill(place < 0, torch.nan)


def known_scores(model: Alignment, data: Prepared, query: Tensor, field: int) -> Tensor:
    """Scores of the known features of a field [..., K] for queries [..., D]."""
    first, last = data.vocabulary.starts[field : field + 2]
    own = slice(int(first) + RESERVED, int(last))
    return query @ model.features.weight[own].T + model.feature_bias[own]


def masked_vectors(model: Alignment, ids: Tensor) -> Tensor:
    """The ID vectors [B, F, R] of ids [B, F], once for each masked field."""
    masked = model.mask(ids[:, None], model.together)  # B, F, F
    return model.encode_ids(masked.flatten(0, 1)).unflatten(0, (-1, ids.shape[1]))


def by_field(weights: Tensor, text: TextBatch) -> Tensor:
    """Attention on the words of each field [B, F, F] from weights [B, F, L]; special tokens,
    which belong to none, are left out."""
    fields = weights.shape[1]
    place = text.field.clamp(min=0)[:, None].expand_as(weights)
    told = weights * (text.field >= 0)[:, None]
    return torch.zeros(len(weights), fields, fields).scatter_add_(2, place, told)


def masses(
    model: Alignment, data: Prepared, sentences: TokenTable, rows: np.ndarray, shuffled: bool
) -> np.ndarray:
    """Attention of each masked field on the words of each field [N, F, F], for rows at positions
    [N]; `shuffled`, beside the sentences of other rows."""
    other = np.random.default_rng(0).permutation(rows) if shuffled else rows
    found = []
    for start in range(0, len(rows), 256):
        part = slice(start, start + 256)
        text = sentences.assemble(data.rows[other[part]])
        weights, _ = attention(model, torch.from_numpy(data.ids(rows[part])), text)
        found.append(by_field(weights, text).numpy())
    return np.concatenate(found)


def needs(model: Alignment, data: Prepared, sentences: TokenTable, rows: np.ndarray) -> np.ndarray:
    """`dependence` of rows at positions [N]: [N, F, F]."""
    found = []
    for part in np.array_split(rows, 1 + len(rows) // 64):
        ids, text = torch.from_numpy(data.ids(part)), sentences.assemble(data.rows[part])
        found.append(dependence(model, data, ids, text).numpy())
    return np.concatenate(found)


def own_words(
    checkpoints: Mapping[str, Alignment],
    data: Prepared,
    sentences: TokenTable,
    rows: np.ndarray,
    aligned: str,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Whether masked fields attend to their own words.

    Args:
        aligned: the checkpoint that also reads the sentences of other rows.

    Returns:
        For each checkpoint the mean attention of a field on its own words, with a 95 % bootstrap
        interval over users, beside the share of tokens that are its own, and how many of the fields
        read their own words most; and the mean attention [F, F] of `aligned`, indexed by words of
        the fields.
    """
    told = sentence_fields(data.schema, sentences.config)
    even = even_masses(data, sentences, rows)
    users = data.users(rows)
    cases = [(name, False) for name in checkpoints] + [(aligned, True)]
    lines, mean = [], np.empty(0)
    for name, shuffled in cases:
        found = masses(checkpoints[name], data, sentences, rows, shuffled)
        average = found.mean(0)
        if name == aligned and not shuffled:
            mean = average
        own = found[:, told, told].mean(1)
        lines.append(
            {
                "checkpoint": name,
                "sentences": "of other rows" if shuffled else "own",
                "own words": own.mean(),
                **over_users(own, users),
                "uniform": even[told].mean(),
                "read most by": int((average.argmax(1)[told] == told).sum()),
                "fields": len(told),
                "rows": len(rows),
            }
        )
    words = [field.words for field in data.schema.fields]
    return pd.DataFrame(lines), pd.DataFrame(mean, words, words)


def needed_words(
    models: Sequence[Alignment], data: Prepared, sentences: TokenTable, rows: np.ndarray
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Whether masked fields need their own words, after one or several pretrainings.

    Returns:
        For each masked field that the sentence holds what hiding its own words adds to its loss, in
        nats; the 95 % bootstrap interval over users, from the lowest to the highest end among the
        pretrainings; the field whose words it needs most; whether, after each pretraining, these
        are its own or those of a field that determines it; the number of rows, of those at `rows`,
        whose ID is known; and the number of pretrainings. And the mean over rows and pretrainings
        of what each masked field needs of each field's words [F, F], indexed by words of the
        fields.
    """
    found = np.stack([needs(model, data, sentences, rows) for model in models])
    each = np.nanmean(found, 1)
    mean = each.mean(0)
    users = data.users(rows)
    words = [field.words for field in data.schema.fields]
    groups = data.schema.together("determining")
    lines = []
    for f in sentence_fields(data.schema, sentences.config):
        known = ~np.isnan(found[0, :, f, f])
        if not known.any():  # no row has an ID of this field that could come back
            continue
        intervals = [over_users(own, users[known]) for own in found[:, known, f, f]]
        lines.append(
            {
                "masked field": words[f],
                "own words (nats)": mean[f, f],
                "low": min(interval["low"] for interval in intervals),
                "high": max(interval["high"] for interval in intervals),
                "needs most": words[int(mean[f].argmax())],
                "of its own": all(int(of[f].argmax()) in groups[f] for of in each),
                "rows": int(known.sum()),
                "pretrainings": len(models),
            }
        )
    return pd.DataFrame(lines), pd.DataFrame(mean, words, words)


def over_users(values: np.ndarray, users: np.ndarray) -> dict[str, float]:
    """The 95 % bootstrap interval, over users, of the mean of values [N] of users [N]; NaN for a
    single user."""
    user = np.unique(users, return_inverse=True)[1]
    if not user.any():
        return {"low": np.nan, "high": np.nan}
    found = bootstrap(
        (np.bincount(user, values), np.bincount(user)),
        lambda total, rows, axis: total.sum(axis) / rows.sum(axis),
        n_resamples=1000, batch=100, method="percentile", paired=True,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    return found.confidence_interval._asdict()


def even_masses(data: Prepared, sentences: TokenTable, rows: np.ndarray) -> np.ndarray:
    """The mean mass on the words of each field [F] if every token of a sentence had the same."""
    fields = len(data.schema.fields)
    total = np.zeros(fields)
    for part in np.array_split(rows, 1 + len(rows) // 4096):
        text = sentences.assemble(data.rows[part])
        even = (text.attention / text.attention.sum(1, keepdim=True))[:, None]
        total += by_field(even.expand(-1, fields, -1), text)[:, 0].sum(0).numpy()
    return total / len(rows)


@dataclass
class Words:
    """A sentence cut into words.

    Attributes:
        texts: the words, or pieces of words, in order.
        fields: the field of each.
        of_token: the word of each token [L]; -1 for special tokens and padding.
    """

    texts: list[str]
    fields: list[int]
    of_token: np.ndarray

    @staticmethod
    def of(text: TextBatch, tokenizer: PreTrainedTokenizerBase, pieces: bool = False) -> "Words":
        """The words of the one sentence in `text`; its tokens, if `pieces`."""
        names = np.array(tokenizer.convert_ids_to_tokens(text.tokens[0].tolist()), dtype=object)
        fields = text.field[0].numpy()
        # RoBERTa and T5 mark where a word begins, BERT where one goes on.
        mark = next((m for m in ("Ġ", "▁") if any(name.startswith(m) for name in names)), None)
        goes_on = [n.startswith("##") if mark is None else not n.startswith(mark) for n in names]
        joined = np.array(goes_on) & (np.diff(fields, prepend=-1) == 0) & (not pieces)
        begins = (fields >= 0) & ~joined
        of_token = np.where(fields >= 0, begins.cumsum() - 1, -1)
        words = [names[of_token == word].tolist() for word in range(begins.sum())]
        texts = [tokenizer.convert_tokens_to_string(word).strip() for word in words]
        return Words(texts, fields[begins].tolist(), of_token)

    def total(self, weights: np.ndarray) -> np.ndarray:
        """Weights [F, W] of the words from those of the tokens [F, L]."""
        told = self.of_token >= 0
        of = self.of_token[told]
        return np.stack([np.bincount(of, row[told], len(self.texts)) for row in weights])


def attention_map(
    title: str,
    values: np.ndarray,
    names: list[str],
    columns: list[tuple[str, str]],
    even: np.ndarray,
) -> dict[str, Any]:
    """A map of attention, as the page draws it.

    Args:
        values: of each field on each column [F, C]; what they lack of 1 is on special tokens.
        names: words of the fields.
        columns: words, and of which field they are.
        even: what the columns [C] would have if all tokens had the same.
    """
    return {
        "title": title,
        "kind": "attention",
        "rows": names,
        "columns": [{"text": text, "group": group} for text, group in columns],
        "values": values.round(5).tolist(),
        "uniform": even.round(5).tolist(),
        "special": (1 - values.sum(1)).clip(min=0).round(5).tolist(),
    }


def need(title: str, values: np.ndarray, names: list[str]) -> dict[str, Any]:
    """A map of what each masked field needs of the words of each field [F, F], in nats."""
    shown = [[None if np.isnan(v) else round(float(v), 4) for v in line] for line in values]
    columns = [{"text": name, "group": name} for name in names]
    return {"title": title, "kind": "need", "rows": names, "columns": columns, "values": shown}


def difference(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """The map of `second` less that of `first`, of one sentence."""
    values, special = (
        (np.array(second[part]) - np.array(first[part])).round(5).tolist()
        for part in ("values", "special")
    )
    title = f"{second['title']} less {first['title']}"
    return {**first, "title": title, "kind": "difference", "values": values, "special": special}


@torch.inference_mode()
def recovered_values(
    model: Alignment, data: Prepared, query: Tensor, field: int, number: int = 5
) -> list[tuple[str, float]]:
    """The likeliest values of a masked field and their probabilities, from its query [D]."""
    scores = known_scores(model, data, query, field)
    chances, places = scores.softmax(0).topk(min(number, len(scores)))
    known = data.vocabulary.values[field]
    return [(known[p], c) for p, c in zip(places.tolist(), chances.tolist(), strict=True)]


@torch.inference_mode()
def recovered_words(
    model: Alignment, ids: Tensor, text: TextBatch, field: int, tokenizer: PreTrainedTokenizerBase
) -> list[tuple[str, list[tuple[str, float]]]]:
    """Each token of a field's value in the sentence of one row, and the likeliest three there
    when all of them are masked, with probabilities; the IDs [1, F] are whole."""
    masked = (text.field == field) & text.value
    if not masked.any():
        return []
    views = Views(model, ids, text, Masks.of(torch.zeros_like(ids).bool(), masked))
    positions = views.masks.token_positions
    logits = model.mlm_logits(views.masked_states, positions, views.companion)
    chances, places = logits.softmax(1).topk(3)
    truths = tokenizer.convert_ids_to_tokens(text.tokens[masked].tolist())
    names = [tokenizer.convert_ids_to_tokens(model.tokens[p].tolist()) for p in places]
    return [
        (truth, list(zip(found, chance.tolist(), strict=True)))
        for truth, found, chance in zip(truths, names, chances, strict=True)
    ]


@dataclass
class Reader:
    """Checkpoints and the rows they read: what the widget and the page show, as plain values.

    Attributes:
        checkpoints: models by name, in evaluation mode.
        data: the prepared data set.
        sentences: what makes sentences of its rows.
        tokenizer: of the PLM.
        probabilities: click probabilities of rows by position, from a finetuned run; may be empty.
    """

    checkpoints: Mapping[str, Alignment]
    data: Prepared
    sentences: TokenTable
    tokenizer: PreTrainedTokenizerBase
    probabilities: Mapping[int, float]

    def __post_init__(self) -> None:
        for name, model in self.checkpoints.items():
            if not model.config.mtm or model.config.mtm_context != "attention":
                raise ValueError(
                    f"The checkpoint '{name}' has no cross-attention to show: it was pretrained "
                    "without MTM, or with the mean of the words."
                )
            if model.config.attend_padding:
                raise ValueError(f"The checkpoint '{name}' attends to padding, which has no words.")

    @property
    def names(self) -> list[str]:
        """Words of the fields."""
        return [field.words for field in self.data.schema.fields]

    def model(self, name: str) -> Alignment:
        """A checkpoint; a ValueError says that there is no such one."""
        if name not in self.checkpoints:
            raise ValueError(f"There is no checkpoint '{name}'; {nearest(name, self.checkpoints)}")
        return self.checkpoints[name]

    def row(
        self,
        position: int,
        field: int,
        checkpoint: str,
        other: str | None = None,
        pieces: bool = False,
    ) -> dict[str, Any]:
        """What is to be seen of a row.

        Args:
            position: of the row in the data.
            field: the masked field whose words and recovery are shown below the map.
            other: another checkpoint to compare with.
            pieces: show tokens, not words.
        """
        text = self.sentences.assemble(self.data.rows[[position]])
        ids = torch.from_numpy(self.data.ids(np.array([position])))
        words = Words.of(text, self.tokenizer, pieces)
        columns = [(word, self.names[f]) for word, f in zip(words.texts, words.fields, strict=True)]
        even = words.total((text.attention / text.attention.sum()).numpy())[0]
        panels, needed, recovered = [], [], []
        for name in [checkpoint] + ([other] if other else []):
            model = self.model(name)
            weights, queries = attention(model, ids, text)
            lost = dependence(model, self.data, ids, text)[0].numpy()
            needed.append(need(f"{name}: words needed", lost, self.names))
            values = words.total(weights[0].numpy())
            panels.append(attention_map(name, values, self.names, columns, even))
            recovered.append(
                {
                    "checkpoint": name,
                    "values": recovered_values(model, self.data, queries[0, field], field),
                    "words": recovered_words(model, ids, text, field, self.tokenizer)
                    if model.config.mlm
                    else [],
                }
            )
        if other:
            panels.append(difference(*panels[::-1]))
        panels += needed
        truth = self.data.words[self.data.rows[position][field]]
        return {
            "field": field,
            "panels": panels,
            "recovered": recovered,
            "truth": truth,
            "known": truth in self.data.vocabulary.values[field],
            "label": int(self.data.labels[position]),
            "probability": self.probabilities.get(position),
            "note": CAUTION,
        }

    def corpus(self, rows: np.ndarray, checkpoint: str, other: str | None = None) -> dict[str, Any]:
        """Mean attention of fields on the words of fields over rows, as `row` gives that of one."""
        panels, needed = [], []
        even = even_masses(self.data, self.sentences, rows)
        some = np.sort(np.random.default_rng(0).permutation(rows)[:NEEDS_ROWS])
        told = sentence_fields(self.data.schema, self.sentences.config)
        for name in [checkpoint] + ([other] if other else []):
            model = self.model(name)
            mean, others = (
                masses(model, self.data, self.sentences, rows, shuffled).mean(0)
                for shuffled in (False, True)
            )
            own, other_own = (of.diagonal()[told].mean() for of in (mean, others))
            lost = np.nanmean(needs(model, self.data, self.sentences, some), 0)
            title = f"{name}: words needed, mean of {len(some):,} rows"
            needed.append(need(title, lost, self.names))
            title = (
                f"{name}: {own:.3f} on own words ({other_own:.3f} with sentences of other rows), "
                f"mean of {len(rows):,} rows"
            )
            columns = [(field, field) for field in self.names]
            panels.append(attention_map(title, mean, self.names, columns, even))
        if other:
            panels.append(difference(*panels[::-1]))
        panels += needed
        return {"field": None, "panels": panels, "recovered": [], "note": CAUTION}


def reader(
    aligned: Pretraining,
    others: Mapping[str, Pretraining] | None = None,
    both: Finetuning | None = None,
    ctr: Finetuning | None = None,
) -> Reader:
    """A reader of a pretraining before and after, and of what came of it.

    Args:
        aligned: it is found or made.
        others: further pretrainings on the same data by name, as ablations.
        both: a run of `ALT_both` that began from `aligned`; its two models are shown with the heads
            of the pretraining.
        ctr: a run whose predictions are shown.

    Raises:
        ValueError: another pretraining has other data or sentences, `both` began from another one,
            or `ctr` has other data.
    """
    if both is not None and both.pretraining != aligned:
        raise ValueError(f"The run of '{both.variant}' did not begin from this pretraining.")
    if ctr is not None and ctr.data != aligned.data:
        raise ValueError(f"The run of '{ctr.variant}' has other data than the pretraining.")
    checkpoints = {
        "before pretraining": steps.build_alignment(aligned).eval(),
        "after pretraining": steps.load_alignment(aligned).eval(),
    }
    for name, config in (others or {}).items():
        if (config.data, config.text) != (aligned.data, aligned.text):
            raise ValueError(f"The pretraining '{name}' has other data or sentences.")
        checkpoints[name] = steps.load_alignment(config).eval()
    if both is not None:
        steps.finetune(both)
        model = steps.load_alignment(aligned).eval()
        weights = load_file(store.checked(keys.folder(both) / "model.safetensors"))
        for prefix, part in (("ctr.ctr.", model.ctr), ("lang.encoder.", model.encoder)):
            of = {n[len(prefix) :]: w for n, w in weights.items() if n.startswith(prefix)}
            part.load_state_dict(of)
        checkpoints["after finetuning ALT_both"] = model
    data, chances = steps.prepare(aligned.data), {}
    if ctr is not None:
        steps.finetune(ctr)
        rows = data.of("test").tolist()
        chances = dict(zip(rows, results.predictions(ctr).tolist(), strict=True))
    return Reader(
        checkpoints,
        data,
        steps.sentences(aligned.data, aligned.text, aligned.plm),
        plm.tokenizer(aligned.plm.name),
        chances,
    )
