"""The pickle in a torch file, read into descriptions of tensors and plain values.

Nothing that a pickle names is imported or called: a handful of names have meanings here, and all
others are refused. Reading takes time and memory in proportion to the pickle's bytes.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from deltalens.errors import InputError, quoted

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
DEEPEST = 100
KEYS = (str, int, float, type(None))
# Containers are made here, classes and extensions never; sets hash what may be nested without end.
REFUSED_OPCODES = (
    pickle.INST,
    pickle.OBJ,
    pickle.NEWOBJ,
    pickle.NEWOBJ_EX,
    pickle.EXT1,
    pickle.EXT2,
    pickle.EXT4,
    pickle.EMPTY_SET,
    pickle.ADDITEMS,
    pickle.FROZENSET,
    pickle.BYTEARRAY8,
    pickle.NEXT_BUFFER,
    pickle.READONLY_BUFFER,
)


class Storage(NamedTuple):
    """The record ``key`` of the archive: ``numbers`` numbers of ``dtype``."""

    key: str
    dtype: torch.dtype
    numbers: int


class Strided(NamedTuple):
    """A tensor: ``shape`` numbers of a storage, ``strides`` apart, from number ``start`` on."""

    storage: Storage
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Unread(NamedTuple):
    """A tensor of a kind that is not read, and why."""

    reason: str


def read_state(content: bytes) -> dict[Any, Any]:
    """The dict in a pickle: :class:`Strided` and :class:`Unread` tensors, and plain values.

    Raises :class:`InputError`, without the file's name, for a pickle of anything else.
    """
    try:
        state = _Reader(io.BytesIO(content)).load()
    except InputError:
        raise
    except Exception as error:  # a damaged pickle fails in many ways
        raise InputError(f"damaged ({type(error).__name__} in its pickle)") from None
    if not isinstance(state, dict):
        raise InputError(f"holds a {type(state).__name__}, not a dict of tensors")
    _check_depth(state)
    return state


class _Dict(dict[Any, Any]):
    """Keeps nothing of the attributes that a pickled OrderedDict has."""

    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(key, KEYS):
            raise InputError(f"damaged: a {type(key).__name__} is a key in it")
        super().__setitem__(key, value)

    def __setstate__(self, state: Any) -> None:
        pass


class _Call:
    """A name in a pickle, which may be called and nothing else."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise InputError("damaged: its pickle changes a function")


def _dict(*items: Any) -> _Dict:
    made = _Dict()
    for key, value in items[0] if items else ():
        made[key] = value
    return made


def _tensor(storage: Any, start: Any, shape: Any, strides: Any, *further: Any) -> Strided | Unread:
    """further: whether a gradient is wanted, hooks, and what is known of a view."""
    marks = further[2] if len(further) > 2 else None
    return _strided(storage, start, shape, strides, marks)


def _tensor_of_dtype(
    storage: Any, start: Any, shape: Any, strides: Any, wanted: Any, hooks: Any, *dtype: Any
) -> Unread:
    return Unread(f"numbers of {quoted(dtype[0] if dtype else None)}")


def _strided(storage: Any, start: Any, shape: Any, strides: Any, marks: Any) -> Strided | Unread:
    if isinstance(storage, Unread):
        return storage
    sizes = [start, *shape, *strides]
    whole = all(type(size) is int and 0 <= size < 1 << 62 for size in sizes)
    if not isinstance(storage, Storage) or not whole or len(shape) != len(strides):
        raise InputError("damaged: a tensor in it has no shape")
    if marks:
        return Unread(f"a view with {quoted(marks)}")
    return Strided(storage, start, tuple(shape), tuple(strides))


def _parameter(data: Any, *further: Any) -> Strided | Unread:
    if not isinstance(data, Strided | Unread):
        raise InputError("damaged: a parameter in it is no tensor")
    return data


def _unread(kind: str) -> Callable[..., Unread]:
    return lambda *args: Unread(f"a {kind} tensor")


_TORCH = "torch._utils"
_NAMES: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _Call(_dict),
    ("torch", "Size"): _Call(lambda sizes: tuple(sizes)),
    ("torch.serialization", "_get_layout"): _Call(lambda name: name),
    (_TORCH, "_rebuild_tensor"): _Call(_tensor),
    (_TORCH, "_rebuild_tensor_v2"): _Call(_tensor),
    (_TORCH, "_rebuild_tensor_v3"): _Call(_tensor_of_dtype),
    (_TORCH, "_rebuild_parameter"): _Call(_parameter),
    (_TORCH, "_rebuild_parameter_with_state"): _Call(_parameter),
    (_TORCH, "_rebuild_sparse_tensor"): _Call(_unread("sparse")),
    (_TORCH, "_rebuild_nested_tensor"): _Call(_unread("nested")),
    (_TORCH, "_rebuild_qtensor"): _Call(_unread("quantised")),
    (_TORCH, "_rebuild_meta_tensor_no_storage"): _Call(_unread("meta")),
}


class _Reader(pickle._Unpickler):
    dispatch = {  # noqa: RUF012
        code: step
        for code, step in pickle._Unpickler.dispatch.items()
        if code not in {opcode[0] for opcode in REFUSED_OPCODES}
    }

    def find_class(self, module: str, name: str) -> Any:
        """The meaning of a name that a pickle may hold."""
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if module in ("torch", "torch.storage") and name.endswith("Storage"):
            return Unread(f"numbers in a {quoted(name)}")
        found = _NAMES.get((module, name))
        if found is None and module == "torch":
            found = _named(name)
        if found is None:
            what = quoted(f"{module}.{name}")[1:-1]
            raise InputError(
                f"refused: it pickles more than tensors ({what}); save the state dict alone"
            )
        return found

    def persistent_load(self, pid: Any) -> Storage | Unread:
        """The storage that an archive's pickle names."""
        kind, dtype, key, _, count = pid
        if isinstance(dtype, Unread):
            return dtype
        whole = type(count) is int and 0 <= count < 1 << 62
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not whole:
            raise InputError("damaged: a storage in it has no size")
        return Storage(str(key), dtype, count)

    def load_empty_dictionary(self) -> None:
        self.append(_Dict())  # type: ignore[attr-defined]

    dispatch[pickle.EMPTY_DICT[0]] = load_empty_dictionary  # type: ignore[assignment]


def _named(name: str) -> Any:
    """A dtype or layout, which some tensors are described with."""
    found = getattr(torch, name, None) if name.isidentifier() else None
    return found if isinstance(found, torch.dtype | torch.layout) else None


def _check_depth(state: Any) -> None:
    """Of values within values, each looked at once."""
    seen: set[int] = set()
    level = [state]
    for _ in range(DEEPEST):
        below = {id(item): item for value in level for item in _within(value)}
        level = [item for key, item in below.items() if key not in seen]
        seen.update(below)
        if not level:
            return
    raise InputError(f"holds containers within each other, more than {DEEPEST} deep")


def _within(value: Any) -> list[Any]:
    items = value.values() if isinstance(value, dict) else value
    containers = isinstance(value, dict | list) or type(value) is tuple
    return [item for item in items if isinstance(item, dict | list | tuple)] if containers else []
