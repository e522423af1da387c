"""The baseline ā: the mean activation that ablation puts in a latent's place."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.lm import Site
from deltalens.lm.points.names import saved_name
from deltalens.lm.several import Asked
from deltalens.sae import as_sae
from deltalens.storage.atomic import write_tensors
from deltalens.storage.json_text import parse_json


@dataclass(frozen=True)
class Baseline:
    """ā [d_model] in fp64, with where it came from.

    ``tokens`` is the number of tokens averaged over, ``site`` the name of where they were read,
    such as ``blocks.12.hook_resid_post`` (None: any site), ``provenance`` what
    :func:`mean_activation` recorded, ``median_norm`` the site's median ‖a‖, against which attention
    sinks are told (None: not known). ``latent_mean`` is z̄ fp64 [n_latents], the mean over the same
    tokens of the latents of the SAE whose fingerprint ``sae`` is; both None where none was encoded
    with.
    """

    mean: Tensor
    tokens: int
    site: str | None
    provenance: dict[str, Any] = field(default_factory=dict)
    latent_mean: Tensor | None = None
    sae: str | None = None
    median_norm: float | None = None

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

    def latent_mean_of(self, source: Any) -> Tensor:
        """z̄ fp64 [n_latents] of the SAE ``source``, ours or a SAELens object.

        Raises :class:`InputError` when the baseline holds none, or that of another SAE.
        """
        if self.latent_mean is None:
            raise InputError(
                "the baseline holds no mean of the latents; make one with "
                "`deltalens baseline --sae SAE`"
            )
        if as_sae(source).fingerprint != self.sae:
            raise InputError(
                f"the baseline's mean of {len(self.latent_mean)} latents is of another SAE; "
                "make it with `deltalens baseline --sae` of this one"
            )
        return self.latent_mean

    def save(self, path: str | Path) -> None:
        """Write a safetensors file: the tensor ``mean``, ``latent_mean`` if any, and metadata."""
        metadata = {
            "tokens": self.tokens,
            "site": self.site,
            "provenance": self.provenance,
            "median_norm": self.median_norm,
        }
        tensors = {"mean": self.mean}
        if self.latent_mean is not None:
            metadata["sae"] = self.sae
            tensors["latent_mean"] = self.latent_mean
        write_tensors(Path(path), tensors, {"baseline": json.dumps(metadata)})

    @classmethod
    def load(cls, path: str | Path) -> Baseline:
        """Read what :meth:`save` wrote; :class:`InputError` for any other file."""
        tensors, text = _read(Path(path))
        try:
            said = parse_json(text)
            return cls(
                tensors["mean"],
                said["tokens"],
                said["site"] and saved_name(said["site"]),
                said["provenance"],
                tensors.get("latent_mean"),
                said.get("sae"),
                said.get("median_norm"),
            )
        except Exception as error:  # a damaged file fails in many ways
            raise InputError(f"the baseline {path} is damaged: {error}; make it again") from error


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


def baselines_of(asked: Asked, baseline: Any) -> list[Baseline]:
    """One for each site that was asked for: the same for all, or as :meth:`Asked.each` takes it."""
    if isinstance(baseline, (Baseline, Tensor)):
        return [as_baseline(baseline)] * len(asked.names)
    return list(map(as_baseline, asked.each(baseline, "baseline")))


def check_baseline(baseline: Baseline, site: Site) -> None:
    """The baseline was measured where it is to be used."""
    if baseline.d_model != site.d_model:
        raise InputError(
            f"the baseline has d_model {baseline.d_model} but {site.name} has {site.d_model}; "
            "compute it on this model"
        )
    if baseline.site is not None and saved_name(baseline.site) != site.name:
        raise InputError(
            f"the baseline was measured at {baseline.site} but the site is {site.name}; "
            "compute it there or change the site"
        )


def _read(path: Path) -> tuple[dict[str, Tensor], str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("baseline")
            if text is None or "mean" not in file.keys():  # noqa: SIM118 - not a mapping
                raise InputError(
                    f"{path} is no saved baseline: found tensors {sorted(file.keys())}; "
                    "make one with `deltalens baseline`"
                )
            return {name: file.get_tensor(name) for name in file.keys()}, text  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read the baseline {path}: {error}; check the file") from error
