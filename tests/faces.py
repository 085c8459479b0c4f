"""Every face of this library as one function: items in, one outcome for each out.

An outcome is a value or the exception that came in its place.  The faces that end with the first
error are called once for each item, with good ones around it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import joblib
from misdeeds import joined, listed, perform

import parallelkit
import parallelkit.joblib
from parallelkit import Executor, Pool, amap, arun, imap, pmap, preduce


def by_pmap(items: list[Any], workers: int = 2, **options: Any) -> list[Any]:
    return pmap(perform, items, workers=workers, on_error="return", **options)


def by_imap(items: list[Any], workers: int = 2, **options: Any) -> list[Any]:
    return list(imap(perform, iter(items), workers=workers, on_error="return", **options))


def by_preduce(items: list[Any], workers: int = 2, **options: Any) -> list[Any]:
    def call(some: list[Any]) -> list[Any]:
        return preduce(joined, some, map=listed, workers=workers, **options)

    return one_by_one(call, items)


def by_executor(items: list[Any], workers: int = 2, **options: Any) -> list[Any]:
    with Executor(workers, **options) as executor:
        return [outcome(future.result) for future in [executor.submit(perform, x) for x in items]]


def by_executor_map(items: list[Any], workers: int = 2, **options: Any) -> list[Any]:
    with Executor(workers, **options) as executor:
        return one_by_one(lambda some: list(executor.map(perform, some)), items)


def by_apply(items: list[Any], workers: int = 2) -> list[Any]:
    with Pool(workers) as pool:
        return [outcome(each.get) for each in [pool.apply_async(perform, (x,)) for x in items]]


def by_pool_imap(items: list[Any], workers: int = 2) -> list[Any]:
    with Pool(workers) as pool:
        results = pool.imap(perform, items)
        return [outcome(results.__next__) for _ in items]


def by_amap(items: list[Any], workers: int = 2, **options: Any) -> list[Any]:
    async def main() -> list[Any]:
        return await amap(perform, items, workers=workers, on_error="return", **options)

    return asyncio.run(main())


def by_amap_step_by_step(items: list[Any], workers: int = 2, **options: Any) -> list[Any]:
    async def main() -> list[Any]:
        results = amap(perform, iter(items), workers=workers, on_error="return", **options)
        return [each async for each in results]

    return asyncio.run(main())


def by_arun(items: list[Any]) -> list[Any]:
    async def one(item: Any) -> Any:
        try:
            return await arun(perform, item)
        except BaseException as error:
            return error

    async def main() -> list[Any]:
        return await asyncio.gather(*map(one, items))

    return asyncio.run(main())


def by_joblib(items: list[Any], workers: int = 2, whole: bool = False, **options: Any) -> list[Any]:
    def call(some: list[Any]) -> list[Any]:
        return joblib.Parallel(n_jobs=workers, **options)(joblib.delayed(perform)(x) for x in some)

    with registered(), joblib.parallel_config("parallelkit"):
        return call(items) if whole else one_by_one(call, items)


FACES: dict[str, Callable[..., list[Any]]] = {
    "pmap": by_pmap,
    "imap": by_imap,
    "preduce": by_preduce,
    "Executor.submit": by_executor,
    "Executor.map": by_executor_map,
    "Pool.apply_async": by_apply,
    "Pool.imap": by_pool_imap,
    "amap": by_amap,
    "async for": by_amap_step_by_step,
    "arun": by_arun,
    "joblib": by_joblib,
}


@contextlib.contextmanager
def registered() -> Iterator[None]:
    """Have joblib know our backend for the time being."""
    parallelkit.joblib.register()
    try:
        yield
    finally:
        del joblib.parallel.BACKENDS["parallelkit"]


def outcome(get: Callable[[], Any]) -> Any:
    """Return what `get` returns or raises."""
    try:
        return get()
    except BaseException as error:
        return error


def one_by_one(call: Callable[[list[Any]], list[Any]], items: list[Any]) -> list[Any]:
    """Return the outcome of each item, between good ones that have theirs if it has."""
    found = []
    for item in items:
        some = outcome(lambda item=item: call([3, item, 5]))
        if not isinstance(some, BaseException):
            assert (some[0], some[2]) == (-3, -5)
            some = some[1]
        found.append(some)
    return found
