"""What processes agree with: locks, permits, gates, queues and numbers that several of them share.

All of them are picklable handles of some 200 bytes, good in any process as long as their sender
has the object.  They need no semaphores of the system, and none is left locked by a process that
was killed.

- `cells`: the memory of each, and the lock over it
- `lines`: how to wait for what another process does
- `locks`: Lock, RLock, Condition
- `permits`: Semaphore, BoundedSemaphore
- `gates`: Event, Barrier
- `messages`, `queues`: Queue
- `numerals`: Counter, Value
"""
