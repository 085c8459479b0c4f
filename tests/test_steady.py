"""What a function is made of is told apart whenever anything of it may have changed."""

from __future__ import annotations

import math
import operator
import textwrap
from functools import partial
from typing import Any

import pytest

from parallelkit.steady import made_of, same, still


def functions(source: str, **given: Any) -> dict[str, Any]:
    """Return what a script defines."""
    names: dict[str, Any] = {"__name__": "__main__", **given}
    # Not with the annotations of this file, which are strings.
    exec(compile(textwrap.dedent(source), "script", "exec", dont_inherit=True), names)
    return names


def made(source: str, name: str = "f", **given: Any) -> Any:
    return functions(source, **given)[name]


STEADY = [
    "f = lambda x: x + 1",
    "def f(x, by=2, *, to='a'): return x * by",
    "import math\ndef f(x): return math.sqrt(x)",
    "LIMIT = 3\ndef f(x): return min(x, LIMIT)",
    "def f(x):\n    import json\n    return [json.dumps(y) for y in range(x)]",
    "def make(n):\n    return lambda x: x + n\nf = make(3)",
    "def f(x: int) -> None: pass",
    "def f(x):\n    n = 0\n    def g():\n        nonlocal n\n        n += x\n    g()\n    return n",
]

CHANGING = {
    "a list that it names": "seen = []\ndef f(x): seen.append(x)",
    "a function that it names": "def g(x): return x\ndef f(x): return g(x)",
    "itself": "def f(x): f.count = 1",
    "a default": "def f(x, seen=[]): seen.append(x)",
    "what it closes over": "def make():\n    s = []\n    return lambda x: s.append(x)\nf = make()",
    "a global that it sets": "count = 0\ndef f(x):\n    global count\n    count += 1",
    "one that an inner function sets": "def f(x):\n    def g():\n        global n\n        n = 1",
    "what it closes over and sets": """
        def make():
            n = 0
            def f(x):
                nonlocal n
                n += 1
                return n
            return f
        f = make()
    """,
    "what an inner function closes over and sets": """
        def make():
            n = 0
            def f(x):
                def g():
                    nonlocal n
                    n += 1
                g()
                return n
            return f
        f = make()
    """,
    "a variable that has no value yet": """
        def make():
            def f(x): return later
            yield f
            later = 1
        steps = make()
        f = next(steps)
    """,
    "the globals of an inner function": "def f(x):\n    (lambda: 0).__globals__['n'] = x",
    "what it names by a string": "def f(x): globals()['n'] = x",
    "what it runs": "def f(x): exec('n = 1')",
    "an attribute": "def f(x): pass\nf.kind = 'odd'",
    "a class of the script's": "class C: pass\ndef f(x): return C()",
    "an instance": "class C(int): pass\nc = C()\ndef f(x): return c",
    "a module that was made": "import types\nm = types.ModuleType('m')\ndef f(x): return m.n",
    "an annotation": "class C: pass\ndef f(x: C): pass",
    "a callable object": "class C:\n    def __call__(self, x): pass\nf = C()",
}


@pytest.mark.parametrize("source", STEADY)
def test_what_cannot_change_is_the_same_again(source: str) -> None:
    f = made(source)
    assert same(made_of(f), made_of(f))


@pytest.mark.parametrize("source", CHANGING.values(), ids=CHANGING)
def test_what_can_change_has_no_parts(source: str) -> None:
    assert made_of(made(source)) is None


def test_a_global_that_was_set_anew_makes_another() -> None:
    names = functions("LIMIT = 3\ndef f(x): return min(x, LIMIT)")
    before = made_of(names["f"])
    names["LIMIT"] = 10**9
    assert before is not None
    assert not same(before, made_of(names["f"]))


def test_equal_is_not_the_same() -> None:
    names = functions("LIMIT = 1\ndef f(x): return LIMIT")
    before = made_of(names["f"])
    names["LIMIT"] = True
    assert not same(before, made_of(names["f"]))


def test_a_global_that_comes_up_makes_another() -> None:
    names = functions("def f(x): return len(x)")
    before = made_of(names["f"])
    names["len"] = 3
    assert not same(before, made_of(names["f"]))


def test_what_was_closed_over_and_has_changed_makes_another() -> None:
    source = "def make(n):\n    return lambda x: x + n"
    make = made(source, "make")
    assert same(made_of(make(1)), made_of(make(1)))
    assert not same(made_of(make(1)), made_of(make(2)))


def test_other_code_is_another() -> None:
    names = functions("f = lambda x: x\ng = lambda x: x")
    assert not same(made_of(names["f"]), made_of(names["g"]))
    assert not same(made_of(names["f"]), None)
    assert not same(None, None)


@pytest.mark.parametrize("fn", [abs, math.sqrt, operator.neg, textwrap.dedent])
def test_what_goes_by_name_is_the_same(fn: Any) -> None:
    assert same(made_of(fn), made_of(fn))


@pytest.mark.parametrize("fn", [[].append, partial(abs), int, "x".join])
def test_methods_and_objects_have_no_parts(fn: Any) -> None:
    assert made_of(fn) is None


def test_the_code_of_a_function_is_not_the_function() -> None:
    f = lambda x: x
    parts = made_of(f)
    assert parts is not None
    assert still(parts, f)
    assert not still(parts, f.__code__)
