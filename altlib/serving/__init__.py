"""From a finetuned run to probabilities in a millisecond; `Predictor` needs no PyTorch."""

from altlib.serving.predictor import Predictor

__all__ = ["Predictor"]
