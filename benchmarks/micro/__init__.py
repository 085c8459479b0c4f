"""One part at a time: what a step of one room costs, apart from what a user would see.

- `hop`, `start`, `executor`, `small_calls`, `footprint`: with processes, in time.
- `rooms`: the steps of `loads`, in one process, in time.
- `counts`: the same steps in instructions, which a busy machine does not change; CI checks them.
- `crew`: many workers: how long their start holds the caller, and whether each has its share.
"""
