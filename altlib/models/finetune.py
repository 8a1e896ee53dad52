"""Finetuning for CTR: `ALT_ctr`, `ALT_lang`, `ALT_both` (section 3.4 of arXiv 2310.19453).

The same three modules are finetuned from aligned weights and, as controls, from unaligned ones.
Each returns its logits by name; the first is the prediction, and all of them are trained.
"""

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from altlib.data.text import TextBatch
from altlib.models.plm import Plm, encode_first

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration


class CtrModel(nn.Module):
    """`ALT_ctr`: the ID-based model alone, with its own logit. The sentence is not needed."""

    def __init__(self, ctr: nn.Module) -> None:
        super().__init__()
        self.ctr = ctr

    def forward(self, ids: Tensor, text: TextBatch | None) -> dict[str, Tensor]:
        """Logits {"ctr": [B]} of ids [B, F]."""
        return {"ctr": self.ctr(ids)[1]}


class LangModel(nn.Module):
    """`ALT_lang`: the PLM alone, a linear layer on `[CLS]`. The IDs are not needed."""

    def __init__(self, plm: Plm) -> None:
        super().__init__()
        self.encoder = plm.encoder
        self.classifier = nn.Linear(plm.hidden_size, 1)

    def forward(self, ids: Tensor, text: TextBatch) -> dict[str, Tensor]:
        """Logits {"lang": [B]} of the sentences."""
        state = encode_first(self.encoder, text.tokens, text.attention)
        return {"lang": self.classifier(state).squeeze(-1)}


class TowersModel(nn.Module):
    """CTR-BERT (Muhamed et al., 2021): a PLM for each side's words, fused late by two layers.

    Args:
        user: PLM that reads the words of the user's fields.
        item: PLM that reads those of the item's.
        sides: whether a field is one of the user's [F] bool.
    """

    sides: Tensor

    def __init__(self, user: Plm, item: Plm, sides: Tensor) -> None:
        super().__init__()
        self.encoder = nn.ModuleList([user.encoder, item.encoder])
        width = user.hidden_size
        self.classifier = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, 1))
        self.register_buffer("sides", sides, persistent=False)

    def forward(self, ids: Tensor, text: TextBatch) -> dict[str, Tensor]:
        """Logits {"lang": [B]} of the sentences."""
        of_user = self.sides[text.field.clamp(min=0)]  # B, L
        special = text.field < 0
        states = [
            encode_first(encoder, text.tokens, text.attention & (special | own))
            for encoder, own in zip(self.encoder, (of_user, ~of_user), strict=True)
        ]
        return {"lang": self.classifier(torch.cat(states, dim=1)).squeeze(-1)}


class AnswerModel(nn.Module):
    """As P5 (Geng et al., 2022): a T5 reads the sentence, and its first word is "yes" or "no".

    Args:
        t5: reads and answers.
        answers: the tokens of "yes" and of "no".
    """

    def __init__(self, t5: "T5ForConditionalGeneration", answers: tuple[int, int]) -> None:
        super().__init__()
        self.encoder = t5  # the name under which the optimiser finds a PLM's parameters
        self.answers = list(answers)

    def forward(self, ids: Tensor, text: TextBatch) -> dict[str, Tensor]:
        """Logits {"lang": [B]} of the sentences: those of "yes" less those of "no"."""
        start = torch.full_like(text.tokens[:, :1], self.encoder.config.decoder_start_token_id)
        output = self.encoder(
            input_ids=text.tokens, attention_mask=text.attention.long(), decoder_input_ids=start
        )
        yes, no = output.logits[:, 0, self.answers].unbind(-1)
        return {"lang": yes - no}


class BothModel(nn.Module):
    """`ALT_both`: the two logits mixed by one learnt weight.

    Args:
        alpha: "sigmoid" keeps the ID side's weight in (0, 1), starting in the middle; "free", as
            published, starts at 0 without bounds, where the joint loss does not reach the ID side.
    """

    def __init__(
        self, ctr: nn.Module, plm: Plm, alpha: Literal["sigmoid", "free"] = "sigmoid"
    ) -> None:
        super().__init__()
        self.ctr = CtrModel(ctr)
        self.lang = LangModel(plm)
        self.alpha = nn.Parameter(torch.zeros(()))
        self.bounded = alpha == "sigmoid"

    def forward(self, ids: Tensor, text: TextBatch) -> dict[str, Tensor]:
        """Logits "joint", "ctr" and "lang", each [B]."""
        alpha = self.alpha.sigmoid() if self.bounded else self.alpha
        ctr, lang = self.ctr(ids, None)["ctr"], self.lang(ids, text)["lang"]
        return {"joint": alpha * ctr + (1 - alpha) * lang, "ctr": ctr, "lang": lang}


def click_losses(logits: dict[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
    """Binary cross entropy of every logit [B] against labels [B]; their sum is trained."""
    return {
        name: F.binary_cross_entropy_with_logits(logit.float(), labels.float())
        for name, logit in logits.items()
    }


def prediction(logits: dict[str, Tensor]) -> Tensor:
    """Click probabilities [B]: the first logit is the model's own."""
    return next(iter(logits.values())).float().sigmoid()
