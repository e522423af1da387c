"""The container of torch.save: what torch.load finds in it, or an error of one line."""

from __future__ import annotations

import collections
import io
import pickle
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from deltalens.errors import InputError
from deltalens.sae.files import open_tensors

STATE = {"W": torch.arange(12.0).view(3, 4), "k": torch.tensor(3), "name": "x", "list": [1, 2.5]}


def saved(path: Path, state: Any) -> Path:
    torch.save(state, path)
    return path


def rewritten(path: Path, change: Callable[[str, bytes], bytes | None], compression: int) -> None:
    """The archive at ``path`` with its records changed, or left out for None."""
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in records.items():
            new = change(name, content)
            if new is not None:
                archive.writestr(name, new)


def refused(path: Path) -> str:
    with pytest.raises(InputError) as error:
        open_tensors(path)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 1000
    return message.removeprefix(f"{path}: ")


def crafted(path: Path, pickled: bytes) -> Path:
    """An archive of torch.save with another pickle."""
    saved(path, STATE)
    rewritten(path, lambda n, c: pickled if n.endswith("data.pkl") else c, zipfile.ZIP_STORED)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("which", ["/data/", "data.pkl", ""])
def test_compressed_records_are_refused(tmp_path: Path, method: int, which: str) -> None:
    path = saved(tmp_path / "W.pt", {"W": torch.randn(40, 30)})
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content, method if which in name else zipfile.ZIP_STORED)
    assert "is compressed" in refused(path)


def test_a_record_that_only_its_own_header_calls_compressed(tmp_path: Path) -> None:
    path = saved(tmp_path / "W.pt", STATE)
    content = bytearray(path.read_bytes())
    content[8:10] = (8).to_bytes(2, "little")
    path.write_bytes(content)
    assert "is compressed" in refused(path)


def test_a_record_that_is_said_to_be_a_folder(tmp_path: Path) -> None:
    """torch gives whatever its memory holds, without a word."""
    path = saved(tmp_path / "W.pt", STATE)
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"W/data/1") - 46
    assert content[entry : entry + 4] == b"PK\1\2"
    content[entry + 38] = 0xFF
    path.write_bytes(content)
    assert "'W/data/1' is said to be a folder" in refused(path)


def test_a_small_file_takes_little_memory(tmp_path: Path) -> None:
    path = saved(tmp_path / "W.pt", STATE)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("W/notes", b"\0" * (1 << 30))
    tracemalloc.start()
    assert "is compressed" in refused(path)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_what_is_no_tensor_has_a_limit(tmp_path: Path) -> None:
    path = saved(tmp_path / "W.pt", {**STATE, "text": "x" * (65 << 20)})
    assert "over 64 MiB" in refused(path)


def test_views_and_parameters_are_what_torch_reads(tmp_path: Path) -> None:
    base = torch.randn(20, 30, dtype=torch.float64)
    state = collections.OrderedDict(
        whole=base,
        columns=base[:, 3:7],
        turned=base.T,
        every_third=base[::3, ::2],
        parameter=torch.nn.Parameter(base.float()),
        none=torch.empty(0, 5),
        scalar=base[2, 3],
        half=base.bfloat16()[4:],
        flags=base > 0,
    )
    path = saved(tmp_path / "W.pt", state)
    expected = torch.load(path, weights_only=True)
    found = open_tensors(path).tensors
    assert list(found) == list(expected)
    for name, stored in found.items():
        assert stored.dtype == expected[name].dtype
        assert torch.equal(stored.read(), expected[name])
        assert stored.shape == expected[name].shape


def test_a_module_s_state_is_read(tmp_path: Path) -> None:
    module = torch.nn.Linear(5, 7)
    found = open_tensors(saved(tmp_path / "W.pt", module.state_dict())).tensors
    assert {name: stored.read().tolist() for name, stored in found.items()} == {
        name: tensor.tolist() for name, tensor in module.state_dict().items()
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (torch.randn(3, dtype=torch.complex64), "ComplexFloatStorage"),
        (torch.randn(3, dtype=torch.complex64).conj(), "ComplexFloatStorage"),
        (torch.randn(3, dtype=torch.complex64).conj().imag, "neg"),
        (torch._neg_view(torch.randn(3)), "neg"),
        (torch.eye(3).to_sparse(), "sparse"),
        (torch.ones(3).expand(2, 3), "repeats the numbers"),
        (torch.ones(3, device="meta"), "meta"),
        (torch.ones(3).to(torch.float8_e4m3fn), "float8_e4m3fn"),
        (torch.ones(3).to(torch.uint16), "uint16"),
    ],
)
def test_tensors_of_other_kinds_are_refused(tmp_path: Path, tensor: Any, said: str) -> None:
    message = refused(saved(tmp_path / "W.pt", {**STATE, "odd": tensor}))
    assert said in message
    assert "odd" in message


@pytest.mark.filterwarnings("ignore")
def test_a_nested_tensor_is_refused(tmp_path: Path) -> None:
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    assert "nested" in refused(saved(tmp_path / "W.pt", {"odd": nested}))


def storage(count: int, key: str = "0") -> tuple[Any, ...]:
    return ("storage", torch.FloatStorage, key, "cpu", count)


class Pickled:
    """Something that is pickled as a call."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


class WithStorages(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        return value if type(value) is tuple and value[:1] == ("storage",) else None


def pickled(state: Any) -> bytes:
    stream = io.BytesIO()
    WithStorages(stream, protocol=2).dump(state)
    return stream.getvalue()


def tensor(count: int, start: Any, shape: Any, strides: Any, **more: Any) -> Pickled:
    args = (storage(count, **more), start, shape, strides, False, collections.OrderedDict())
    return Pickled(torch._utils._rebuild_tensor_v2, *args)


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (tensor(12, 0, (3, 4), (4, 1)), None),
        (tensor(12, 0, (100, 100), (100, 1)), "lies beyond"),
        (tensor(12, 9, (3, 4), (4, 1)), "lies beyond"),
        (tensor(12, 0, (2**40,), (0,)), "repeats"),
        (tensor(12, 0, (2**61,), (2**61,)), "lies beyond"),
        (tensor(10_000, 0, (100, 100), (100, 1)), "of another size"),
        (tensor(4, 0, (4,), (1,)), "of another size"),
        (tensor(12, -1, (3, 4), (4, 1)), "has no shape"),
        (tensor(12, 0, (3, 4), (-4, 1)), "has no shape"),
        (tensor(12, 0, (True, 12), (12, 1)), "has no shape"),
        (tensor(12, 0, (3,), (4, 1)), "has no shape"),
        (tensor(12, 0, (1,) * 70, (1,) * 70), "lies beyond"),
        (tensor(12, 0, 5, (1,)), "damaged"),
        (tensor(12, 0, (3, 4), (4, 1), key="../../etc"), "are missing"),
        (tensor(12, 0, ("a", 4), (4, 1)), "has no shape"),
        (Pickled(bytearray, 1 << 40), "bytearray"),
        (Pickled(torch.Tensor, 3, 4), "torch.Tensor"),
        (Pickled(print, "acted"), "print"),
        (Pickled(eval, "1/0"), "eval"),
    ],
)
def test_pickles_that_nobody_saved(
    tmp_path: Path, odd: Any, said: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = crafted(tmp_path / "W.pt", pickled({"W": tensor(12, 0, (3, 4), (4, 1)), "odd": odd}))
    if said is None:
        assert torch.equal(open_tensors(path).get("odd").read(), STATE["W"])
    else:
        assert said in refused(path)
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b".",
        b"\x80\x02.",
        b"}.",
        b"N.",
        pickle.dumps([1, 2]),
        pickle.dumps({frozenset({1}): 2}, 2),
        pickle.dumps({(1, 2): 2}, 2),
        pickle.dumps(5),
        b"\x80\x02}r\xff\xff\xff\x7f.",
        b"\x80\x02}q\x00" + b"(" * 50_000 + b".",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f}.",
        b"\x80\x02}X\x01\x00\x00\x00a" + b"]" * 500 + b"a" * 499 + b"s.",
        b"\x80\x02ctorch\nFloatStorage\n}b.",
        b"\x80\x02ccollections\nOrderedDict\n}X\x08\x00\x00\x00__dict__Nsb.",
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\x00\x00.",
        b"\x80\x02L" + b"9" * 6000 + b"L\n.",
    ],
)
def test_damaged_pickles(tmp_path: Path, content: bytes) -> None:
    path = crafted(tmp_path / "W.pt", content)
    try:
        file = open_tensors(path)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return
    assert not file.tensors


def test_values_that_share_their_parts_take_no_time(tmp_path: Path) -> None:
    shared: Any = ["x"] * 10
    for _ in range(60):
        shared = [shared] * 10
    state = {"pre_bias": torch.ones(3), "latent_bias": torch.ones(3), "activation": shared}
    path = crafted(tmp_path / "W.pt", pickled({"activation": shared}))
    start = time.monotonic()
    assert not open_tensors(path).tensors
    path = crafted(tmp_path / "W.pt", pickled({"deep": [shared] * 10, **dict.fromkeys(state, 1)}))
    open_tensors(path)
    assert time.monotonic() - start < 5
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    assert "within each other" in refused(crafted(tmp_path / "W.pt", pickled({"deep": deep})))


def test_two_records_of_one_name(tmp_path: Path) -> None:
    path = saved(tmp_path / "W.pt", STATE)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("W/data/0", b"\1" * 48)
    assert "two of its records" in refused(path)
