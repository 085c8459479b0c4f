"""Large arrays taken apart, so that pickle writes what they are and their bytes travel beside it.

`reducer` tells how a type is taken apart: numpy's arrays and those of its subclasses that pickle as
it does, masked arrays, `array.array`, `memoryview` and PyTorch's tensors.  What is put together
again lies over the buffer it is handed, without a copy (but for `array.array`, which must own its
bytes), is writable, and keeps that buffer's owner alive, as does every view of it.

Where the buffers go is `freight`'s business, and arrays over files are `mapped`'s.  pandas, pyarrow
and others hold arrays or hand out buffers themselves.  Nothing here imports a library that is not
loaded: who has its arrays has it.
"""

from __future__ import annotations

import copyreg
import sys
from collections.abc import Callable
from pickle import PickleBuffer
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import array

    import numpy as np

LARGE = 1 << 16
"""Bytes from which an array is taken apart here; smaller ones are pickled as they always were.

From here on a place of its own costs less than the copying it saves: an array of 64 KiB took 120 us
both ways that way and 300 in the message, one of 1 MiB 200 and 500 (measured on 2 busy cores)."""

Reduction = Any  # a tuple, or NotImplemented: what pickle's `reducer_override` may return
Order = str | tuple[int, ...]  # "C", "F", or strides in bytes, of which none leaves a gap

# Those that torch.frombuffer() can read; quantized ones and halves of bytes it cannot.
_TENSORS = {
    *("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"),
    *("float8_e4m3fn", "float8_e5m2", "float16", "bfloat16", "float32", "float64"),
    *("complex64", "complex128"),
}


def reducer(kind: type) -> Callable[[Any], Reduction] | None:
    """Return what takes objects of exactly this type apart, None if pickle knows best, always.

    It returns `NotImplemented` for an object that pickle should take as it comes, such as a small
    one.
    """
    if kind in copyreg.dispatch_table:  # someone else knows better
        return None
    ndarray = _loaded("numpy", "ndarray")
    if ndarray is not None and issubclass(kind, ndarray) and _pickles_alike(kind, ndarray):
        return _reduce_array
    for module, name, reduce in _REDUCERS:
        if kind is _loaded(module, name):
            return reduce
    return None


def _loaded(module: str, name: str) -> Any:
    return getattr(sys.modules.get(module), name, None)


def _pickles_alike(kind: Any, ndarray: Any) -> bool:
    """Whether arrays of this type are pickled as any: dtype, shape, order, bytes and type."""
    names = ("__reduce__", "__reduce_ex__", "__setstate__")
    return all(getattr(kind, name) is getattr(ndarray, name) for name in names)


# numpy's arrays.


def _reduce_array(array: Any) -> Reduction:
    kind, ndarray = type(array), sys.modules["numpy"].ndarray
    # What a subclass says of its size, its views and its items may be anything.
    plain = array if kind is ndarray else ndarray.view(array, ndarray)
    if _stays(plain):
        return NotImplemented
    from . import mapped  # not before: workers start with as few modules as can be

    reopened = mapped.reduce(plain, array)
    if reopened is not None:
        return reopened
    buffer, order = _apart(plain)
    made_of = (buffer, plain.dtype, plain.shape, order)
    return (rebuild, made_of) if kind is ndarray else (rebuild_as, (kind, *made_of))


def _stays(array: np.ndarray[Any, Any]) -> bool:
    """Whether an array goes as pickle has it, being small or made of Python objects."""
    size = array.nbytes
    return size < LARGE or not size or array.dtype.hasobject


def _apart(array: np.ndarray[Any, Any]) -> tuple[PickleBuffer, Order]:
    """Return the bytes of an array, without a copy if they have no gaps, and how they lie."""
    flags = array.flags
    if flags.c_contiguous:
        return _flat(array), "C"
    if flags.f_contiguous:
        return _flat(array.T), "F"
    turned = array.transpose(_by_stride(array.strides))
    if turned.flags.c_contiguous:
        return _flat(turned), array.strides
    return PickleBuffer(contiguous(array)), "C"


def _flat(array: np.ndarray[Any, Any]) -> PickleBuffer:
    flat: Any = array.reshape(-1).view("u1")
    return PickleBuffer(flat)


def _by_stride(strides: tuple[int, ...]) -> list[int]:
    """Return the axes in an order in which the last one's items lie closest."""
    return sorted(range(len(strides)), key=strides.__getitem__, reverse=True)


def contiguous(array: np.ndarray[Any, Any]) -> Any:
    """Return a buffer with the bytes of an array that has gaps, copied together in C order."""
    import numpy as np

    return np.ascontiguousarray(array).reshape(-1).view("u1")


def rebuild(
    buffer: Any, dtype: np.dtype[Any], shape: tuple[int, ...], order: Order
) -> np.ndarray[Any, Any]:
    """Return the array over `buffer`, read-only if that is."""
    import numpy as np

    return rebuild_as(np.ndarray, buffer, dtype, shape, order)


def rebuild_as(
    kind: type, buffer: Any, dtype: np.dtype[Any], shape: tuple[int, ...], order: Order
) -> np.ndarray[Any, Any]:
    """Return an array of type `kind`, which numpy's own pickles make in the same way."""
    import numpy as np

    strides = order if isinstance(order, tuple) else None
    layout: Literal["F", "C"] = "F" if order == "F" else "C"
    array: np.ndarray[Any, Any] = np.ndarray.__new__(kind, shape, dtype, buffer, 0, strides, layout)
    return array


def _writable(buffer: Any) -> Any:
    """Return the owner of the bytes: pickle hides it where what was pickled was read-only."""
    view = memoryview(buffer)
    if not view.readonly:
        return buffer
    owner = memoryview(view.obj)
    if owner.readonly or owner.nbytes != view.nbytes:  # bytes within the pickle
        return bytearray(view)
    return view.obj


# Masked arrays, which numpy's own pickles carry in the pickle, with a mask even where none is.


def _reduce_masked(array: np.ma.MaskedArray[Any, Any]) -> Reduction:
    import numpy as np

    if array.baseclass is not np.ndarray or _stays(array.data):
        return NotImplemented
    mask = np.ma.getmask(array)
    kept = None if mask is np.ma.nomask else mask
    # The property would make a fill value and keep it, where none has been set.
    fill = array._fill_value  # type: ignore[attr-defined]  # noqa: SLF001
    return rebuild_masked, (array.data, kept, fill, array.hardmask, array.sharedmask)


def rebuild_masked(
    content: np.ndarray[Any, Any],
    mask: np.ndarray[Any, Any] | None,
    fill: Any,
    hard: bool,
    shared: bool,
) -> np.ma.MaskedArray[Any, Any]:
    """Return the masked array over these arrays; `mask` and `fill` are None where none was set."""
    import numpy as np

    kept: Any = np.ma.nomask if mask is None else mask
    array: Any = np.ma.MaskedArray(content, mask=kept, fill_value=fill, hard_mask=hard)
    array._sharedmask = shared  # noqa: SLF001  # unshare_mask() would copy it
    return array  # type: ignore[no-any-return]


# What the standard library has.


def _reduce_typed(typed: array.array[Any]) -> Reduction:
    # Whoever makes an array of type "u" is warned since Python 3.13, and pickle knows how not to.
    if len(typed) * typed.itemsize < LARGE or not typed or typed.typecode == "u":
        return NotImplemented
    return rebuild_typed, (typed.typecode, PickleBuffer(typed))


def rebuild_typed(typecode: str, buffer: Any) -> array.array[Any]:
    """Return the `array.array`, with a copy of the buffer, since it must own its bytes."""
    import array

    typed: array.array[Any] = array.array(typecode)
    typed.frombytes(buffer)
    return typed


def _reduce_view(view: memoryview) -> Reduction:
    # Of every size: plain pickle takes no memoryview, and cloudpickle makes it bytes.
    whole: Any = view
    if not view.c_contiguous:
        whole = bytes(view) if view.readonly else bytearray(view)
    if _castable(view):
        return rebuild_view, (PickleBuffer(whole), view.format, view.shape)
    ndarray = _loaded("numpy", "ndarray")
    if ndarray is None or not isinstance(view.obj, ndarray):
        return NotImplemented  # others invent formats of which even numpy warns
    dtype = sys.modules["numpy"].asarray(view).dtype
    return rebuild_view_of_array, (PickleBuffer(whole), dtype, view.shape)


def _castable(view: memoryview) -> bool:
    """Whether `rebuild_view` makes such a view: of native items, and not (0, 3) of them."""
    try:
        memoryview(bytes(view.itemsize)).cast(view.format)  # type: ignore[call-overload]
    except ValueError:
        return False
    return bool(view.nbytes) or view.shape == (0,)


def rebuild_view(buffer: Any, form: str, shape: tuple[int, ...]) -> memoryview:
    """Return a memoryview of native items, read-only if the buffer is."""
    view: Any = memoryview(buffer)
    if shape != (0,):
        return view.cast("B").cast(form, shape)  # type: ignore[no-any-return]
    some: Any = memoryview(bytes(16) if view.readonly else bytearray(16))  # nothing has no format
    return some.cast(form)[:0]  # type: ignore[no-any-return]


def rebuild_view_of_array(buffer: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> memoryview:
    """Return a memoryview of items that only numpy knows, read-only if the buffer is."""
    import numpy as np

    array: Any = np.ndarray(shape, dtype, buffer)
    return memoryview(array)


# PyTorch's tensors.


def _reduce_tensor(tensor: Any) -> Reduction:
    torch = sys.modules["torch"]
    if not _is_plain(tensor, torch):
        return NotImplemented
    plain = tensor.detach()
    turned = plain.permute(_by_stride(plain.stride()))
    if not turned.is_contiguous():
        plain = turned = plain.contiguous()
    buffer = PickleBuffer(turned.reshape(-1).view(torch.uint8).numpy())
    name = str(tensor.dtype).removeprefix("torch.")
    return rebuild_tensor, (buffer, name, tuple(plain.shape), plain.stride(), tensor.requires_grad)


def _is_plain(tensor: Any, torch: Any) -> bool:
    """Whether a tensor is large, in memory, and nothing but its items."""
    return (
        tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and tensor.nbytes >= max(LARGE, 1)
        and str(tensor.dtype).removeprefix("torch.") in _TENSORS
        and tensor.is_leaf
        and not (tensor.is_conj() or tensor.is_neg())
        and not any(getattr(tensor, "names", ()))  # newer PyTorch has none
        and not (tensor.__dict__ or tensor._backward_hooks)  # noqa: SLF001
    )


def rebuild_tensor(
    buffer: Any, dtype: str, shape: tuple[int, ...], strides: tuple[int, ...], requires_grad: bool
) -> Any:
    """Return the tensor over `buffer`, `strides` being in items; it is no view of another one."""
    import torch

    kind = getattr(torch, dtype)
    storage = torch.frombuffer(_writable(buffer), dtype=kind).untyped_storage()
    tensor = torch.empty(0, dtype=kind).set_(storage, 0, shape, strides)
    return tensor.requires_grad_(requires_grad)


# What is no array of numpy's, by the module and the name under which its type is found.
_REDUCERS: list[tuple[str, str, Callable[[Any], Reduction]]] = [
    ("builtins", "memoryview", _reduce_view),
    ("array", "array", _reduce_typed),
    ("numpy.ma", "MaskedArray", _reduce_masked),
    ("torch", "Tensor", _reduce_tensor),
]
