"""What the commands are run on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from deltalens.pairs import write_pairs
from deltalens.sae import save_saelens
from helpers.command_line import N_LATENTS
from helpers.tiny_study import D_MODEL, SITE, make_model, make_pairs, make_tokenizer


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a model, an SAE, pairs and texts."""
    root = tmp_path_factory.mktemp("inputs")
    model, tokenizer = make_model(), make_tokenizer()
    model.save_pretrained(root / "model")
    tokenizer.save_pretrained(root / "model")
    generator = torch.Generator().manual_seed(0)
    W_dec = torch.randn(N_LATENTS, D_MODEL, generator=generator)
    save_saelens(
        root / "sae",
        W_enc=W_dec.T.contiguous(),
        b_enc=torch.zeros(N_LATENTS),
        W_dec=W_dec,
        b_dec=torch.zeros(D_MODEL),
        cfg={
            "k": 4,
            "metadata": {"hook_name": f"blocks.{SITE}.hook_resid_post", "model_name": "tiny"},
        },
    )
    np.save(root / "wide.npy", np.ones((20, D_MODEL + 1), dtype=np.float32))
    write_pairs(root / "pairs.jsonl", make_pairs(7))
    (root / "texts.txt").write_text("w1 w2 w3\n\nw4 w5 w6 w7\n")
    return root
