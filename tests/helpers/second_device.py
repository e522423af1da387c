"""A second device for machines that have none: tensors there refuse to meet those of the CPU.

It computes on the CPU, but says that it is elsewhere, and raises as a GPU does where an operation
gets tensors of both, so that what crosses devices unasked is found. It belongs to a process of its
own: once registered, torch takes it for an accelerator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "elsewhere"
COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
INDEXED = (  # a GPU takes indices that are on the CPU, too
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put_.default,
    torch.ops.aten.index_put.default,
)


class ElsewhereTensor(Tensor):
    """A tensor of the second device; ``held`` has its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor, requires_grad: bool = False) -> ElsewhereTensor:
        held = held.held if isinstance(held, ElsewhereTensor) else held
        made: ElsewhereTensor = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
            requires_grad=requires_grad,
        )
        made.held = held
        return made

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def tolist(self) -> Any:
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})


class TwoDevices(TorchDispatchMode):
    """Within the context operations on CPU tensors, too, look at where their arguments are."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})


def register() -> None:
    """Make the device known to torch."""
    _setup_privateuseone_for_python_backend(NAME)
    # What torch asks where autocast is turned off for the device, as transformers 4 does: no type.
    vars(torch.get_device_module(NAME))["get_amp_supported_dtype"] = list
    library = torch.library.Library("aten", "IMPL")
    for name, made in (
        ("empty.memory_format", _empty),
        ("empty_strided", _empty_strided),
        ("_copy_from", _copy_from),
    ):
        library.impl(name, made, "PrivateUse1")
    _KEPT.append(library)


_KEPT: list[Any] = []  # what a library registered goes with it


def _run(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    with TwoDevices():  # inference mode leaves it to us to take composite operations apart
        parts = func.decompose(*args, **kwargs)
    return _run_whole(func, args, kwargs) if parts is NotImplemented else parts


def _run_whole(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    compared = tree_leaves((args[0], args[2:])) if func in INDEXED else tensors
    places = {leaf.device.type for leaf in compared if isinstance(leaf, Tensor) and leaf.ndim > 0}
    if len(places) > 1 and func not in COPIES:
        raise RuntimeError(f"{func}: tensors on {' and '.join(sorted(places))}")
    elsewhere = _result_is_elsewhere(func, args, kwargs, places or {t.device.type for t in tensors})
    plain_args, plain_kwargs = tree_map(_held, (args, kwargs))
    known = {id(t.held): t for t in tensors if isinstance(t, ElsewhereTensor)}

    def wrapped(value: Any) -> Any:
        if not elsewhere or not isinstance(value, Tensor):
            return value
        return known[id(value)] if id(value) in known else ElsewhereTensor(value)

    return tree_map(wrapped, func(*plain_args, **plain_kwargs))


def _result_is_elsewhere(
    func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], places: set[str]
) -> bool:
    if func is torch.ops.aten.copy_.default:
        return isinstance(args[0], ElsewhereTensor)
    if kwargs.get("device") is not None:
        return torch.device(kwargs["device"]).type == NAME
    return NAME in places


def _held(value: Any) -> Any:
    if isinstance(value, ElsewhereTensor):
        return value.held
    if isinstance(value, torch.device) and value.type == NAME:
        return torch.device("cpu")
    return value


def _empty(size: Sequence[int], *, dtype: Any = None, **_: Any) -> Tensor:
    return ElsewhereTensor(torch.empty(size, dtype=dtype))


def _empty_strided(
    size: Sequence[int], stride: Sequence[int], *, dtype: Any = None, **_: Any
) -> Tensor:
    return ElsewhereTensor(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    _held(target).copy_(_held(source))
    return target
