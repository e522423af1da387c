"""GPU kernels in Triton, installed as ``deltalens.kernels``."""

from deltalens.kernels.latent_attribution import latent_attribution
from deltalens.kernels.quadratic_form import fold_symmetric, quadratic_form
from deltalens.kernels.streaming_topk import StreamingTopK
from deltalens.kernels.token_attribution import token_attribution

__all__ = [
    "StreamingTopK",
    "fold_symmetric",
    "latent_attribution",
    "quadratic_form",
    "token_attribution",
]
