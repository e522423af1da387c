"""RelP as a provider of gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deltalens.lm.forward import Loss
from deltalens.lm.gradients.providers import BatchGradients, Provider, SiteBatch, plain_gradients
from deltalens.lm.gradients.relp.patches import Rules


def relp_gradients(model: Any, *, fixed_attention: bool) -> Provider:
    """Gradients of each row's loss at every site under the rules of this room.

    Only what lies above a site has a gradient, and so a rule. Raises :class:`InputError` for a
    model of which a part has none.
    """
    rules = Rules(model)

    def provider(model: Any, at: Sequence[SiteBatch], loss: Loss) -> list[BatchGradients]:
        with rules.held(attention=fixed_attention):
            return plain_gradients(model, at, loss)

    return provider
