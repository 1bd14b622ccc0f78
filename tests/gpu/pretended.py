"""A pretended CUDA device: tensors that say `cuda:0` and compute on the CPU.

With it the branches for GPUs run on machines without one, on real numbers, and `waits` logs what a real one would be
asked, with the line of our code that asks. Operands on two devices are an error, as they are on CUDA. Owns which
operators make a host wait: for values and sizes, selections by a mask, copies to or from memory that is not pinned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

from tests.gpu.waits import STATE, Event, Graph, Log, Stream, Wait, capture, our_line

CUDA = torch.device("cuda:0")
_ASKING = "nonzero _local_scalar_dense masked_select _unique2 equal bincount repeat_interleave"
ASKING = frozenset(_ASKING.split())
"""Operators whose result, or its size, the host gets to know."""
_VIEWS = """view _unsafe_view expand permute transpose t slice select unsqueeze squeeze alias detach as_strided split
split_with_sizes unbind unflatten _reshape_alias lift_fresh diagonal is_pinned"""
VIEWS = frozenset(_VIEWS.split())
"""Operators that look at what is there."""
FREE = VIEWS | frozenset(["empty", "new_empty", "empty_like", "new_empty_strided", "empty_strided"])
"""Operators that launch nothing."""


class OnDevice(torch.Tensor):
    """Says that it lives on `cuda:0`, and holds an ordinary tensor. For torch's C++ it is on `meta`, since a build for
    CPUs has no guard for CUDA."""

    inner: Any

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnDevice:
        wrapper: Any = torch.Tensor._make_wrapper_subclass
        return wrapper(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device="meta",
        )

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    device = property(lambda _: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda _: True)  # type: ignore[assignment]

    def __repr__(self, **_options: Any) -> str:  # type: ignore[override]
        return f"OnDevice({self.inner})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


class _Dispatch(TorchDispatchMode):
    """Sees factories too, which have no operand that could."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch would import its compiler at the first operator, to keep away from it: 2 s of CPU time (2.13)."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The operator on the inner tensors, logged as what it would be on CUDA; its results are where CUDA has them."""
    name = func._schema.name.removeprefix("aten::")
    tensors = [each for each in tree_iter((args, kwargs)) if isinstance(each, Tensor)]
    ours = {id(each.inner): each for each in tensors if isinstance(each, OnDevice)}
    if name == "to":  # of a tensor made in inference mode, before the device was there
        with _Dispatch():
            return func.decompose(*args, **kwargs)
    if name in ("_to_copy", "copy_"):
        return _copied(func, name, args, kwargs, ours)
    made_here = _is_cuda(kwargs["device"]) if kwargs.get("device") is not None else bool(ours)
    if ours:
        _log_waits(name, args, tensors)
    if made_here and name not in FREE:
        STATE.launch()
    inner, named = tree_map(inner_of, args), tree_map(inner_of, kwargs)
    result = func(*inner, **named) if name in FREE else ran(func, *inner, **named)
    if name in FREE - VIEWS and STATE.recording is not None:
        STATE.recording.has(args, result)
    if not made_here or name == "_local_scalar_dense":
        return result
    return tree_map(lambda each: _wrapped(each, ours), result)


def ran(func: Any, *args: Any, **kwargs: Any) -> Any:
    """A kernel on inner tensors, which a graph that is being captured takes up."""
    recording, STATE.recording = STATE.recording, None  # what the interpreter asks torch for is no kernel
    result = func(*args, **kwargs)
    STATE.recording = recording
    if recording is not None:
        recording.add(partial(func, *args, **kwargs), (args, kwargs), result)
    return result


def _wrapped(value: Any, ours: dict[int, OnDevice]) -> Any:
    """On the device; what an operator changed in place is the very tensor that it was given."""
    if not isinstance(value, Tensor):
        return value
    return ours[id(value)] if id(value) in ours else OnDevice(value)


def _log_waits(name: str, args: Any, tensors: list[Tensor]) -> None:
    if name in ASKING:
        STATE.wait(Wait.VALUE, name)
    elif name in ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"):
        chosen = [each for each in args[1] if each is not None]
        if any(each.dtype is torch.bool for each in chosen):
            STATE.wait(Wait.SELECTION, name)
        if any(not isinstance(each, OnDevice) for each in chosen):
            STATE.wait(Wait.COPY_IN, f"{name} by a list")
    elif any(each.dim() and not isinstance(each, OnDevice) for each in tensors):
        raise RuntimeError(f"{name}: operands on two devices at {our_line()}")


def _copied(func: Any, name: str, args: Any, kwargs: dict[str, Any], ours: dict[int, OnDevice]) -> Any:
    target = args[0] if name == "copy_" else None
    source = args[1] if name == "copy_" else args[0]
    if target is not None:
        to_device = isinstance(target, OnDevice)
    else:
        to_device = _is_cuda(kwargs["device"]) if kwargs.get("device") is not None else isinstance(source, OnDevice)
    from_device = isinstance(source, OnDevice)
    soon = bool(kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]))
    if from_device and not to_device:
        if target is not None and soon and STATE.is_pinned(target):
            STATE.arrive_later(target, source.inner)
            return target
        STATE.wait(Wait.COPY_OUT, name)
    elif to_device and not from_device and source.dim():
        STATE.log.sent[source.dtype] += source.nbytes
        if not (soon and STATE.is_pinned(source)):
            STATE.wait(Wait.COPY_IN, name)
    elif to_device:
        STATE.launch()
    result = ran(func, *tree_map(inner_of, args), **tree_map(inner_of, kwargs))
    if not to_device:
        return result
    return target if target is not None else OnDevice(result if result is not inner_of(source) else result.clone())


def _is_cuda(device: Any) -> bool:
    return torch.device(device).type == "cuda"


def inner_of(value: Any) -> Any:
    if isinstance(value, OnDevice):
        return value.inner
    return torch.device("cpu") if isinstance(value, torch.device) and value.type == "cuda" else value


class _Functions(TorchFunctionMode):
    """What torch decides before it dispatches, by a device that its C++ takes for `meta`, or by pinned memory."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.pin_memory:
            return STATE.pin(args[0].clone())
        if func is torch.empty and kwargs.pop("pin_memory", False):
            made: Tensor = func(*args, **kwargs)
            return STATE.pin(made.view(torch.uint8).fill_(0xA5).view(made.dtype))
        if not any(isinstance(each, OnDevice) for each in tree_iter((args, kwargs))):
            return func(*args, **kwargs)
        if func is torch.Tensor.__setitem__ and isinstance(args[2], bool | int | float):
            STATE.launch()
            args[0].inner[args[1]] = args[2]
            return None
        if func is torch.Tensor.__getitem__:
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            lists = tuple(torch.tensor(each) if isinstance(each, list) else each for each in index)
            return func(args[0], lists)
        if func in (F.scaled_dot_product_attention, torch.where):  # one kernel each
            STATE.launch()
            return OnDevice(ran(func, *tree_map(inner_of, args), **tree_map(inner_of, kwargs)))
        if func is torch.mm and "out_dtype" in kwargs:  # a CPU has none
            STATE.launch()
            return OnDevice(ran(_split_product, *tree_map(inner_of, args)))
        return func(*args, **kwargs)


def _split_product(left: Tensor, right: Tensor) -> Tensor:
    """Products of bfloat16 are exact in float32, in which they are summed."""
    return left.float() @ right.float()


class _NoGrad:
    """In place of inference mode, in which operators made of others are not taken apart for a dispatch mode to see, and
    which asks for version counters, that wrappers do not have."""

    def __init__(self, _mode: bool) -> None:  # noqa: FBT001 - torch's signature
        self._guard = torch.no_grad()

    def __enter__(self) -> None:
        self._guard.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._guard.__exit__(*error)


@contextmanager
def no_inference_mode() -> Iterator[None]:
    """What asks for it computes without gradients instead, operator by operator as on a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch._C, "_InferenceMode", _NoGrad)
        yield


@contextmanager
def pretended_device() -> Iterator[Callable[[], Log]]:
    """While it is open there is a `cuda:0`. Gives a function that starts a new log and returns it."""

    def started() -> Log:
        STATE.log = Log()
        return STATE.log

    with no_inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        patch.setattr(torch.cuda, "is_initialized", lambda: True)
        patch.setattr(torch.cuda, "synchronize", lambda: STATE.wait(Wait.SYNCHRONIZE, "synchronize"))
        patch.setattr(torch.cuda, "Event", Event)
        patch.setattr(torch.cuda, "Stream", Stream)
        patch.setattr(torch.cuda, "current_stream", Stream)
        patch.setattr(torch.cuda, "stream", lambda _stream: nullcontext())
        patch.setattr(torch.cuda, "CUDAGraph", Graph)
        patch.setattr(torch.cuda, "graph", capture)
        with _Functions(), _Dispatch():
            yield started
    STATE.pinned.clear()


def moved(module: nn.Module) -> None:
    """All parameters and buffers of the module, onto the pretended device."""
    for part in module.modules():
        for table in (part._parameters, part._buffers):
            for name, value in table.items():
                if value is not None:
                    there: Any = OnDevice(value.detach())
                    there._is_param = isinstance(value, nn.Parameter)
                    table[name] = there
