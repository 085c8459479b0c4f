"""The operators of a class whose objects have an `array`: they are those of the array.

It is what numpy's `NDArrayOperatorsMixin` would give, without loading numpy.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

COMPARED = ("lt", "le", "eq", "ne", "gt", "ge")
ALONE = ("neg", "pos", "abs", "invert")
COMBINED = (
    *("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "pow"),
    *("lshift", "rshift", "and", "or", "xor"),
)

Operation = Callable[..., Any]


def _operators() -> type:
    methods: dict[str, Any] = {"__slots__": ()}
    for name in ALONE:
        methods[f"__{name}__"] = _alone(getattr(operator, name))
    for name in COMPARED:
        methods[f"__{name}__"] = _forward(getattr(operator, name))
    for name in COMBINED:
        operation = getattr(operator, f"__{name}__")
        methods[f"__{name}__"], methods[f"__r{name}__"] = _forward(operation), _back(operation)
        methods[f"__i{name}__"] = _in_place(getattr(operator, f"__i{name}__"))
    methods["__divmod__"], methods["__rdivmod__"] = _forward(divmod), _back(divmod)
    return type("Operators", (), methods)


def _alone(operation: Operation) -> Operation:
    return lambda holder: operation(holder.array)


def _forward(operation: Operation) -> Operation:
    return lambda holder, other: operation(holder.array, other)


def _back(operation: Operation) -> Operation:
    return lambda holder, other: operation(other, holder.array)


def _in_place(operation: Operation) -> Operation:
    def write(holder: Any, other: Any) -> Any:
        array = holder.array
        result = operation(array, other)
        return holder if result is array else result

    return write


if TYPE_CHECKING:
    from numpy.lib.mixins import NDArrayOperatorsMixin

    Operators = NDArrayOperatorsMixin
else:
    Operators = _operators()
