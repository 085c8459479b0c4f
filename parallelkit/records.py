"""Classes that are a few named values: the part of `dataclasses` that the library needs.

To a type checker these are `dataclasses` themselves.  When the program runs that module is not
loaded: it loads `inspect`, and both together take 6 ms, a third of what a first call takes.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers take it for true
if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass  # noqa: PLC0414  others import it from here
    from dataclasses import field as field  # noqa: PLC0414
    from typing import Any
else:
    _NONE = object()  # a field without a default

    class field:  # noqa: N801  it stands in for a function
        """A default that is made anew for each instance."""

        def __init__(self, *, default_factory: Any) -> None:
            self.make = default_factory

    def dataclass(*, slots: bool, frozen: bool = False) -> Any:
        """Return a decorator that gives a class `__slots__`, `__init__` and `__repr__`.

        Equal are instances of one class with equal values, as in `dataclasses`; those of a frozen
        class can be hashed and not changed.
        """
        assert slots  # what is not offered must not be asked for

        def decorate(cls: Any) -> Any:
            names = tuple(vars(cls).get("__annotations__", ()))
            body = {key: value for key, value in cls.__dict__.items() if key not in names}
            defaults = {key: cls.__dict__[key] for key in names if key in cls.__dict__}
            del body["__dict__"], body["__weakref__"]
            body |= {"__slots__": names, "__match_args__": names}
            body["__init__"] = _initial(cls, names, defaults, frozen)
            body |= {"__repr__": _told, "__eq__": _equal, "__hash__": _hashed if frozen else None}
            if frozen:
                body |= {"__setattr__": _refused, "__delattr__": _refused}
            return type(cls)(cls.__name__, cls.__bases__, body)

        return decorate

    def _initial(cls: Any, names: Any, defaults: Any, frozen: bool) -> Any:
        known = {"_set": object.__setattr__, "_none": _NONE}
        parameters, lines = ["self"], []
        for name in names:
            default, value = defaults.get(name, _NONE), name
            parameters.append(name if default is _NONE else f"{name}=_d_{name}")
            known[f"_d_{name}"] = default
            if isinstance(default, field):
                known[f"_d_{name}"], known[f"_m_{name}"] = _NONE, default.make
                value = f"_m_{name}() if {name} is _none else {name}"
            lines.append(f"_set(self, {name!r}, {value})" if frozen else f"self.{name} = {value}")
        if "__post_init__" in cls.__dict__:
            lines.append("self.__post_init__()")
        body = "\n ".join(lines or ["pass"])
        exec(f"def __init__({', '.join(parameters)}):\n {body}", known)  # noqa: S102  our own text
        made = known["__init__"]
        made.__qualname__ = f"{cls.__qualname__}.__init__"
        made.__annotations__ = dict(vars(cls).get("__annotations__", {}))
        return made

    def _values(self: Any) -> tuple[Any, ...]:
        return tuple([getattr(self, name) for name in self.__slots__])

    def _told(self: Any) -> str:
        each = ", ".join([f"{name}={getattr(self, name)!r}" for name in self.__slots__])
        return f"{type(self).__qualname__}({each})"

    def _equal(self: Any, other: Any) -> Any:
        return _values(self) == _values(other) if type(other) is type(self) else NotImplemented

    def _hashed(self: Any) -> int:
        return hash(_values(self))

    def _refused(self: Any, name: str, *_: Any) -> None:
        raise AttributeError(f"cannot change {name!r} of {type(self).__qualname__}")
