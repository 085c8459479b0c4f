"""parallelkit beside the loop and beside its peers: the same jobs, measured in one run.

    python -m benchmarks.versus [--quick] [--jobs NAMES] [--peers NAMES] [--out DIR]
    python -m benchmarks.versus.pages

The first measures; with `--out benchmarks/results` it writes what the second puts into the pages.

- `work`: the functions that all map; `peers`: the libraries behind the same few methods.
- `jobs`: what is to be done, and how each library does it best; a job is one entry.
- `scripts`: the jobs that are whole processes.
- `contestant`: the process of one library; `stage`: whose turn it is, and what it took.
- `figures`: what follows from the seconds; `goals`: what is to hold.
- `report`, `plot`, `pages`: how it is told.
"""
