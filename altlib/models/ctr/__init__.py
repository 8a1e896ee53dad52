"""ID-based models (backbones): those of section 4.1 of arXiv 2310.19453, and FinalMLP.

Ids are global: each field has its own range of rows in one embedding table.
"""

from altlib.config import CtrConfig
from altlib.models.ctr.afm import AFM
from altlib.models.ctr.afn import AFN
from altlib.models.ctr.autoint import AutoInt
from altlib.models.ctr.dcn import DCN
from altlib.models.ctr.dcnv2 import DCNFull, DCNMix
from altlib.models.ctr.deepfm import DeepFM
from altlib.models.ctr.finalmlp import FinalMLP
from altlib.models.ctr.layers import IdModel
from altlib.models.ctr.pnn import PNN
from altlib.models.ctr.widedeep import WideDeep
from altlib.models.ctr.xdeepfm import XDeepFM

__all__ = ["MODELS", "IdModel", "build"]

MODELS: dict[str, type[IdModel]] = {
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


def build(config: CtrConfig, features: int, fields: int) -> IdModel:
    """Makes the model that `config.backbone` names; arguments are those of `IdModel`."""
    return MODELS[config.backbone](config, features, fields)
