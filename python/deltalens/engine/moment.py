"""The cross moment S, and decoders scanned with one or several of them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from deltalens.engine.decoder import Decoder
from deltalens.engine.problem import moment_problem
from deltalens.engine.scan import full_scores, top_latents
from deltalens.engine.sums.moment import MomentSums
from deltalens.engine.topk.ranking import Ranking, TopLatents


class CrossMoment(MomentSums):
    """S = −sym(Σ_t w_t γ_t (a_t − ā)ᵀ) over any number of calls, as accurate as in fp64.

    Every latent's score is then d_iᵀ S d_i, so a study is accumulated once and any number of
    decoders are scanned. Memory is d_model² doubles, whatever the number of tokens, and on devices
    whose fp64 is slow one block of rows.
    """

    def topk(
        self,
        W_dec: Tensor | Decoder,
        k: int = 100,
        *,
        largest: bool = True,
        absolute: bool = False,
        present_only: bool = False,
        normalize: bool = False,
        impl: str = "auto",
    ) -> TopLatents:
        """The k latents with the largest score; see :func:`scan_moments` for the options."""
        return scan_moments(
            [self],
            W_dec,
            k,
            largest=largest,
            absolute=absolute,
            present_only=present_only,
            normalize=normalize,
            impl=impl,
        )[0]

    def scores(
        self, W_dec: Tensor | Decoder, *, normalize: bool = False, impl: str = "auto"
    ) -> Tensor:
        """Every latent's score, float32 [n_latents]; NaN (and one warning) for non-finite rows."""
        return full_scores(moment_problem([self], W_dec, impl), normalize=normalize)[0]


def scan_moments(
    moments: Sequence[CrossMoment],
    W_dec: Tensor | Decoder,
    k: int = 100,
    *,
    largest: bool = True,
    absolute: bool = False,
    present_only: bool = False,
    normalize: bool = False,
    impl: str = "auto",
) -> list[TopLatents]:
    """Top-k of several moments in a single pass over the decoder.

    W_dec: [n_latents, d_model] or a :class:`Decoder`. ``largest=False`` returns the most negative
    scores, most negative first; ``absolute`` ranks by ``|score|``; ``present_only`` admits latents
    with positive presence only (fewer than k may remain); ``normalize`` divides each score by
    ‖d_i‖², which is the score of the unit row. Memory beyond the inputs is one tile, d_model² per
    moment, and O(k).

    Raises :class:`InputError` for k outside 1 … n_latents, a decoder of another width, or an
    implementation that is not available.
    """
    ranking = Ranking(largest=largest, absolute=absolute, present_only=present_only)
    return top_latents(moment_problem(moments, W_dec, impl), k, ranking, normalize=normalize)
