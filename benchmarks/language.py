"""Finetuning and evaluation of `ALT_lang` against a plain transformers loop on the same rows."""

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding

from altlib.config import DataConfig, PlmConfig, TextConfig, TrainingConfig
from altlib.data import fetch
from altlib.data.tabular import Prepared
from altlib.lab import steps
from altlib.models import plm
from altlib.models.finetune import LangModel, click_losses, prediction
from altlib.training.batches import Batches
from altlib.training.loop import optimiser
from benchmarks.common import Figure, compared

PLM, BATCH = "minilm-l6:2", 128


class Peer:
    """The usual loop: sentences tokenised once by rows, shuffled, padded by the collator."""

    def __init__(self, data: Prepared, rows: np.ndarray) -> None:
        language = plm.load(PLM, 0.0)
        values = data.words
        texts = [
            " ".join(
                f"{field.words} is {values[value]}."
                for field, value in zip(data.schema.fields, row, strict=True)
            )
            for row in data.rows[rows]
        ]
        encoded = language.tokenizer(texts, truncation=True, max_length=100)
        self.examples = [
            {"input_ids": ids, "attention_mask": mask, "labels": int(label)}
            for ids, mask, label in zip(
                encoded["input_ids"], encoded["attention_mask"], data.labels[rows], strict=True
            )
        ]
        self.collator = DataCollatorWithPadding(language.tokenizer)
        self.model = AutoModelForSequenceClassification.from_pretrained(
            fetch.weights(plm.split_name(PLM)[0]), num_labels=1, num_hidden_layers=language.layers,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
            trust_remote_code=False,
        )  # fmt: skip
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=5e-5)

    def train(self) -> None:
        self.model.train()
        for batch in DataLoader(self.examples, BATCH, shuffle=True, collate_fn=self.collator):
            labels = batch.pop("labels").float()
            logits = self.model(**batch).logits.squeeze(-1)
            F.binary_cross_entropy_with_logits(logits, labels).backward()
            self.optimiser.step()
            self.optimiser.zero_grad()

    @torch.no_grad()
    def evaluate(self) -> None:
        self.model.eval()
        for batch in DataLoader(self.examples, BATCH, collate_fn=self.collator):
            batch.pop("labels")
            self.model(**batch).logits.sigmoid()


class Ours:
    """The same rows by token table and length buckets."""

    def __init__(self, data: Prepared, rows: np.ndarray) -> None:
        config = PlmConfig(PLM, 0.0)
        text = steps.sentences(DataConfig("ml-1m"), TextConfig(), config)
        self.batches = Batches(data, rows, BATCH, text)
        self.model = LangModel(plm.load(PLM, 0.0))
        self.optimiser = optimiser(self.model, TrainingConfig(1, BATCH, 5e-5))
        self.epoch = 0

    def train(self) -> None:
        self.model.train()
        self.epoch += 1
        for rows in self.batches.shuffled(0, self.epoch):
            ids, text, labels, _ = self.batches.load(rows, torch.device("cpu"))
            assert text is not None
            click_losses(self.model(ids, text), labels)["lang"].backward()
            self.optimiser.step()
            self.optimiser.zero_grad(set_to_none=True)

    @torch.no_grad()
    def evaluate(self) -> None:
        self.model.eval()
        for rows in self.batches.ordered():
            ids, text, *_ = self.batches.load(rows, torch.device("cpu"))
            assert text is not None
            prediction(self.model(ids, text))


def measure(rounds: int = 5, rows: int = 2048) -> list[Figure]:
    """Rows a second of finetuning and of evaluation over `rows` rows of MovieLens-1M."""
    data = steps.prepare(DataConfig("ml-1m"))
    chosen = np.random.default_rng(0).permutation(data.of("train"))[:rows]
    peer, ours = Peer(data, chosen), Ours(data, chosen)
    return [
        compared(f"{kind} of ALT_lang, {PLM}", ">=1.5", rows, theirs, own, rounds)
        for kind, theirs, own in (
            ("finetuning", peer.train, ours.train),
            ("evaluation", peer.evaluate, ours.evaluate),
        )
    ]


def main() -> None:
    for figure in measure():
        print(figure)


if __name__ == "__main__":
    main()
