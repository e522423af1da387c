"""SAEs in memory. That SAELens's own objects encode so is tested in tests_interop."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import deltalens
from deltalens.errors import InputError
from deltalens.sae import save_saelens
from deltalens.sae.encoding import TopK

D_IN, D_SAE, K = 6, 6, 2
METADATA = {"hook_name": "blocks.3.hook_resid_post", "model_name": "gpt2"}


class LikeSAELens(nn.Module):
    """What of a SAELens TopK SAE is looked at."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        torch.manual_seed(0)
        for name, shape in (
            ("W_enc", (D_IN, D_SAE)),
            ("b_enc", (D_SAE,)),
            ("W_dec", (D_SAE, D_IN)),
            ("b_dec", (D_IN,)),
        ):
            self.register_parameter(name, nn.Parameter(torch.randn(shape, dtype=dtype)))
        cfg = {"architecture": "topk", "k": K, "apply_b_dec_to_input": True, "d_in": D_IN}
        self.cfg = SimpleNamespace(to_dict=lambda: {**cfg, "metadata": METADATA})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_object_is_what_its_checkpoint_is(tmp_path: Path, dtype: torch.dtype) -> None:
    source = LikeSAELens(dtype)
    tensors: dict[str, Any] = dict(source.named_parameters())
    save_saelens(tmp_path / "sae", **tensors, cfg={"k": K, "metadata": METADATA})
    stored, live = deltalens.load_sae(tmp_path / "sae"), deltalens.as_sae(source)
    assert (live.format, live.site, live.model_name) == ("saelens", stored.site, "gpt2")
    assert torch.equal(live.W_dec.rows(0, D_SAE), stored.W_dec.rows(0, D_SAE))
    mine, theirs = live.encoding, stored.encoding
    assert torch.equal(mine.W_enc.rows(0, D_SAE), theirs.W_enc.rows(0, D_SAE))
    assert mine.activation == theirs.activation == TopK(K)
    assert mine.b_enc is not None
    assert torch.equal(mine.b_enc, source.b_enc.detach().float())
    assert torch.equal(mine.b_dec, theirs.b_dec)
    assert mine.subtract_b_dec


def test_the_fingerprint_is_of_the_tensors() -> None:
    source = LikeSAELens()
    first = deltalens.as_sae(source).fingerprint
    assert deltalens.as_sae(LikeSAELens()).fingerprint == first
    with torch.no_grad():
        source.b_dec[0] += 1
    assert deltalens.as_sae(source).fingerprint != first


def test_an_sae_stays_itself_and_others_are_refused() -> None:
    sae = deltalens.as_sae(LikeSAELens())
    assert deltalens.as_sae(sae) is sae
    with pytest.raises(InputError, match="got Tensor"):
        deltalens.as_sae(torch.zeros(2, 2))
