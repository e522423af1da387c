"""The baseline ā: the mean activation that ablation puts in a latent's place."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.study.atomic import write_tensors


@dataclass(frozen=True)
class Baseline:
    """ā [d_model] in fp64, with where it came from.

    ``tokens`` is the number of tokens averaged over, ``site`` the module path they were read at
    (None: any site), ``provenance`` what :func:`mean_activation` recorded.
    """

    mean: Tensor
    tokens: int
    site: str | None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.mean.ndim != 1 or not self.mean.is_floating_point():
            raise InputError(
                f"a baseline is a floating-point vector [d_model], got {self.mean.dtype} "
                f"{list(self.mean.shape)}"
            )
        if not bool(torch.isfinite(self.mean).all()):
            raise InputError("the baseline has NaN or infinite elements; compute it again")
        object.__setattr__(self, "mean", self.mean.detach().to("cpu", torch.float64))

    @classmethod
    def zero(cls, d_model: int) -> Baseline:
        """ā = 0: ablation removes the direction instead of averaging it."""
        return cls(torch.zeros(d_model, dtype=torch.float64), 0, None, {"source": "zero"})

    @property
    def d_model(self) -> int:
        return self.mean.shape[0]

    def save(self, path: str | Path) -> None:
        """Write a safetensors file with the tensor ``mean`` and the rest as metadata."""
        metadata = {"tokens": self.tokens, "site": self.site, "provenance": self.provenance}
        write_tensors(Path(path), {"mean": self.mean}, {"baseline": json.dumps(metadata)})

    @classmethod
    def load(cls, path: str | Path) -> Baseline:
        """Read what :meth:`save` wrote; :class:`InputError` for any other file."""
        mean, text = _read(Path(path))
        metadata = json.loads(text)
        return cls(mean, metadata["tokens"], metadata["site"], metadata["provenance"])


def as_baseline(baseline: Baseline | Tensor) -> Baseline:
    """A bare vector [d_model] as a baseline of unstated origin."""
    if isinstance(baseline, Baseline):
        return baseline
    if isinstance(baseline, Tensor):
        return Baseline(baseline, 0, None, {"source": "tensor"})
    raise InputError(
        f"baseline must be a Baseline or a tensor [d_model], got {type(baseline).__name__}; "
        "use Baseline.zero(d_model) for none"
    )


def check_baseline(baseline: Baseline, d_model: int, site: str) -> None:
    """The baseline was measured where it is to be used."""
    if baseline.d_model != d_model:
        raise InputError(
            f"the baseline has d_model {baseline.d_model} but {site} has {d_model}; "
            "compute it on this model"
        )
    if baseline.site is not None and baseline.site != site:
        raise InputError(
            f"the baseline was measured at {baseline.site} but the site is {site}; "
            "compute it there or change the site"
        )


def _read(path: Path) -> tuple[Tensor, str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("baseline")
            if text is None or "mean" not in file.keys():  # noqa: SIM118 - not a mapping
                raise InputError(
                    f"{path} is no saved baseline: found tensors {sorted(file.keys())}; "
                    "make one with `deltalens baseline`"
                )
            return file.get_tensor("mean"), text
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read the baseline {path}: {error}; check the file") from error
