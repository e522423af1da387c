"""From text to rows: activations, gradients, edited losses and steered text of language models.

Imports the engine at most, never ``deltalens.sae``.
"""

from deltalens.lm.activations import activations
from deltalens.lm.capture import capture
from deltalens.lm.gradients.pair_rows import PairRows
from deltalens.lm.pairs import Pair, pair_label
from deltalens.lm.rows import RowBatch, TokenRow
from deltalens.lm.sampling.api import GENERATION_TOKENS, sample, sample_stream
from deltalens.lm.sinks import LeftOut, Sifted, Sinks, without_sinks
from deltalens.lm.sites import Site, is_site, resolve_site
from deltalens.lm.steering import steering
from deltalens.lm.targets.losses import completion_losses
from deltalens.lm.text.encoded import EncodedPair
from deltalens.lm.tokenise import encode_pair, encode_pairs, find_bos

__all__ = [
    "GENERATION_TOKENS",
    "EncodedPair",
    "LeftOut",
    "Pair",
    "PairRows",
    "RowBatch",
    "Sifted",
    "Sinks",
    "Site",
    "TokenRow",
    "activations",
    "capture",
    "completion_losses",
    "encode_pair",
    "encode_pairs",
    "find_bos",
    "is_site",
    "pair_label",
    "resolve_site",
    "sample",
    "sample_stream",
    "steering",
    "without_sinks",
]
