"""Objects keep their identity, state and sharing across a process border, `__main__` or not."""

from __future__ import annotations

import functools
import gc
import math
import pickle
import shutil
import textwrap
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripts import script

from parallelkit.codec import Definitions, Replica
from parallelkit.frames import LARGE

# What scripts define in `__main__`, of every kind that a user might.
KINDS = Path(__file__).parent / "kinds.py"
IMPORTS = "from far import Far, far\n"


@pytest.fixture
def check(tmp_path: Path):
    """Give what runs a script that begins with `KINDS` and has `far`."""
    shutil.copy(Path(__file__).parent / "far.py", tmp_path)

    def check_script(source: str) -> str:
        return script(f"{KINDS.read_text()}\n{IMPORTS}{textwrap.dedent(source)}", where=tmp_path)

    return check_script


# Within one process: two sides, one interpreter.


def sides(root: object = (math.sqrt,)) -> tuple[Definitions, Replica]:
    """Return a run's caller and worker side, the latter knowing what there is to know."""
    here, there = Definitions(root), Replica()
    there.learn(here.blobs[0])
    return here, there


LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
LEAVES |= st.binary() | st.complex_numbers(allow_nan=False) | st.just(math.sqrt) | st.just(int)
NESTED = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text(), inner)
        | st.builds(lambda part: [part, part, (part,)], st.lists(inner))
    ),
)


def shape(obj: object) -> list[object]:
    """Return which parts of `obj` are the same list or dictionary, as numbers in order."""
    seen: dict[int, int] = {}
    order: list[object] = []

    def walk(part):
        if isinstance(part, list | dict):
            if id(part) in seen:
                order.append(seen[id(part)])
                return
            seen[id(part)] = len(seen)
        for inner in part.values() if isinstance(part, dict) else part:
            if isinstance(inner, list | dict | tuple):
                walk(inner)

    walk([obj])
    return order


@given(st.lists(NESTED))
def test_plain_values_arrive_equal_and_shared_as_they_were(items):
    here, there = sides()

    arrived = there.loads(here.dumps(items))
    body, failures = there.dumps_values(arrived)
    back = here.loads(body)

    assert (arrived, back, failures) == (items, items, {})
    assert shape(arrived) == shape(back) == shape(items)


def test_an_importable_function_needs_no_definitions():
    here, there = Definitions((math.sqrt, None)), Replica()

    assert there.learn(here.blobs[0]) == (math.sqrt, None)
    here.dumps(([1, "a", np.arange(3)], range(3)))
    assert len(here.blobs) == 1


def test_a_frame_after_a_large_one_is_right():
    here, there = sides()
    large = [str(n) for n in range(LARGE // 4)]

    assert there.loads(here.dumps(large)) == large
    assert there.loads(here.dumps(["a", "b"])) == ["a", "b"]


SIDES: list[tuple[Definitions, Replica]] = []


class Interrupting:
    """Unpickles a frame of another run while one of its own is being unpickled."""

    def __reduce__(self):
        return interrupted, ()


def interrupted() -> object:
    here, there = SIDES[-1]
    return there.loads(here.dumps([here._known.objects[0]]))[0]()


def test_frames_of_several_runs_do_not_mix():
    first, second = (lambda: 1), (lambda: 2)
    here, there = sides(first)
    SIDES.append(sides(second))
    try:
        arrived = there.loads(here.dumps([first, Interrupting(), first, (first,)]))
    finally:
        SIDES.clear()

    assert arrived[1] == 2
    assert arrived[0]() == arrived[2]() == arrived[3][0]() == 1


class Held:
    pass


def holding(held: Held) -> Definitions:
    here = Definitions(lambda: held)
    here.dumps([lambda: 1])
    return here


def test_what_a_run_holds_is_free_when_the_run_is():
    held = Held()
    gone = weakref.ref(held)
    gc.disable()  # a cycle would keep it
    try:
        here = holding(held)
        del held
        assert gone() is not None
        del here
        assert gone() is None
    finally:
        gc.enable()


def test_after_a_failed_definition_the_stream_goes_on():
    lock = threading.Lock()
    here = Definitions(lambda: 1)

    def good():
        return table

    def bad():
        return table, lock

    table = {"a": [1]}
    stream = here._stream
    with pytest.raises(TypeError):
        stream.define(bad)
    stream.define(good)
    with pytest.raises(TypeError):
        stream.define(bad)
    stream.define(bad2 := lambda: good)
    there = Replica()
    learned = [there.learn(blob) for blob in here.blobs]

    assert [learned[0](), learned[1](), learned[2]()()] == [1, table, table]
    assert learned[2]() is learned[1]
    assert here.loads(there.dumps(learned[1:])) == [good, bad2]


def test_a_root_that_cannot_be_pickled_names_the_part():
    lock = threading.Lock()

    with pytest.raises(pickle.PicklingError) as caught:
        Definitions((functools.partial(print, [lock]), None, None))

    assert str(caught.value) == (
        "fn of type partial cannot be sent to another process: fn.args[0][0]: "
        "cannot pickle '_thread.lock' object\n"
        "make it inside the function: workers are processes, which a lock of threads cannot bind"
    )


def test_items_that_cannot_be_pickled_are_missed_when_their_turn_comes():
    here, there = sides()
    shared = [0]
    columns = ([1, (c for c in "a"), shared, shared], [4, 5, threading.Lock(), shared])

    first, second = there.loads(here.dumps_salvaging(columns))
    calls = zip(first, second, strict=True)

    assert next(calls) == (1, 4)
    for reason in ("cannot pickle 'generator' object", "cannot pickle '_thread.lock' object"):
        with pytest.raises(pickle.PicklingError, match=reason):
            next(calls)
    last = next(calls)
    assert last == ([0], [0])
    assert last[0] is last[1]
    assert list(calls) == []


def test_values_that_cannot_be_pickled_leave_the_others_alone():
    here, there = sides()
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]

    body, failures = there.dumps_values([1, threading.Lock(), deep, 4])

    assert here.loads(body) == [1, None, None, 4]
    assert sorted(failures) == [1, 2]
    while deep:
        deep = deep.pop()  # or freeing it would need as many frames of C


class Brittle:
    def __setstate__(self, state):
        raise ValueError("not today")

    def __getstate__(self):
        return {"a": 1}


def test_an_item_that_does_not_unpickle_is_told_as_such():
    here, there = sides()

    with pytest.raises(ValueError, match="not today") as caught:
        there.loads(here.dumps([Brittle()]))

    assert caught.value.__notes__ == [
        "This was raised while unpickling the items sent to this worker"
    ]


# Between processes, from an unguarded `__main__`.


def test_instances_of_main_classes_come_back_as_the_callers_own(check):
    check(
        """
    values = [Point(1, 2), Point3(1), Frozen(), Slots(), Named(1), Pair(1, 2), Concrete(),
              Box(3), Rich(), WithMeta(), Odd(3, "a"), collections.OrderedDict(a=Point(1))]
    def check(x):
        twin = type(x)
        return x, [x, x], twin
    with Far(check) as there:
        for _ in range(2):
            for value, (back, (left, right), twin) in zip(values, there.map(values)):
                assert type(back) is type(value) is twin, value
                assert left is right is back
                if type(value).__eq__ is not object.__eq__:
                    assert isinstance(value, Exception) or back == value
    back = far(same, [Slots()])[0]
    assert (back.a, back.b()) == (1, 2) and not hasattr(back, "__dict__")
    """
    )


def test_what_has_one_identity_keeps_it_both_ways(check):
    check(
        """
    things = [Color.RED, Color.CRIMSON, Planet.EARTH, Text.A, Lower.FIRST, Whole.ONE, Rights.BOTH,
              Coordinate.PX, Couple.ONE, Color, Point, Box, Abstract, WithMeta, even, fib, by_type,
              MISSING, T, P, Id]
    for thing in [*things, NOTHING]:
        def check(x):
            return x is thing, [x, thing]
        with Far(check) as there:
            for _ in range(2):
                [(same_there, (left, right))] = there.map([thing])
                assert same_there and left is right is thing, thing
    with Far(same) as there:
        for _ in range(2):
            for thing, back in zip(things, there.map(things)):
                assert back is thing, thing
    """
    )


def test_classes_of_main_work_in_the_worker(check):
    check(
        """
    def enums(_):
        return (Planet.EARTH.gravity, Color["CRIMSON"].name, Rights(3).name, bytes(Coordinate.PX),
                Coordinate(0).label, tuple(Couple.ONE), Couple(1).value, Lower.FIRST.value)
    assert far(enums, [0]) == [(5 / 6, "RED", "BOTH", b"\\0", "P.X", (1, 2), 1, "first")]

    def members(r):
        return (r.prop, r.cls() is Rich, r.static(), r.cached, r.remembered(), r.by_type(1),
                r.by_type(""))
    assert far(members, [Rich()]) == [(7, True, 8, 9, 10, "int", "other")]

    def classes(_):
        return (Point3(1).moved(), Named(1).total(), Concrete().go(), WithMeta.hello(),
                isinstance(Concrete(), Abstract), Box[int](3).value, Slots().b())
    assert far(classes, [0]) == [(Point(2), 2, 1, "hello", True, 3, 2)]
    """
    )


def test_functions_of_main_work_in_the_worker(check):
    check(
        """
    point = Point(1)
    assert far(fib, [30]) == [832040]
    assert far(even, [10, 11]) == [True, False]
    assert far(by_type, [1, "a"]) == ["int", "other"]
    calls = [point.moved, functools.partial(even, 3), Rich.cls, Point3(4).moved, lambda: point]
    assert far(lambda f: f(), calls) == [Point(2), False, Rich, Point(5), point]
    assert far(lambda a, b: a + b, [1, 2], range(2)) == [1, 3]
    def outer():
        def inner(n): return 1 if n == 0 else n * inner(n - 1)
        return inner
    assert far(outer(), [5]) == [120]
    assert [f(2) for f in far(lambda k: lambda x: x * k, [3, 4])] == [6, 8]
    """
    )


def test_state_in_the_worker_lasts_for_the_run_and_leaves_the_caller_alone(check):
    check(
        """
    CACHE = {}
    def fill(x):
        CACHE[x] = x
        return len(CACHE)
    def look(x): return len(CACHE)
    def both(x): return fill(x), look(x)
    with Far(both) as there:
        assert there.map([1, 2]) == [(1, 1), (2, 2)]
        assert there.map([3]) == [(3, 3)]
    with Far(lambda f: f(1)) as there:  # functions that come later, with the items
        assert there.map([fill]) == [1]
        assert there.map([look]) == [1]
    assert CACHE == {}

    Rich.made = 5
    def make(_):
        Rich()
        return Rich.made
    with Far(make) as there:
        assert there.map([0, Rich()]) == [6, 7]  # the caller's own is no worker's
        assert there.map([Rich()]) == [8]
    assert Rich.made == 7
    """
    )


def test_local_classes_keep_their_identity_too(check):
    check(
        """
    def local():
        class Local:
            count = 0
            def bump(self):
                type(self).count += 1
                return self
        return Local
    Local = local()
    method, item = Local.bump, Local()
    with Far(lambda x: x.bump()) as there:
        for _ in range(2):
            assert type(there.map([item])[0]) is Local
    assert Local.count == 0 and Local.bump is method
    with Far(lambda x: x.bump().count) as there:
        # Only the first time: with no object of it left, the worker may have forgotten the class.
        assert there.map([item]) == [1]
    Other = local()
    with Far(lambda _: Other().bump()) as there:
        assert type(there.map([0])[0]) is Other
    assert Other.count == 0
    made = far(lambda _: local()().bump(), [0])[0]
    assert type(made).__name__ == "Local" and made.count == 1
    """
    )


def test_exceptions_of_main_arrive_as_themselves(check):
    out = check(
        """
    import traceback
    def fail(x):
        try:
            1 / 0
        except ZeroDivisionError as error:
            raise Odd(5, "no") from error
    [error] = far(fail, [1])
    assert type(error) is Odd and (error.code, error.args) == (5, ("5: no",))
    assert type(error.__cause__) is ZeroDivisionError
    traceback.print_exception(error, file=__import__("sys").stdout)
    """
    )
    assert "in fail" in out
    assert "1 / 0" in out


def test_modules_that_a_worker_cannot_find_go_by_value(check, tmp_path):
    hidden = tmp_path / "elsewhere"
    hidden.mkdir()
    (hidden / "hidden.py").write_text("class K: pass\ndef f(x): return K(), x\n")
    check(
        """
    import importlib.util, os, sys, types
    spec = importlib.util.spec_from_file_location("hidden", "elsewhere/hidden.py")
    hidden = sys.modules["hidden"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hidden)
    [(made, x)] = far(hidden.f, [hidden.K])
    assert type(made) is hidden.K is x

    made = sys.modules["made"] = types.ModuleType("made")
    exec("class K: pass\\ndef f(x): return K(), x", made.__dict__)
    [(k, x)] = far(made.f, [made.K])
    assert type(k) is made.K is x

    """
    )
