"""What is raised in a worker arrives as itself, or as text when it cannot."""

from __future__ import annotations

import pickle
import threading
import traceback

import pytest

from parallelkit.codec import Definitions, Replica
from parallelkit.errors import RemoteError
from parallelkit.failures import (
    FRAMES,
    MOST,
    keeps_default_reduce,
    pack_error,
    revive,
    unpack_error,
)


def caught(raise_it, *args) -> BaseException:
    try:
        raise_it(*args)
    except BaseException as error:
        return error
    raise AssertionError


def throw(error: BaseException) -> None:
    raise error


def travelled(error: BaseException) -> BaseException:
    here = Definitions(None)
    return unpack_error(pack_error(error, Replica()), here)


class OwnInit(Exception):
    def __init__(self, code, *, text):
        super().__init__(f"{code}: {text}")
        self.code = code


class OwnInitThatLoads(Exception):
    def __init__(self, code):
        super().__init__(f"error {code}")


class OwnOSError(OSError):
    def __init__(self, name):
        super().__init__(2, "gone", name)
        self.extra = name * 2


class OwnNew(ValueError):
    def __new__(cls, one, two):
        return super().__new__(cls, one)

    def __init__(self, one, two):
        super().__init__(one)


class OwnReduce(Exception):
    def __init__(self, one, two):
        super().__init__(one)
        self.two = two

    def __reduce__(self):
        return OwnReduce, (self.args[0], self.two)


class NoNotes(Exception):
    __slots__ = ()

    def add_note(self, note):
        raise TypeError("no")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a", 1),
        KeyError("k"),
        OSError(2, "gone", "file"),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"),
        ImportError("no", name="m", path="p"),
        StopIteration(3),
        SystemExit(4),
        KeyboardInterrupt(),
        GeneratorExit(),
        AttributeError("x", name="n"),
        OwnInit(3, text="a"),
        OwnInitThatLoads(3),
        OwnOSError("f"),
        OwnNew(1, 2),
        OwnReduce(1, 2),
        NoNotes("n"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_arrives_with_its_type_arguments_and_attributes(error):
    arrived = travelled(error)

    assert type(arrived) is type(error)
    assert (arrived.args, str(arrived), vars(arrived)) == (error.args, str(error), vars(error))
    for name in ("errno", "filename", "name", "path", "code", "value", "start"):
        if not isinstance(error, AttributeError):  # whose name pickle itself loses before 3.12
            assert getattr(arrived, name, None) == getattr(error, name, None)


def test_cause_context_notes_and_suppression_arrive():
    def chained():
        try:
            try:
                throw(KeyError("first"))
            except KeyError as error:
                raise ValueError("second") from error
        except ValueError:
            raised = TypeError("third")
            raised.add_note("mind this")
            raise raised from None

    arrived = travelled(caught(chained))

    assert arrived.__notes__[0] == "mind this"
    assert arrived.__suppress_context__
    assert arrived.__cause__ is None
    second = arrived.__context__
    assert repr(second) == "ValueError('second')"
    assert second.__cause__ is second.__context__
    assert repr(second.__cause__) == "KeyError('first')"


def test_circles_and_endless_chains_end():
    first, second = ValueError(1), ValueError(2)
    first.__cause__, second.__cause__ = second, first
    arrived = travelled(first)
    assert arrived.__cause__.__cause__ is arrived

    error = last = ValueError(0)
    for number in range(10 * MOST):
        last.__context__ = ValueError(number)
        last = last.__context__
    arrived, count = travelled(error), 0
    while arrived is not None:
        arrived, count = arrived.__context__, count + 1
    assert count == MOST


def test_a_group_arrives_with_its_members_and_their_causes():
    def grouped():
        inner = ValueError("a")
        inner.__cause__ = KeyError("why")
        raise ExceptionGroup("all", [inner, ExceptionGroup("sub", [OSError(2, "gone")])])

    arrived = travelled(caught(grouped))

    assert repr(arrived.exceptions[0].__cause__) == "KeyError('why')"
    assert repr(arrived.exceptions[1].exceptions[0]) == repr(OSError(2, "gone"))


class Unpicklable(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


class Unloadable(Exception):
    def __reduce__(self):
        return throw, (RuntimeError("not here"),)


class Changeling(Exception):
    def __reduce__(self):
        return ValueError, ("other",)


class Mute(Unpicklable):
    def __str__(self):
        raise RuntimeError

    __repr__ = __str__


NO_LOCKS = "TypeError: cannot pickle '_thread.lock' object"


@pytest.mark.parametrize(
    ("error", "text", "reason"),
    [
        (Unpicklable("a"), "Unpicklable: a", NO_LOCKS),
        (Unloadable("b"), "Unloadable: b", "RuntimeError: not here"),
        (Changeling("c"), "Changeling: c", "Changeling comes back as ValueError"),
        (Mute("d"), "Mute: <its __str__ raised RuntimeError>", NO_LOCKS),
    ],
    ids=["unpicklable", "unloadable", "changeling", "mute"],
)
def test_what_cannot_travel_is_told(error, text, reason):
    def raising():
        throw(error)

    arrived = travelled(caught(raising))

    assert type(arrived) is RemoteError
    assert str(arrived).startswith(f"test_failures.{text}\n(sent as text, because ")
    assert str(arrived).endswith(f"{reason})")
    assert "in raising" in arrived.__notes__[0]


def test_one_that_cannot_travel_does_not_keep_its_relatives():
    def chained():
        try:
            throw(Unpicklable("a"))
        except Unpicklable as error:
            raise ExceptionGroup("all", [ValueError(1), Unpicklable("b")]) from error

    arrived = travelled(caught(chained))

    assert [type(one) for one in arrived.exceptions] == [ValueError, RemoteError]
    assert type(arrived.__cause__) is RemoteError
    assert arrived.message == "all"


def test_the_traceback_is_a_note_with_the_users_frames():
    def f():
        return 1 / 0

    arrived = travelled(caught(f))

    shown = "".join(traceback.format_exception(arrived))
    assert shown.startswith("ZeroDivisionError: division by zero\nTraceback in worker ")
    assert "in f\n    return 1 / 0" in shown


def test_frames_of_parallelkit_come_not_first():
    def f():
        return 1 / 0

    scope = {"f": f}
    exec(compile("def library(): f()", revive.__code__.co_filename, "exec"), scope)

    def packed():
        try:
            scope["library"]()
        except ZeroDivisionError as error:
            error.__traceback__ = error.__traceback__.tb_next  # this function's own
            return pack_error(error, Replica())

    note = unpack_error(packed(), Definitions(None)).__notes__[0]

    assert "in library" not in note
    assert "in f" in note


def test_a_deep_traceback_is_cut_in_the_middle():
    def ping(n):
        return pong(n - 1) if n else 1 / 0

    def pong(n):
        return ping(n - 1) if n else 1 / 0

    note = travelled(caught(ping, 300)).__notes__[0]

    assert note.count("File") == 2 * FRAMES
    assert "frames left out]" in note


def test_a_frame_that_does_not_load_here_is_told():
    class Refusing:
        dumps = staticmethod(pickle.dumps)

        @staticmethod
        def loads(frame):
            raise ModuleNotFoundError("No module named 'x'")

    arrived = unpack_error(pack_error(ValueError("a"), Replica()), Refusing)

    assert str(arrived) == (
        "ValueError: a\n(sent as text, because ModuleNotFoundError: No module named 'x')"
    )


def test_local_exceptions_arrive_as_the_callers_own_by_its_definitions():
    class Local(Exception):
        pass

    here, there = Definitions(lambda: Local("a")), Replica()
    error = there.learn(here.blobs[0])()

    arrived = unpack_error(pack_error(error, there), here)

    assert type(error) is not Local
    assert type(arrived) is Local


def test_only_classes_with_an_init_of_their_own_are_revived():
    kept = [kind for kind in (ValueError, OwnInit, OwnNew, OwnReduce) if keeps_default_reduce(kind)]

    assert kept == [OwnInit, OwnNew]
    assert revive(OwnOSError, (2, "gone", "f")).filename == "f"
