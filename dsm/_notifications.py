"""The queue of a condition: threads of all ranks that wait for a notification.

A notification must reach exactly one thread, and the waiting thread should not have to ask for it.  The hand-over of a
lock cannot carry it, because only the holder of a lock can give the lock away, and any thread may notify.  So each rank
has a `Counter` that is at home there.  A notifier adds to the counter of a waiter's rank, which costs one message.  A
waiter waits until a number in its own process changes, which costs none (`dsm_counter_await`).

The number of waiting threads of each rank lies in shared memory, under the condition's lock.  A notification names a
rank; the rank gives it to its thread that waited longest.  No notification is lost:

- A waiter registers before it releases the lock, so the next holder of the lock sees it.
- A notifier has the counter's answer before it releases the lock.  A waiter whose timeout is over acquires the lock
  again, reads its own counter, and so knows whether a notification reached it after all.
"""

from __future__ import annotations

import threading
from collections import deque

import numpy as np

from dsm import _runtime
from dsm._counter import Counter
from dsm._creation import zeros
from dsm._nodes import nodes_of
from dsm._settings import PAGE_BYTES_MIN
from dsm._timeout import left_of


class Waiter:
    """A waiting thread.  It sleeps on `asleep`, which is released when the thread has something to look at."""

    __slots__ = ("asleep", "notified")

    def __init__(self) -> None:
        self.notified = False
        self.asleep = threading.Lock()
        self.asleep.acquire()

    def wake(self) -> None:
        """Let the thread look whether it was notified.  Local."""
        if self.asleep.locked():
            self.asleep.release()


class NotificationQueue:
    """The waiting threads of all ranks.  The caller holds the condition's lock, except in `block` and `abandon`.

    One thread of each rank, the leader, waits in the core and wakes the thread that a notification is for.  The other
    waiting threads of the rank sleep in Python.

    Parameters
    ----------
    label : str
        Names the counters and the array of the queue in messages and statistics.
    words : int
        Numbers in shared memory for the caller's own use, zero at first.
    """

    def __init__(self, label: str, words: int) -> None:
        self._size = _runtime.started().size
        self._rank = _runtime.rank()
        memory = zeros(self._size + 1 + words, np.int64, page_size=PAGE_BYTES_MIN, name=label)
        self._waiting, self._turn, self.words = np.split(memory, [self._size, self._size + 1])
        waiting = [list(ranks) for ranks in nodes_of(_runtime.started())]  # of each node, that have no counter yet
        self._counters: dict[int, Counter] = {}  # by rank
        while len(self._counters) < self._size:
            counter = Counter(name=label)
            if ranks := waiting[counter._number % len(waiting)]:
                self._counters[ranks.pop()] = counter
        self._own = self._counters[self._rank]._number
        self._guard = threading.Lock()  # guards the attributes below, among the threads of this rank
        self._threads: deque[Waiter] = deque()
        self._leader: Waiter | None = None
        self._sleepers: dict[Waiter, None] = {}  # the next leaders, in order
        self._seen = 0  # notifications so far

    def enter(self) -> Waiter:
        """Register this thread as waiting.  Local."""
        waiter = Waiter()
        self._take()
        with self._guard:
            self._threads.append(waiter)
            self._waiting[self._rank] = len(self._threads)
        return waiter

    def block(self, waiter: Waiter, end_s: float | None) -> None:
        """Wait until the thread is notified, or until the end on the monotonic clock.  Local."""
        try:
            while True:
                with self._guard:
                    if waiter.notified:
                        return
                    self._leader = self._leader or waiter
                    leads, seen = self._leader is waiter, self._seen
                    if not leads:
                        self._sleepers[waiter] = None
                left_s = left_of(end_s)
                if left_s is not None and left_s <= 0:
                    return
                if leads:
                    slice_s = _runtime.slice_s()
                    self._take(seen, slice_s if left_s is None else min(left_s, slice_s))
                else:
                    waiter.asleep.acquire(timeout=-1 if left_s is None else left_s)
        finally:
            self._pass_lead_on(waiter)

    def _pass_lead_on(self, waiter: Waiter) -> None:
        with self._guard:
            self._sleepers.pop(waiter, None)
            if self._leader is waiter:
                self._leader = next(iter(self._sleepers), None)
                if self._leader is not None:
                    del self._sleepers[self._leader]
                    self._leader.wake()

    def leave(self, waiter: Waiter) -> bool:
        """Take the thread out of the queue, and return whether it was notified.  Local."""
        self._take()
        with self._guard:
            if not waiter.notified:
                self._threads.remove(waiter)
                self._waiting[self._rank] = len(self._threads)
            return waiter.notified

    def abandon(self, waiter: Waiter) -> None:
        """Take the thread out without the lock; the next `enter` or `leave` corrects the number of waiters.  Local."""
        with self._guard:
            if not waiter.notified:
                self._threads.remove(waiter)

    def notify(self, n: int) -> None:
        """Notify `n` threads at most; the ranks take turns.  Local."""
        ranks = np.flatnonzero(self._waiting)
        if not len(ranks):
            return
        for rank in np.roll(ranks, -int(np.searchsorted(ranks, self._turn[0]))).tolist():
            if n <= 0:
                return
            here = min(n, int(self._waiting[rank]))
            n -= here
            self._waiting[rank] -= here
            self._turn[0] = rank + 1
            self._counters[rank]._add(here)

    def notify_all(self) -> None:
        """Notify all waiting threads.  Local."""
        self.notify(int(self._waiting.sum()))

    def _take(self, seen: int | None = None, slice_s: float = 0.0) -> None:
        """Give new notifications to the threads that waited longest; first wait until there are more than `seen`."""
        runtime = _runtime.active()
        value = runtime.ffi.new("int64_t *")
        beside = len(self._sleepers)
        code = runtime.lib.dsm_counter_await(self._own, self._seen if seen is None else seen, beside, slice_s, value)
        if code != runtime.lib.DSM_AGAIN:
            runtime.check(code)
        with self._guard:
            for _ in range(min(int(value[0]) - self._seen, len(self._threads))):
                waiter = self._threads.popleft()
                waiter.notified = True
                waiter.wake()
            self._seen = max(self._seen, int(value[0]))
