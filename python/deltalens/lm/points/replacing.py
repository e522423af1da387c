"""Reading and replacing the tensor at a site while the model runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from deltalens.errors import InputError
from deltalens.lm.sites import Site

Replace = Callable[[Tensor], Tensor]


class Visited(NamedTuple):
    """A site's ``value`` [rows, seq, d_model] in a forward pass, and where the model has it from.

    ``carrier`` is the model's own tensor, of which a change counts ``scale`` times in the value.
    """

    value: Tensor
    carrier: Tensor
    scale: float


Visit = Callable[[Visited], Tensor]


def replacing(site: Site, replace: Replace) -> AbstractContextManager[None]:
    """Within the context the site's tensor [rows, seq, d_model] is ``replace(tensor)``.

    Where ``replace`` returns the tensor it was given, nothing changes, to the last bit. Raises
    :class:`InputError` in the forward pass of a model with several residual streams.
    """
    return visiting(site, lambda visited: replace(visited.value))


@contextmanager
def visiting(site: Site, visit: Visit) -> Iterator[None]:
    """As :func:`replacing`, for those who want to know what the site's tensor is made of."""

    def checked(visited: Visited) -> Tensor:
        _check_shape(site, visited.value)
        return visit(visited)

    handles = _HOOKS[site.kind](site, checked)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _check_shape(site: Site, hidden: Tensor) -> None:
    if hidden.ndim != 3 or hidden.shape[-1] != site.d_model:
        raise InputError(
            f"{type(site.module).__name__} has {list(hidden.shape)} at {site.name}, not "
            f"[rows, tokens, {site.d_model}]: models with several residual streams have no sites"
        )


def _block_input(site: Site, visit: Visit) -> list[RemovableHandle]:
    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (visit(_itself(args[0])), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": visit(_itself(kwargs["hidden_states"]))}

    return [site.module.register_forward_pre_hook(before, with_kwargs=True)]


def _block_output(site: Site, visit: Visit) -> list[RemovableHandle]:
    def after(module: nn.Module, args: Any, output: Any) -> Any:
        return _with_first(output, visit(_itself(_first(output))))

    return [site.module.register_forward_hook(after)]


def _itself(hidden: Tensor) -> Visited:
    return Visited(hidden, hidden, 1)


def _part_output(site: Site, visit: Visit) -> list[RemovableHandle]:
    """The site is what a part adds: its output, which may be flat, times its factor."""

    def at_part(hidden: Tensor, output: Tensor, scale: float) -> Tensor:
        value = output.reshape(hidden.shape)
        value = value if scale == 1 else scale * value
        new = visit(Visited(value, output, scale))
        if new is value:
            return output
        if scale == 1:
            # A copy, for blocks that add to it in place.
            return new.to(output).clone().reshape(output.shape)
        return _shifted(output, (new - value) / scale)

    return _at_part(site, at_part)


def _between(site: Site, visit: Visit) -> list[RemovableHandle]:
    """The site is block input + attention: attention's output makes up the difference.

    So the MLP and the sum after it see the same, and with it no graph but that above the site.
    """

    def at_part(hidden: Tensor, output: Tensor, scale: float) -> Tensor:
        value = output.reshape(hidden.shape)
        value = hidden.to(value.device) + (value if scale == 1 else scale * value)
        new = visit(Visited(value, output, scale))
        return output if new is value else _shifted(output, (new - value) / scale)

    return _at_part(site, at_part)


def _shifted(output: Tensor, by: Tensor) -> Tensor:
    """Exactly ``output`` where the shift is zero."""
    return output + by.to(output).reshape(output.shape)


def _at_part(
    site: Site, at_part: Callable[[Tensor, Tensor, float], Tensor]
) -> list[RemovableHandle]:
    """The part's output becomes ``at_part(block input, output, factor)``."""
    assert site.part is not None
    scale = site.part.scale
    inputs: list[Tensor] = []

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs[:] = [args[0] if args else kwargs["hidden_states"]]

    def after(module: nn.Module, args: Any, output: Any) -> Any:
        return _with_first(output, at_part(inputs.pop(), _first(output), scale))

    return [
        site.module.register_forward_pre_hook(before, with_kwargs=True),
        site.module.get_submodule(site.part.path).register_forward_hook(after),
    ]


def _first(output: Any) -> Any:
    """Blocks of transformers 4 return (hidden, …) or a list of it, attention (output, weights)."""
    return output[0] if isinstance(output, (tuple, list)) else output


def _with_first(output: Any, hidden: Tensor) -> Any:
    if hasattr(output, "_replace"):  # a named tuple
        return output._replace(**{output._fields[0]: hidden})
    if isinstance(output, (tuple, list)):
        return type(output)([hidden, *output[1:]])
    return hidden


_HOOKS: dict[str, Callable[[Site, Visit], list[RemovableHandle]]] = {
    "hook_resid_pre": _block_input,
    "hook_resid_mid": _between,
    "hook_resid_post": _block_output,
    "hook_attn_out": _part_output,
    "hook_mlp_out": _part_output,
}
