"""Fine-grained alignment of an ID-based model and a PLM (section 3.3 of arXiv 2310.19453).

Two towers read the same row, one as IDs, one as a sentence. Each modality is masked and recovered
with the help of the other: masked words with the ID vector (MLM), masked IDs by cross-attention
over the words (MTM); whole rows are told apart by contrast (ICL). The losses come back apart.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from altlib.config import AlignmentConfig
from altlib.data.tabular import Prepared
from altlib.data.text import TextBatch
from altlib.models import losses, masking
from altlib.models.ctr.layers import IdModel
from altlib.models.heads import CrossAttention, MeanPooling, NewMlmHead, OwnMlmHead, Projection
from altlib.models.plm import Plm, encode


@dataclass(frozen=True)
class Masks:
    """What is masked of a batch.

    The positions say what the masks say; from the masks alone their number would have to be
    counted, and the host wait for the GPU that counts them.

    Attributes:
        fields: masked fields of the IDs [B, F] bool.
        tokens: masked tokens of the sentences [B, L] bool.
        id_positions: flat positions of the masked IDs [M].
        token_positions: flat positions of the masked tokens [N].
    """

    fields: Tensor
    tokens: Tensor
    id_positions: Tensor
    token_positions: Tensor

    @staticmethod
    def of(fields: Tensor, tokens: Tensor) -> "Masks":
        positions = (mask.flatten().nonzero().squeeze(1) for mask in (fields, tokens))
        return Masks(fields, tokens, *positions)


class Alignment(nn.Module):
    """The two towers, cross-attention and heads.

    Args:
        ctr: ID-based model, ids -> (representation, logit).
        plm: pretrained language model.
        data: the prepared data set: its features, their counts and its fields.
        config: what is masked and how it is recovered.
        tokens: the tokens that sentences of these data may hold.
    """

    tokens: Tensor
    place: Tensor
    mask_ids: Tensor

    def __init__(
        self,
        ctr: IdModel,
        plm: Plm,
        data: Prepared,
        config: AlignmentConfig,
        tokens: Tensor,
    ) -> None:
        super().__init__()
        self.config = config
        self.ctr = ctr
        self.encoder = plm.encoder
        self.mask_token = int(plm.tokenizer.mask_token_id)
        ids, hidden = ctr.representation_size, plm.hidden_size
        self.fields = len(data.schema.fields)
        if config.icl:
            self.text_projection = Projection(hidden, config.projection, config.head_dropout)
            self.ids_projection = Projection(ids, config.projection, config.head_dropout)
            learnt = config.contrast == "cosine"
            self.log_scale = nn.Parameter(
                torch.tensor(-math.log(config.temperature)), requires_grad=learnt
            )
        if config.mlm:
            if config.mlm_vocabulary == "all":
                tokens = torch.arange(plm.vocab_size)
            place = torch.full((plm.vocab_size,), -100)
            place[tokens] = torch.arange(len(tokens))
            self.register_buffer("tokens", tokens, persistent=False)
            self.register_buffer("place", place, persistent=False)
            self.mlm_head = (
                OwnMlmHead(plm.head, hidden, ids)
                if plm.head is not None and config.mlm_head == "plm"
                else NewMlmHead(hidden, ids, len(tokens), config.head_dropout)
            )
        if config.mtm:
            self.attention = (
                CrossAttention(ids, hidden, config.attention_scaled)
                if config.mtm_context == "attention"
                else MeanPooling()
            )
            self.to_fields = nn.Linear(hidden + ids, self.fields * config.mtm_size)
            self.features = nn.Embedding(data.features, config.mtm_size)
            nn.init.normal_(self.features.weight, std=0.1)
            self.feature_bias = nn.Parameter(torch.zeros(data.features))
        starts = torch.from_numpy(data.vocabulary.starts)
        self.noise = losses.Noise(
            torch.from_numpy(np.array(data.counts)), starts, config.noise == "field"
        )
        # Masks are drawn on the host, so what they depend on stays there.
        self.together = torch.eye(self.fields, dtype=torch.bool)
        for field, others in enumerate(data.schema.together(config.together)):
            self.together[field, others] = True
        self.unknown_ids = torch.from_numpy(data.vocabulary.unknown_ids)
        reserved = torch.from_numpy(data.vocabulary.mask_ids)
        # Feature 0 of the published code is an ordinary value of the first field.
        masks = reserved if config.mask_id == "reserved" else torch.full_like(reserved, 2)
        self.register_buffer("mask_ids", masks, persistent=False)

    def encode_ids(self, ids: Tensor) -> Tensor:
        """The ID vector [B, R] of ids [B, F]."""
        return self.ctr(ids)[0]

    def encode_text(self, tokens: Tensor, attention: Tensor) -> Tensor:
        """The token states [B, L, H] of tokens [B, L] with attention [B, L]."""
        return encode(self.encoder, tokens, attention)

    def draw_masks(self, ids: Tensor, text: TextBatch) -> Masks:
        """Draws what is masked of a batch that still lies on the host.

        IDs and text have a generator each, so that a switch of one modality leaves the other's draw
        as it is: the runs of an ablation see the same masks. In a single pass the tokens avoid the
        masked fields.
        """
        first, second = (
            torch.Generator().manual_seed(seed) for seed in torch.randint(2**62, (2,)).tolist()
        )
        chosen = self.mask_fields(ids, first)
        avoided = chosen if self.config.plm_passes == 1 else None
        return Masks.of(chosen, self.mask_text(text, second, avoided))

    def mask_text(
        self,
        text: TextBatch,
        generator: torch.Generator | None = None,
        avoided: Tensor | None = None,
    ) -> Tensor:
        """Draws the masked tokens [B, L] bool, none of them of the `avoided` fields [B, F]."""
        if self.config.text_masking == "token":
            value = text.value
            if avoided is not None:
                value = value & ~avoided.gather(1, text.field.clamp(min=0))
            return masking.choose_tokens(value, self.config.text_ratio, generator)
        present = text.present(self.fields)
        allowed = torch.ones_like(present) if self.config.mask_absent else present
        if avoided is not None:
            allowed = allowed & ~avoided
        chosen = masking.choose_fields(allowed, self.config.text_ratio, self.together, generator)
        return masking.tokens_of(chosen, text.field, text.value)

    def mask_fields(self, ids: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draws the masked fields of the IDs [B, F] bool; never one that is unknown."""
        known = ids != self.unknown_ids
        return masking.choose_fields(known, self.config.tabular_ratio, self.together, generator)

    def mask(self, ids: Tensor, chosen: Tensor) -> Tensor:
        """ids [B, F] with the chosen fields [B, F] masked."""
        return torch.where(chosen, self.mask_ids, ids)

    def mlm_logits(self, states: Tensor, positions: Tensor, vector: Tensor) -> Tensor:
        """Logits [M, K] at flat positions [M] of states [B, L, H], beside ID vectors [B, R].

        Column k is the token `self.tokens[k]`.
        """
        length = states.shape[1]
        chosen = states.flatten(0, 1).index_select(0, positions)
        return self.mlm_head(chosen, vector.index_select(0, positions // length), self.tokens)

    def attend(self, vector: Tensor, text: TextBatch, states: Tensor) -> tuple[Tensor, Tensor]:
        """Asks the words for masked ids, from the ID vectors of these [B, R] and the sentences
        with their token states [B, L, H].

        Returns:
            One query into the output embedding for each field [B, F, D], and the attention
            weights over the words [B, L].
        """
        visible = torch.ones_like(text.attention) if self.config.attend_padding else text.attention
        context, weights = self.attention(vector, states, visible)
        query = self.to_fields(torch.cat([context, vector], -1))
        return query.view(len(vector), self.fields, -1), weights

    def contrast(self, states: Tensor, vector: Tensor) -> Tensor:
        """ICL between `[CLS]` states of states [B, L, H] and ID vectors [B, R]."""
        text, ids = self.text_projection(states[:, 0]), self.ids_projection(vector)
        if self.config.contrast == "cosine":
            text, ids = F.normalize(text, dim=-1), F.normalize(ids, dim=-1)
        # Bounded as in CLIP: an unbounded scale can run away.
        # In evaluation all processes have the same rows.
        return losses.icl(text, ids, self.log_scale.exp().clamp(max=100.0), self.training)

    def forward(
        self, ids: Tensor, text: TextBatch, masks: Masks | None = None
    ) -> dict[str, Tensor]:
        """The pretraining losses of a batch, apart.

        Nothing here waits for a GPU: all sizes are known on the host.

        Args:
            ids: feature ids [B, F].
            text: the same rows as sentences.
            masks: what is masked; drawn anew if None, for a batch on the host.

        Returns:
            The enabled ones of "icl", "mtm" and "mlm", scalars.
        """
        config = self.config
        result: dict[str, Tensor] = {}
        masks = masks or self.draw_masks(ids, text)
        views = Views(self, ids, text, masks)
        if config.icl:
            result["icl"] = self.contrast(views.states, views.vector)
        if config.mtm:
            query, _ = self.attend(views.masked_vector, text, views.states)
            result["mtm"] = losses.MTM[config.mtm_loss](
                query.flatten(0, 1).index_select(0, masks.id_positions),
                ids.flatten()[masks.id_positions],
                masks.id_positions % self.fields,
                self.features.weight,
                self.feature_bias,
                self.noise,
                config.negatives,
            )
        if config.mlm:
            positions = masks.token_positions
            logits = self.mlm_logits(views.masked_states, positions, views.companion)
            result["mlm"] = losses.mlm(logits, self.place[text.tokens.flatten()[positions]])
        return result


def joint_on(device: torch.device) -> bool:
    """Whether whole and masked sentences go through the PLM in one call: a large batch fills a GPU
    better, and the caches of a CPU worse."""
    return device.type == "cuda"


class Views:
    """What the two towers make of rows, whole and masked; computed when asked for.

    In a single pass the masked form stands for the whole one, too.
    """

    def __init__(self, model: Alignment, ids: Tensor, text: TextBatch, masks: Masks) -> None:
        self.model, self.ids, self.text, self.masks = model, ids, text, masks
        config = model.config
        self.single = config.plm_passes == 1
        two = config.plm_passes == 2 and config.mlm and (config.icl or config.mtm)
        self.joint = two and joint_on(ids.device)

    @cached_property
    def vector(self) -> Tensor:
        """ID vectors [B, R]."""
        return self.masked_vector if self.single else self.model.encode_ids(self.ids)

    @property
    def companion(self) -> Tensor:
        """What MLM reads beside the words: the ID vectors, or zeros [B, R]."""
        if self.model.config.mlm_ids:
            return self.vector
        return self.model.noise.cumulative.new_zeros(
            len(self.ids), self.model.ctr.representation_size, dtype=torch.float32
        )

    @cached_property
    def masked_vector(self) -> Tensor:
        """ID vectors of the masked ids [B, R]."""
        return self.model.encode_ids(self.model.mask(self.ids, self.masks.fields))

    @property
    def masked_text(self) -> Tensor:
        """The tokens of the masked sentences [B, L]."""
        return self.text.tokens.masked_fill(self.masks.tokens, self.model.mask_token)

    @cached_property
    def both(self) -> tuple[Tensor, Tensor]:
        """Token states of the whole and of the masked sentences [B, L, H]."""
        tokens = torch.cat([self.text.tokens, self.masked_text])
        states = self.model.encode_text(tokens, self.text.attention.repeat(2, 1))
        whole, masked = states.chunk(2)
        return whole, masked

    @cached_property
    def states(self) -> Tensor:
        """Token states [B, L, H]."""
        if self.single:
            return self.masked_states
        if self.joint:
            return self.both[0]
        return self.model.encode_text(self.text.tokens, self.text.attention)

    @cached_property
    def masked_states(self) -> Tensor:
        """Token states of the masked sentences [B, L, H]."""
        if self.joint:
            return self.both[1]
        return self.model.encode_text(self.masked_text, self.text.attention)
