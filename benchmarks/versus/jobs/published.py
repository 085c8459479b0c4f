"""The three workloads that Ray published, which mpire took over: each library in its best way.

One shared image and many filters; counting with state in workers; an expensive model loaded once.
Facts and sizes are theirs, scaled to a laptop (R. Nishihara, "10x Faster Parallel Python Without
Python Multiprocessing", 2019; mpire's documentation, 2.10); the code is not.
"""

from __future__ import annotations

from functools import partial
from itertools import count
from typing import Any

import parallelkit
from benchmarks.versus.jobs.data import parts
from benchmarks.versus.jobs.job import Job
from benchmarks.versus.peers import NEWCOMER, WELL, WORKERS
from benchmarks.versus.work import (
    Model,
    Prefixes,
    ask,
    asked,
    batch,
    convolved,
    counted,
    document,
    image,
    merged,
    taps,
)

PEERS = ("parallelkit", "Pool", "futures", "joblib", "loky", "mpire", "pathos", "Dask", "Ray")
OTHERS = PEERS[1:]


def everybody(way: str, how: Any) -> dict[str, Any]:
    return {f"{peer}/{way}": how for peer in PEERS}


# A shared image and many filters.


def pictures(count: int, _: float) -> tuple[Any, list[Any]]:
    return image(), [taps(number) for number in range(count)]


def filtering(peer: Any, given: Any) -> Any:
    picture, filters = given
    return peer.map(partial(convolved, picture), filters, 1)


def filtering_newly(peer: Any, given: Any) -> Any:
    picture, filters = given
    return peer.newcomer(partial(convolved, picture), filters)


_picture: list[Any] = []


def convolved_inherited(weights: Any) -> Any:
    return convolved(_picture[0], weights)


def filtering_forked(peer: Any, given: Any) -> Any:
    """Fork workers for the call, so that they inherit the image."""
    _picture[:] = [given[0]]
    return peer.newcomer(convolved_inherited, given[1])


def filtering_by_mpire(peer: Any, given: Any) -> Any:
    with peer.kind(WORKERS, shared_objects=given[0]) as pool:
        return pool.map(
            convolved, ((weights,) for weights in given[1]), iterable_len=len(given[1]),
            chunk_size=1, concatenate_numpy_output=False,
        )  # fmt: skip


def filtering_by_dask(peer: Any, given: Any) -> Any:
    there = peer.put(given[0])
    submit = partial(peer.client.submit, convolved, there, pure=False)
    return peer.fetch([submit(weights) for weights in given[1]])


def filtering_by_ray(peer: Any, given: Any) -> Any:
    there, remote = peer.put(given[0]), peer.remote(convolved)
    return peer.fetch([remote.remote(there, weights) for weights in given[1]])


FILTERING = (
    {"serial": lambda _, given: [convolved(given[0], weights) for weights in given[1]]}
    | everybody(NEWCOMER, filtering_newly)
    | everybody(WELL, filtering)
    | {
        "Pool/well": filtering_forked,
        "futures/well": filtering_forked,
        "mpire/well": filtering_by_mpire,
        "Dask/well": filtering_by_dask,
        "Ray/newcomer": filtering_by_ray,
        "Ray/well": filtering_by_ray,
    }
)

# Counting prefixes: a worker with state, or blocks and their counts.


def documents(count: int, _: float) -> list[Any]:
    return [document(number) for number in range(count)]


def counting(peer: Any, documents: Any) -> Any:
    """Merge counts while others are still counted."""
    cut = [[documents[number] for number in part] for part in parts(range(len(documents)))]
    return merged(peer.imap(counted, cut, 1))


def counting_one(words: Any) -> Any:
    return counted([words])


def counting_newly(peer: Any, documents: Any) -> Any:
    return merged(peer.newcomer(counting_one, documents))


def add_document(state: dict[str, Prefixes], *words: str) -> int:
    return state["prefixes"].add(words)


def begin_counting(state: dict[str, Prefixes]) -> None:
    state["prefixes"] = Prefixes()


def counts_of(state: dict[str, Prefixes]) -> Any:
    return state["prefixes"].counts


def counting_by_mpire(peer: Any, documents: Any) -> Any:
    with peer.kind(WORKERS, use_worker_state=True) as pool:
        pool.map(
            add_document, documents, worker_init=begin_counting, worker_exit=counts_of,
            chunk_size=max(1, len(documents) // (4 * WORKERS)),
        )  # fmt: skip
        return merged(pool.get_exit_results())


class Counting:
    """What an actor of Ray's or Dask's is made of."""

    def __init__(self) -> None:
        self.prefixes = Prefixes()

    def add(self, words: Any) -> int:
        return self.prefixes.add(words)

    def counts(self) -> Any:
        return self.prefixes.counts


def counting_by_ray(peer: Any, documents: Any) -> Any:
    actors = [peer.remote(Counting).remote() for _ in range(WORKERS)]
    for number, words in enumerate(documents):
        actors[number % WORKERS].add.remote(words)
    return merged(peer.fetch([actor.counts.remote() for actor in actors]))


COUNTING = (
    {"serial": lambda _, documents: counted(documents)}
    | everybody(NEWCOMER, counting_newly)
    | everybody(WELL, counting)
    | {
        "mpire/well": counting_by_mpire,
        "Ray/actors": counting_by_ray,
    }
)

# A model that is loaded once by each worker.


def questions(count: int, _: float) -> list[Any]:
    return [batch(number) for number in range(count)]


_editions = count(1)


def edited(given: Any) -> list[tuple[int, Any]]:
    edition = next(_editions)
    return [(edition, each) for each in given]


def asking(peer: Any, given: Any) -> Any:
    return peer.map(asked, edited(given))


def asking_newly(peer: Any, given: Any) -> Any:
    return peer.newcomer(asked, edited(given))


def asking_here(_: Any, given: Any) -> Any:
    model = Model()
    return [model.ask(each) for each in given]


def asking_with_state(_: Any, given: Any) -> Any:
    return parallelkit.pmap(ask, given, workers=WORKERS, worker_state=Model)


_state: list[Model] = []


def load() -> None:
    _state[:] = [Model()]


def ask_state(given: Any) -> float:
    return _state[0].ask(given)


def asking_by_initializer(peer: Any, given: Any) -> Any:
    """Start workers that load the model first; what a pool that is up cannot do."""
    if peer.name == "Pool":
        import multiprocessing

        with multiprocessing.Pool(WORKERS, load) as pool:
            return pool.map(ask_state, given)
    from concurrent.futures import ProcessPoolExecutor

    size = max(1, len(given) // (4 * WORKERS))
    with ProcessPoolExecutor(WORKERS, initializer=load) as executor:
        return list(executor.map(ask_state, given, chunksize=size))


def load_mpire(state: dict[str, Model]) -> None:
    state["model"] = Model()


def ask_mpire(state: dict[str, Model], given: Any) -> float:
    return state["model"].ask(given)


def asking_by_mpire(peer: Any, given: Any) -> Any:
    with peer.kind(WORKERS, use_worker_state=True) as pool:
        return pool.map(
            ask_mpire, [(each,) for each in given], worker_init=load_mpire,
            chunk_size=max(1, len(given) // (4 * WORKERS)),
        )  # fmt: skip


class Asking:
    """What an actor is made of."""

    def __init__(self) -> None:
        self.model = Model()

    def ask(self, batches: list[Any]) -> list[float]:
        return [self.model.ask(each) for each in batches]


def asking_by_ray(peer: Any, given: Any) -> Any:
    actors = [peer.remote(Asking).remote() for _ in range(WORKERS)]
    cut = [[given[number] for number in part] for part in parts(range(len(given)))]
    tasks = [actors[number % WORKERS].ask.remote(each) for number, each in enumerate(cut)]
    return [result for each in peer.fetch(tasks) for result in each]


ASKING = (
    {"serial": asking_here}
    | everybody(NEWCOMER, asking_newly)
    | everybody(WELL, asking)
    | {
        "parallelkit/well": asking_with_state,
        "Pool/well": asking_by_initializer,
        "futures/well": asking_by_initializer,
        "mpire/well": asking_by_mpire,
        "Ray/well": asking_by_ray,
    }
)

JOBS = [
    Job(
        "image", "one shared image of 32 MB, 16 filters", 16, pictures, convolved,
        ways=FILTERING, fewer=4,
    ),
    Job(
        "counting", "stateful counting of prefixes, 200 texts", 200,
        documents, counted, ways=COUNTING,
    ),
    Job(
        "model", "an expensive model loaded once, 400 questions", 400, questions, asked,
        ways=ASKING, whole=True, fewer=40,
    ),
]  # fmt: skip
