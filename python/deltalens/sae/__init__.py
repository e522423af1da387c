"""SAE checkpoints on disk: decoder rows, whatever the format."""

from __future__ import annotations

from deltalens.sae.checkpoint import SAE
from deltalens.sae.encoder import Encoder
from deltalens.sae.encoding import Encoding
from deltalens.sae.latent_attribution import latent_attribution, latent_attribution_topk
from deltalens.sae.load import load_sae
from deltalens.sae.objects import as_sae
from deltalens.sae.save import save_saelens

__all__ = [
    "SAE",
    "Encoder",
    "Encoding",
    "as_sae",
    "latent_attribution",
    "latent_attribution_topk",
    "load_sae",
    "save_saelens",
]
