"""How well each latent's activation tells a behaviour apart on texts that the study never saw."""

from deltalens.study.detection.detect import detect
from deltalens.study.detection.result import Detection

__all__ = ["Detection", "detect"]
