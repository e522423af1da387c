"""Our reading of an SAE beside the library's own object."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from deltalens.sae import SAE
from deltalens.sae.encoder import Encoder

TOKENS = 41
WIDTHS = ((12, 40), (16, 16))  # d_model, latents; the square one has no orientation to guess from
TOLERANCE = 1e-5


class Compared:
    """Assertions that are counted."""

    def __init__(self, count: Callable[[], None]) -> None:
        self._count = count

    def equal(self, ours: object, theirs: object) -> None:
        if isinstance(ours, Tensor) and isinstance(theirs, Tensor):
            assert ours.dtype == theirs.dtype
            assert torch.equal(ours, theirs.detach())
        else:
            assert ours == theirs
        self._count()

    def close(self, ours: Tensor, theirs: Tensor) -> None:
        """To 1e-5 of the largest value: both sides round in fp32, in different orders."""
        theirs = theirs.detach().float()
        assert ours.shape == theirs.shape
        largest = float(theirs.abs().max())
        assert largest > 0, "a comparison with zeros shows nothing"
        assert float((ours.float() - theirs).abs().max()) <= TOLERANCE * largest
        self._count()

    def latents(self, ours: Tensor, theirs: Tensor) -> None:
        """As :meth:`close`, active at the same places, and neither everywhere nor nowhere."""
        active = theirs.detach() != 0
        assert 0 < int(active.sum()) < active.numel()
        assert torch.equal(ours != 0, active)
        self.close(ours, theirs)

    def sae(
        self,
        sae: SAE,
        acts: Tensor,
        W_dec: Tensor,
        z: Tensor,
        rebuilt: Tensor,
    ) -> None:
        """Decoder rows, latents (all, and some by themselves) and reconstruction of ``acts``."""
        encoder = Encoder(sae.encoding, sae.W_dec)
        self.equal(sae.W_dec.rows(0, sae.W_dec.n_latents), W_dec)
        mine = encoder.encode(acts)
        self.latents(mine, z)
        some = z.amax(dim=0).topk(3).indices
        self.close(encoder.encode_selected(acts, some), z[:, some])
        self.close(encoder.decode(mine, acts), rebuilt)
        self.close(encoder.reconstruct(acts), rebuilt)


def randomise(module: nn.Module, scale: float = 0.3) -> None:
    """Every parameter random: zeros, tied weights and unit norms hide errors."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape) * scale)


def sample(width: int) -> Tensor:
    """Activations [tokens, width] with a mean and a scale of their own."""
    return torch.randn(TOKENS, width) * 2 + 0.5
