"""What one run is made of: every entry that a profile may have, the variants, and a run's key.

Nothing here imports PyTorch, so that a plan is made at once.
"""

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, PositiveFloat
from pydantic import Field as Limits
from pydantic.dataclasses import dataclass as checked

from altlib.faults import nearest

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
"""Of every configuration: no unknown entries, and finite numbers."""

Count = Annotated[int, Limits(ge=1, lt=1 << 31)]
"""Epochs, rows of a batch and the like."""

Amount = Annotated[float, Limits(ge=0, le=1e6)]
"""Rates, and weights of terms."""

Seed = Annotated[int, Limits(ge=0, lt=1 << 63)]
"""Of whatever is drawn; it stands in names of files."""

Size = Annotated[int, Limits(ge=1, le=1 << 14)]
"""Of a part of a model: what is wider or deeper fits into no memory."""


@dataclass(frozen=True)
class LabelRule:
    """Turns a rating into a click.

    Attributes:
        positive_from: a rating of at least this is a positive (1), a lower one a negative (0).
        dropped: ratings that say neither; their rows are left out.
        scale: the lowest and the highest rating that the data set allows.
    """

    positive_from: float
    dropped: tuple[float, ...] = ()
    scale: tuple[float, float] = (1.0, 5.0)

    def __post_init__(self) -> None:
        low, high = self.scale
        if not (math.isfinite(low) and math.isfinite(high) and low < self.positive_from <= high):
            raise ValueError(
                f"A label rule with positive_from = {self.positive_from:g} and scale = [{low:g}, "
                f"{high:g}]: the scale must rise, and positive_from lie above its lowest rating."
            )
        if not all(low <= rating <= high for rating in self.dropped):
            raise ValueError(
                f"A label rule drops {list(self.dropped)}; what is dropped must lie on its scale, "
                f"from {low:g} to {high:g}."
            )


SPLITS = {"time": "split by time", "random": "split at random"}
"""How rows are divided into training, validation and test, in words."""


@checked(frozen=True, config=STRICT)
class DataConfig:
    """A data set and how its rows are used.

    Attributes:
        dataset: its name, or the path of the YAML file that describes one's own data.
        options: of the data set, as the size of a synthetic one.
        split: by "time" or at "random".
        seed: of the random split and of a sample of rows.
        min_count: a value seen fewer times in the training split counts as unknown.
        rows: use a random sample of this many rows.
        train_share: use a random share of the training split only, to see what few rows do.
        label: what counts as a click, in place of the data set's own rule.
        fields: names of the fields to use; all but the optional ones if None.
    """

    dataset: str
    options: dict[str, Any] | None = None
    split: Literal["time", "random"] = "time"
    seed: Seed = 0
    min_count: Count = 2
    rows: Count | None = None
    train_share: float = Limits(default=1.0, gt=0, le=1)
    label: LabelRule | None = None
    fields: tuple[str, ...] | None = None

    @property
    def words(self) -> str:
        """The data set and its split, for people."""
        return f"{Path(self.dataset).stem}, {SPLITS[self.split]}"


@checked(frozen=True, config=STRICT)
class PlmConfig:
    """A pretrained language model and its dropout in training."""

    name: str = Limits(min_length=1)
    dropout: float = Limits(default=0.1, ge=0, lt=1)

    @property
    def base(self) -> str:
        """The name without the ":k" that asks for its first k layers."""
        return split_name(self.name)[0]


def split_name(name: str) -> tuple[str, str | None]:
    """A PLM's name without ":k", and k, the number of layers that it asks for."""
    match = re.fullmatch(r"(.+):(-?\w+)", name)
    return (match[1], match[2]) if match else (name, None)


@checked(frozen=True, config=STRICT)
class TextConfig:
    """How a row reads as a sentence.

    Attributes:
        template: one field's words; "{field}" and "{value}" are filled in.
        leave_out: fields that are not in the sentence.
        max_length: longest sentence in tokens; what lies beyond is cut off.
        pad: to the longest sentence of the batch, or always to `max_length` (published code).
    """

    template: str = "{field} is {value}."
    leave_out: tuple[str, ...] = ()
    max_length: int = Limits(default=100, ge=3, le=1 << 14)  # two stand around a sentence
    pad: Literal["batch", "maximum"] = "batch"

    def __post_init__(self) -> None:
        rest = self.template.replace("{field}", "")
        if rest.count("{value}") != 1 or re.search("[{}]", rest.replace("{value}", "")):
            raise ValueError(
                f"text.template is '{self.template}'; it must hold {{value}} once, may hold "
                "{field}, and no other braces."
            )

    def around(self, words: str) -> tuple[str, str]:
        """The template before and after the value of a field with these words."""
        head, tail = self.template.split("{value}")
        return head.replace("{field}", words), tail.replace("{field}", words)


BACKBONES = {
    "afm": "AFM",
    "pnn": "PNN",
    "widedeep": "Wide & Deep",
    "dcn": "DCN",
    "deepfm": "DeepFM",
    "xdeepfm": "xDeepFM",
    "afn": "AFN",
    "autoint": "AutoInt",
    "dcnv2": "DCNv2",
    "dcnv2-full": "DCNv2 (full matrix)",
    "finalmlp": "FinalMLP",
}
"""The ID-based models, and how tables and figures call them."""


@checked(frozen=True, config=STRICT)
class CtrConfig:
    """Sizes of an ID-based model; a backbone reads those that it has a use for.

    Attributes:
        backbone: a name of `BACKBONES`.
        embedding: width d of a feature's vector.
        hidden: widths of the DNN, ReLU after each.
        dropout: after each hidden layer of the DNN.
        cross_layers: cross layers of DCN and both DCNv2 forms.
        low_rank: width of the projected space of an expert ("dcnv2").
        experts: experts of a cross layer ("dcnv2").
        attention_layers: interacting layers ("autoint").
        attention_heads: heads of such a layer, a divisor of `embedding` ("autoint").
        cin: feature maps of each layer of the compressed interaction network ("xdeepfm").
        logarithmic_neurons: crosses of learnt order ("afn").
        fusion_heads: subspaces of the bilinear fusion, a divisor of `hidden[-1]` ("finalmlp").
    """

    backbone: str = "dcnv2"
    embedding: Size = 32
    hidden: tuple[Size, ...] = Limits(default=(300, 300, 128), min_length=1)
    dropout: float = Limits(default=0.0, ge=0, lt=1)
    cross_layers: Size = 2
    low_rank: Size = 32
    experts: Size = 4
    attention_layers: Size = 3
    attention_heads: Size = 2
    cin: tuple[Size, ...] = Limits(default=(128, 128), min_length=1)
    logarithmic_neurons: Size = 64
    fusion_heads: Size = 2

    def __post_init__(self) -> None:
        if self.backbone not in BACKBONES:
            raise ValueError(
                f"There is no backbone '{self.backbone}'; {nearest(self.backbone, BACKBONES)}"
            )
        if self.backbone == "autoint" and self.embedding % self.attention_heads:
            raise ValueError(
                f"AutoInt splits the embedding ({self.embedding}) evenly among its heads: "
                f"attention_heads = {self.attention_heads} does not divide it."
            )
        if self.backbone == "finalmlp" and self.hidden[-1] % self.fusion_heads:
            raise ValueError(
                f"FinalMLP splits a stream's output ({self.hidden[-1]}) evenly among its heads: "
                f"fusion_heads = {self.fusion_heads} does not divide it."
            )


@checked(frozen=True, config=STRICT)
class AlignmentConfig:
    """What is masked, and how it is recovered. The defaults are the preset "corrected".

    Attributes:
        icl, mtm, mlm: whether the loss is trained.
        text_ratio, tabular_ratio: share of the fields masked in the sentence and in the IDs.
        text_masking: whole values ("field"), or value tokens wherever they stand ("token").
        together: what is masked with a field: "nothing"; its "twins", of which each determines the
            other; or all fields "determining" it, off which it could be read in the same modality.
        mask_id: a masked ID becomes the field's reserved mask id, or "zero", feature 0 of the
            published code, which is a real one.
        mask_absent: let masks fall on fields that the sentence does not hold, too.
        mtm_context: what MTM reads: the words under cross-"attention" by the ID vector, or their
            "mean".
        attention_scaled: divide attention scores by the square root of the hidden size.
        attend_padding: let cross-attention see padding.
        contrast: inner products of ICL: "cosine" with a learnt temperature, or "dot", unnormalised
            with a fixed one.
        temperature: of ICL; where it is learnt, at the start.
        mtm_loss: "nce", or "full" softmax.
        noise: negatives of MTM from the masked "field", or from "all" features.
        negatives: how many for each masked field.
        mlm_head: the PLM's own head with the ID vector added to its input where the PLM has one
            ("plm"), or always a new one over both vectors.
        mlm_vocabulary: the softmax runs over the tokens of the "data" only, as MTM's negatives are
            those of the field (no other can be the answer, and most work is saved), or over "all".
        mlm_ids: whether MLM reads the ID vector; without it words are recovered from words alone.
        plm_passes: 2, one over the whole sentence and one over the masked; or 1, where masks fall
            on different fields of sentence and IDs, and their masked forms alone serve every loss.
        projection: size of the vectors that ICL compares.
        mtm_size: size of the output embedding of MTM.
        head_dropout: of the new MLM head and of ICL's projections.
    """

    icl: bool = True
    mtm: bool = True
    mlm: bool = True
    text_ratio: float = 0.15
    tabular_ratio: float = 0.15
    text_masking: Literal["field", "token"] = "field"
    together: Literal["nothing", "twins", "determining"] = "nothing"
    mask_id: Literal["reserved", "zero"] = "reserved"
    mask_absent: bool = False
    mtm_context: Literal["attention", "mean"] = "attention"
    attention_scaled: bool = True
    attend_padding: bool = False
    contrast: Literal["cosine", "dot"] = "cosine"
    temperature: PositiveFloat = 0.07
    mtm_loss: Literal["nce", "full"] = "nce"
    noise: Literal["field", "all"] = "field"
    negatives: Size = 25
    mlm_head: Literal["plm", "new"] = "plm"
    mlm_vocabulary: Literal["data", "all"] = "data"
    mlm_ids: bool = True
    plm_passes: Literal[1, 2] = 2
    projection: Size = 128
    mtm_size: Size = 32
    head_dropout: float = Limits(default=0.2, ge=0, lt=1)

    def __post_init__(self) -> None:
        if not (self.icl or self.mtm or self.mlm):
            raise ValueError("Alignment needs at least one of the losses icl, mtm and mlm.")
        for name in ("text_ratio", "tabular_ratio"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(
                    f"alignment.{name} is {getattr(self, name)}; it must lie in (0, 1]."
                )
        if self.plm_passes == 1 and self.text_ratio + self.tabular_ratio > 1:
            raise ValueError(
                "With plm_passes = 1 no field is masked twice, so alignment.text_ratio + "
                f"alignment.tabular_ratio = {self.text_ratio + self.tabular_ratio:g} must be at "
                "most 1."
            )


@checked(frozen=True, config=STRICT)
class TrainingConfig:
    """How a model is trained.

    Attributes:
        epochs: passes over the training split, at most.
        batch: rows of an optimiser step on all processes, unless accumulated.
        rate: AdamW's learning rate of everything but the PLM.
        plm_rate: learning rate of the PLM's encoder; all else, heads too, learns with `rate`.
        weight_decay: AdamW's, decoupled.
        embedding_l2: weight of the squared norm of the ID embeddings in the loss.
        schedule: "constant", or "cosine" down to 0 over all epochs.
        patience: stop after this many epochs without a better AUC and keep the best weights;
            None trains all epochs and keeps the last.
        evaluations: how often an epoch the model is evaluated; early stopping looks at the last.
        select_on: the split whose AUC early stopping watches.
        accumulation: batches whose gradients make one optimiser step.
        precision: "auto" is bf16 on a GPU and fp32 on a CPU, where bf16 is slower.
        compile: the layers of the PLM by torch.compile, and cross layers; takes half a minute at
            the start and needs a C++ compiler, and a run is then not repeatable to the last bit.
        seed: of weights, order, masks and dropout.
        tracker: "tensorboard" to write losses and evaluations for it to artifacts/trackers/; a
            result does not depend on it, nor does a key.
    """

    epochs: Count
    batch: Count
    rate: Amount
    plm_rate: Amount = 5e-5
    weight_decay: Amount = 0.0
    embedding_l2: Amount = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    patience: Count | None = None
    evaluations: Count = 1
    select_on: Literal["validation", "test"] = "validation"
    accumulation: Count = 1
    precision: Literal["auto", "no", "bf16"] = "auto"
    compile: bool = False
    seed: Seed = 0
    tracker: Literal["tensorboard"] | None = None


@checked(frozen=True, config=STRICT)
class Pretraining:
    """Everything that an aligned checkpoint depends on."""

    data: DataConfig
    text: TextConfig
    plm: PlmConfig
    ctr: CtrConfig
    alignment: AlignmentConfig
    training: TrainingConfig


@checked(frozen=True, config=STRICT)
class Finetuning:
    """Everything that a finetuned model depends on; what its variant does not read is None."""

    variant: str
    data: DataConfig
    training: TrainingConfig
    ctr: CtrConfig | None = None
    text: TextConfig | None = None
    plm: PlmConfig | None = None
    alpha: Literal["sigmoid", "free"] | None = None
    pretraining: Pretraining | None = None


@dataclass(frozen=True)
class Variant:
    """What is finetuned, and from which weights.

    Attributes:
        label: how tables and figures call it.
        kind: the model: the ID-based one ("ctr"), the PLM ("lang"), "both", a PLM for each side
            ("towers"), or a T5 that answers ("answer").
        control: the same model from unaligned weights, where this one is aligned.
    """

    label: str
    kind: Literal["ctr", "lang", "both", "towers", "answer"]
    control: str = ""

    @property
    def aligned(self) -> bool:
        """Whether it starts from aligned weights."""
        return bool(self.control)

    @property
    def reads_ids(self) -> bool:
        return self.kind in ("ctr", "both")

    @property
    def reads_text(self) -> bool:
        return self.kind != "ctr"

    @property
    def budget(self) -> str:
        """The entry of `finetuning` that trains it."""
        return self.kind if self.kind in ("ctr", "both") else "lang"

    @property
    def notebook(self) -> str:
        """The one that finetunes it for the main table; empty where it belongs into studies."""
        return MAIN.get(self.kind, "")


MAIN = {"ctr": "04_finetune_ctr", "lang": "05_finetune_lang", "both": "06_finetune_both"}

VARIANTS = {
    "raw": Variant("ID-based model (raw)", "ctr"),
    "alt_ctr": Variant("ALT_ctr", "ctr", control="raw"),
    "plain_lang": Variant("PLM (unaligned)", "lang"),
    "alt_lang": Variant("ALT_lang", "lang", control="plain_lang"),
    "plain_both": Variant("joint (unaligned)", "both"),
    "alt_both": Variant("ALT_both", "both", control="plain_both"),
    "ctr_bert": Variant("CTR-BERT", "towers"),
    "p5": Variant("P5-style T5", "answer"),
}


GONE = {"text": {"tokens": "table"}, "alignment": {"mlm_positions": "masked"}}
"""Entries that there were once, as they stand in the keys of what was made with them."""


def key(*parts: Any) -> str:
    """A short hash of configurations (dataclasses or JSON values)."""
    plain = [with_gone(asdict(p)) if hasattr(p, "__dataclass_fields__") else p for p in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def with_gone(entries: dict[str, Any]) -> dict[str, Any]:
    """A configuration's entries that results depend on, with those of `GONE`, level by level."""
    whole = {}
    for name, value in entries.items():
        if name == "tracker":
            continue
        below = with_gone(value) if isinstance(value, dict) else value
        whole[name] = {**GONE.get(name, {}), **below} if isinstance(below, dict) else below
    return whole
