"""The house stands: rooms import downward, stay small, keep the words, and each has its test.

A new room is given its floor in `FLOORS`, or the first test fails.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOUSE = ROOT / "parallelkit"

# From the ground up; a room imports from lower rows only, so that no cycle can be.  Where rooms of
# one floor of the design need each other, the floor is a flight of stairs.
FLOORS = [
    {"errors", "records", "guests", "almanac"},
    {"events"},
    # Floor 1: what the computer gives, and how much to hand out.
    {
        "machine",
        "chunking",
        "learned",
        "board",
        "wire",
        "lending",
        "telling",
        "branches",
        "rota",
        "loops",
        "lull",
    },
    {"shortage", "ahead", "seat"},
    {"segments", "ledgers"},
    {"slabs", "handles", "operators", "arenas", "stealing"},
    {"shared", "portions", "outlook", "stacks", "governor", "mapped", "leases"},
    # Floor 2: one run, and what travels.
    {"scheduler", "sync", "failures", "seeding", "folding", "context", "culprits", "arrays"},
    {"columns", "parcels"},
    {"freight"},
    {"definitions"},
    {"byvalue", "steady"},
    {"frames", "scalars"},
    {"codec"},
    {"sync.cells", "sync.messages"},
    {"sync.lines"},
    {"sync.locks", "sync.permits", "sync.gates", "sync.queues"},
    {"sync.numerals"},
    # Floor 3: what runs in a worker, what watches.
    {"tasks", "pages", "stints", "job"},
    {"worker", "progress", "report", "journal"},
    {"remote"},
    # Floor 4: workers are described, started, kept, and used; or they are another engine's.
    {"zygote", "backends", "backends.duty"},
    {"spawned", "backends.cargo", "backends.greeting"},
    {"backends.start", "backends.slots"},
    {"backends.warm", "backends.executor"},
    {"backends.processes", "backends.threads", "backends.dask", "backends.ray", "backends.mpi"},
    {"backends.repeated"},
    {"selection"},
    # Floor 5: a run, a backend and a clock are joined.
    {"source", "options"},
    {"outcomes"},
    {"home", "guard"},
    {"engine"},
    {"calls"},
    {"solo", "brief"},
    # An executor: what its callers touch, then what its helper thread runs.
    {"broken", "desk"},
    {"trips"},
    {"service"},
    # Runs that async callers wait for: one among many, then the thread that serves them all.
    {"visits"},
    {"host", "feeding"},
    # Floors 6 and 7: what users call.
    {"maps", "reduce"},
    {"executor", "results", "files", "amaps"},
    {"pool"},
    {"joblib", "__main__"},
    {""},  # the package itself, whose names come from all rooms
]
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}

# The core is handed positions, numbers and the time; it can reach nothing else.
PURE = [
    *("errors", "records", "events", "chunking", "ledgers", "stealing", "portions", "outlook"),
    "scheduler",
]
PLAIN = {
    "__future__", "bisect", "collections", "dataclasses", "enum", "functools", "heapq", "itertools",
    "math", "operator", "reprlib", "statistics", "typing",
}  # fmt: skip

# Rooms whose test has another name, and why.
TESTED_IN = {
    "": "test_public",
    "__main__": "test_doctor",  # the command's name
    "broken": "test_executor",  # two classes, which mean something only in a future
    "results": "test_pool",  # which hands them out
    "service": "test_executor_faults",  # how it lives is how executors do
    "visits": "test_amaps",  # a run, and
    "host": "test_amaps_real",  # the thread that serves it, are seen by callers and processes
    "backends": "test_engine",  # a port does nothing by itself
    "backends.mpi": "test_fraud",  # what it takes is a script under mpiexec
    "events": "test_scheduler",  # words mean something only in a run
}

# Attributes born in a class of others, and set again in ours.
BORN_ELSEWHERE = {
    "Future": {"_state"},  # concurrent.futures'
    "Stream": {"globals_ref", "memo"},  # cloudpickle's Pickler
}

LINES = 450  # of a file: what one reader holds in mind in one sitting
BODY = 40  # lines of a function without its docstring: one screen
ATTRIBUTES = 12  # of a class; the worst of our peers have 36 and 40
VAGUE = re.compile(
    r"(?i)^_*(data|infos?|utils?|manager|handler)$|(Data|Info|Utils?|Manager|Handler)$"
)

# `import parallelkit` must cost next to nothing, and each worker's start pays for what it loads.
HEAVY = ["numpy", "asyncio", "cloudpickle", "psutil", "multiprocessing"]
HEAVY_IN_WORKERS = ["numpy", "asyncio", "inspect", "cloudpickle", "psutil"]
# Modules beyond an empty interpreter's: 57 where sockets, mmap, pickle and typing are all that a
# worker needs; tempfile and secrets together add 25 and 6 ms.  The rooms for large buffers are
# eight and 3 ms, paid once by the zygote and not by each worker that first gets an array.
WORKER_MODULES = 78

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def paths(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def room(path: Path) -> str:
    """Return a room's name in dots: `codec`, `backends.port`, and `` for the package itself."""
    return (
        ".".join(path.relative_to(HOUSE).with_suffix("").parts).removesuffix("__init__").strip(".")
    )


ROOMS = {room(path): path for path in paths("parallelkit")}
WRITTEN = {
    str(path.relative_to(ROOT)): path
    for path in paths("parallelkit", "tests", "benchmarks", "docs")
}
TESTS = {path.stem: path for path in paths("tests") if path.stem.startswith("test_")}

each_room = pytest.mark.parametrize("name", ROOMS)
each_file = pytest.mark.parametrize("path", WRITTEN.values(), ids=WRITTEN)
each_test = pytest.mark.parametrize("path", TESTS.values(), ids=TESTS)


def imported(name: str) -> Iterator[str]:
    """Yield, dotted and absolute, all that a room imports: at its top, in functions, for types."""
    package = ["parallelkit", *name.split(".")] if name else ["parallelkit"]
    if ROOMS[name].name != "__init__.py":
        package.pop()
    for node in ast.walk(parsed(ROOMS[name])):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            origin = ".".join([*above, *filter(None, [node.module])])
            yield from (resolved(origin, alias.name) for alias in node.names)


def resolved(origin: str, name: str) -> str:
    """Return the module behind `from origin import name`."""
    inner = f"{origin}.{name}".removeprefix("parallelkit.")
    return f"{origin}.{name}" if inner in ROOMS or origin == "parallelkit" else origin


@each_room
def test_a_room_has_a_floor_and_imports_from_lower_ones_only(name):
    assert name in FLOOR, "give it a floor in FLOORS"

    inner = {dotted[12:] for dotted in imported(name) if f"{dotted}.".startswith("parallelkit.")}
    assert not {other for other in inner if FLOOR.get(other, 99) >= FLOOR[name]}, "imports upward"


@pytest.mark.parametrize("name", PURE)
def test_the_core_touches_nothing_outside(name):
    if name not in ROOMS:
        pytest.fail(f"the core's room {name} is missing")

    tops = {dotted.split(".")[0] for dotted in imported(name)}
    assert tops <= PLAIN | {"parallelkit"}


@each_room
def test_a_room_is_on_the_map(name):
    page = (ROOT / "docs/explanation/architecture.md").read_text(encoding="utf-8")
    rows = page.partition("## Code map")[2].partition("\n## ")[0]

    assert not name or f"`{name}`" in rows, "give it a line in the code map"


@each_room
def test_a_room_has_a_test_of_its_own(name):
    plain, full = name.rpartition(".")[2], name.replace(".", "_")
    twin = plain in ROOMS and plain != name  # two rooms of one name need two tests
    wanted = {f"test_{full}"} if twin else {f"test_{full}", f"test_{plain}"}
    if name in TESTED_IN:
        wanted = {TESTED_IN[name]}

    written = bool(wanted & set(TESTS))

    assert written, f"write {' or '.join(sorted(wanted))}.py"


@each_file
def test_a_file_says_what_it_holds_and_is_short(path):
    assert len(path.read_text().splitlines()) <= LINES
    if path.stem != "__init__" or path.read_text():
        assert ast.get_docstring(parsed(path)), "it has no docstring"


def body(function: Function) -> int:
    """Return how many lines a function has, its signature included and its docstring not."""
    lines = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        lines -= first.end_lineno - first.lineno + 1
    return lines


@each_file
def test_functions_fit_on_a_screen(path):
    functions = [node for node in ast.walk(parsed(path)) if isinstance(node, Function)]

    assert not {each.name: body(each) for each in functions if body(each) > BODY}


def attributes(node: ast.AST) -> set[str]:
    """Return the names that are assigned on `self` anywhere below a node."""
    return {
        inner.attr
        for inner in ast.walk(node)
        if isinstance(inner, ast.Attribute)
        and isinstance(inner.ctx, ast.Store)
        and isinstance(inner.value, ast.Name)
        and inner.value.id == "self"
    }


def born(node: ast.ClassDef) -> set[str]:
    """Return the attributes that every object of a class has from the start."""
    found = set()
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            found.add(part.target.id)
        elif isinstance(part, ast.Assign):
            found |= {target.id for target in part.targets if isinstance(target, ast.Name)}
        elif isinstance(part, Function) and part.name in {"__init__", "__new__", "__post_init__"}:
            found |= attributes(part)
        elif isinstance(part, Function) and any(
            isinstance(mark, ast.Attribute) and mark.attr == "setter"
            for mark in part.decorator_list
        ):
            found.add(part.name)
    return found


@each_room
def test_classes_are_small_and_their_attributes_born_in_init(name):
    nodes = [node for node in ast.walk(parsed(ROOMS[name])) if isinstance(node, ast.ClassDef)]
    classes = {node.name: node for node in nodes}
    late = {}
    for each in nodes:
        known = BORN_ELSEWHERE.get(each.name, set()).union(*map(born, ancestry(each, classes)))
        late |= {each.name: attributes(each) - known} if attributes(each) - known else {}
    sizes = {each.name: len(attributes(each) | fields(each)) for each in nodes}

    assert not late, "attributes that are not born in __init__"
    assert not {name: size for name, size in sizes.items() if size > ATTRIBUTES}


def ancestry(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> list[ast.ClassDef]:
    """Return a class and those that it derives from, as far as they stand in its file."""
    bases = [classes[base.id] for base in node.bases if getattr(base, "id", "") in classes]
    return [node, *(older for base in bases for older in ancestry(base, classes))]


def fields(node: ast.ClassDef) -> set[str]:
    """Return the fields that a dataclass or a named tuple declares."""
    declared = [part.target for part in node.body if isinstance(part, ast.AnnAssign)]
    return {target.id for target in declared if isinstance(target, ast.Name)}


def bound(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a file gives to variables, parameters, functions and classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, Function | ast.ClassDef):
            yield node.name


@each_room
def test_names_say_what_they_name(name):
    vague = {word for word in [*bound(parsed(ROOMS[name])), *name.split(".")] if VAGUE.search(word)}

    assert not vague


def calls(tree: ast.AST) -> set[str]:
    """Return the names of what is called, without what they are looked up on."""
    functions = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {
        function.id if isinstance(function, ast.Name) else function.attr
        for function in functions
        if isinstance(function, ast.Name | ast.Attribute)
    }


@each_test
def test_tests_neither_sleep_nor_mock(path):
    tree = parsed(path)
    modules = {
        part
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for part in [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
    }

    assert "sleep" not in calls(tree)
    assert not {module for module in modules if "mock" in module.split(".")}


@each_test
def test_every_test_can_fail(path):
    toothless = [
        node.name
        for node in ast.walk(parsed(path))
        if isinstance(node, Function) and node.name.startswith("test_")
        if not any(isinstance(inner, ast.Assert) for inner in ast.walk(node))
        if not any(
            re.match(r"raises|warns|fail$|check|assert|expect", call) for call in calls(node)
        )
    ]

    assert not toothless, "no assert, no raises, no check_..."


def loaded(module: str) -> set[str]:
    """Return what a fresh interpreter has loaded once it has imported a module."""
    code = f"import sys, {module}; print(*sys.modules)"
    # -S, because an environment may load anything at start, through its .pth files.
    command = [sys.executable, "-S", "-c", code]
    run = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return set(run.stdout.split())


def test_importing_the_package_is_light():
    assert not loaded("parallelkit") & set(HEAVY)


def test_importing_the_worker_is_light():
    modules = loaded("parallelkit.worker")

    assert not modules & set(HEAVY_IN_WORKERS)
    assert len(modules - loaded("sys")) <= WORKER_MODULES
