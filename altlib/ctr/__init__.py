"""ID-based models (backbones): those of section 4.1 of arXiv 2310.19453, and FinalMLP.

Ids are global: each field has its own range of rows in one embedding table.
"""

from difflib import get_close_matches

from altlib.ctr.afm import AFM
from altlib.ctr.afn import AFN
from altlib.ctr.autoint import AutoInt
from altlib.ctr.dcn import DCN
from altlib.ctr.dcnv2 import DCNFull, DCNMix
from altlib.ctr.deepfm import DeepFM
from altlib.ctr.finalmlp import FinalMLP
from altlib.ctr.layers import CtrConfig, IdModel
from altlib.ctr.pnn import PNN
from altlib.ctr.widedeep import WideDeep
from altlib.ctr.xdeepfm import XDeepFM

__all__ = ["BACKBONES", "NAMES", "CtrConfig", "IdModel", "build"]

BACKBONES: dict[str, type[IdModel]] = {
    "afm": AFM,
    "pnn": PNN,
    "widedeep": WideDeep,
    "dcn": DCN,
    "deepfm": DeepFM,
    "xdeepfm": XDeepFM,
    "afn": AFN,
    "autoint": AutoInt,
    "dcnv2": DCNMix,
    "dcnv2-full": DCNFull,
    "finalmlp": FinalMLP,
}

NAMES = {
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
"""How tables and figures call a backbone."""


def build(config: CtrConfig, features: int, fields: int) -> IdModel:
    """Makes the model that `config.backbone` names.

    Args:
        config: backbone and sizes.
        features: rows of the embedding table, reserved ids included.
        fields: F, ids in a row.

    Returns:
        A model with `forward(ids [B, F]) -> (representation [B, R], logit [B])`.

    Raises:
        ValueError: no such backbone.
    """
    if config.backbone not in BACKBONES:
        near = get_close_matches(config.backbone, BACKBONES, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"There is no backbone '{config.backbone}'; did you mean '{near}'? "
            f"Known are {', '.join(BACKBONES)}."
        )
    return BACKBONES[config.backbone](config, features, fields)
