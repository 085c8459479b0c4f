"""What scripts of the tests have in `__main__`: classes and functions of every kind."""

# ruff: noqa: B019, PIE796, PYI024, SLOT001, UP042  # users write what they write

from __future__ import annotations

import abc
import collections
import enum
import functools
import typing
from dataclasses import dataclass


@dataclass
class Point:
    x: int
    y: int = 0

    def moved(self):
        return Point(self.x + 1, self.y)


@dataclass
class Point3(Point):
    z: int = 5

    def moved(self):
        return super().moved()


@dataclass(frozen=True, slots=True)
class Frozen:
    z: int = 3


class Slots:
    __slots__ = ("__b", "a")

    def __init__(self):
        self.a, self.__b = 1, 2

    def b(self):
        return self.__b


class Named(typing.NamedTuple):
    a: int
    b: str = "x"

    def total(self):
        return self.a + len(self.b)


Pair = collections.namedtuple("Pair", "p q")


class Abstract(abc.ABC):
    @abc.abstractmethod
    def go(self): ...


class Concrete(Abstract):
    def go(self):
        return 1


T = typing.TypeVar("T")
P = typing.ParamSpec("P")
Id = typing.NewType("Id", int)


class Box(typing.Generic[T]):
    def __init__(self, value: T):
        self.value = value


class Meta(type):
    def hello(cls):
        return "hello"


class WithMeta(metaclass=Meta):
    pass


class Rich:
    made = 0

    def __init__(self):
        type(self).made += 1

    @property
    def prop(self):
        return 7

    @classmethod
    def cls(cls):
        return cls

    @staticmethod
    def static():
        return 8

    @functools.cached_property
    def cached(self):
        return 9

    @functools.lru_cache
    def remembered(self):
        return 10

    @functools.singledispatchmethod
    def by_type(self, x):
        return "other"

    @by_type.register
    def _(self, x: int):
        return "int"


class Odd(Exception):
    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")
        self.code = code


class Color(enum.Enum):
    RED = 1
    BLUE = 2
    CRIMSON = 1


class Planet(enum.Enum):
    EARTH = (5.0, 6.0)

    def __init__(self, mass, radius):
        self.mass, self.radius = mass, radius

    @property
    def gravity(self):
        return self.mass / self.radius


class Text(str, enum.Enum):
    A = "a"


class Lower(enum.StrEnum):
    FIRST = enum.auto()


class Whole(enum.IntEnum):
    ONE = 1


class Rights(enum.Flag):
    READ = 1
    WRITE = 2
    BOTH = 3


class Coordinate(bytes, enum.Enum):
    def __new__(cls, value, label):
        member = bytes.__new__(cls, [value])
        member._value_, member.label = value, label
        return member

    PX = (0, "P.X")


class Couple(tuple, enum.Enum):
    def __new__(cls, pair):
        member = tuple.__new__(cls, pair)
        member._value_ = pair[0]
        return member

    ONE = (1, 2)


class Sentinel:
    def __reduce__(self):
        return "MISSING"


MISSING = Sentinel()
NOTHING = object()


@functools.cache
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def even(n):
    return n == 0 or odd(n - 1)


def odd(n):
    return n > 0 and even(n - 1)


@functools.singledispatch
def by_type(x):
    return "other"


@by_type.register
def _(x: int):
    return "int"


def same(x):
    return x
