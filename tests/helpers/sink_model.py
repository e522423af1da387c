"""A small random GPT-2 with attention sinks: whatever comes first, and one token wherever it is."""

from __future__ import annotations

import torch
from transformers import GPT2Config, GPT2LMHeadModel

VOCABULARY, WIDTH, LAYERS, SITE = 60, 32, 3, 1
SINK = 7  # the token of massive norm
SINK_NORM = 6000.0  # of their embeddings; those of others are about √WIDTH


def make_sink_model(seed: int = 0) -> GPT2LMHeadModel:
    """Float64. Position 0 and the token :data:`SINK` have embeddings in one massive direction."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=4,
        n_positions=48,
        tie_word_embeddings=False,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    model = GPT2LMHeadModel(config).double().eval()
    massive = torch.randn(WIDTH, dtype=torch.float64)
    massive *= SINK_NORM / massive.norm()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 1 if name.endswith("wte.weight") else 0.3)
        model.transformer.wpe.weight[0] += massive
        model.transformer.wte.weight[SINK] += massive
    return model
