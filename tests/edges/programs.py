"""Short random programs that start and end in every way, each with what README promises of its end.

A seed makes a program, always the same one.  It has no data race, and one end only comes first: either all ranks reach
the end of the program, each in its own way, or one rank (the ender) fails while the others cannot end without it, or a
signal comes when all of them wait.  So what is promised does not depend on the schedule, which differs in every run.
"""

import dataclasses
import random
import re
import textwrap


@dataclasses.dataclass(frozen=True)
class Promise:
    """What must come of a program."""

    statuses: frozenset[int]  # of the job; empty: any but 0
    told: tuple[str, ...] = ()  # patterns that are found in standard error
    about: frozenset[int] = frozenset()  # the ranks that dsm's last words in standard error may be about
    printed: tuple[str, ...] = ()  # lines of standard output, each there once

    def __str__(self):
        status = " or ".join(map(str, sorted(self.statuses))) or "any but 0"
        about = f"dsm's last words are about a rank of {sorted(self.about)}" if self.about else "dsm has no last words"
        lines = [f"status {status}; {about}", *(f"told: {text}" for text in self.told)]
        return "\n".join(lines + [f"printed: {text}" for text in self.printed])


@dataclasses.dataclass(frozen=True)
class Program:
    """A program, and what is promised of it."""

    seed: int
    kind: str
    ranks: int  # 0: without mpiexec
    env: dict[str, str]
    text: str
    promise: Promise
    by: str  # a signal that comes when every rank has said its process, and to whom: "SIGKILL 1", "SIGINT group"; or ""


@dataclasses.dataclass(frozen=True)
class End:
    """One way to end, as text of a program."""

    text: str
    status: int | None = 0  # None: any but 0
    seen: bool = True  # by dsm, which then says the rank; nothing sees os._exit before the start
    words: str = ""  # that Python itself prints


GOOD_ENDS = tuple(
    map(
        End,
        (
            "",
            "sys.exit()",
            "sys.exit(0)",
            "sys.exit(None)",
            "leave(0)",
            "raise SystemExit",
            "raise SystemExit(0)",
            "builtins.exit()",
            "quit(0)",
            "dsm.finalize()",
            "dsm.finalize()\nsys.exit(0)",
            "MPI.Finalize()",
            "dsm.finalize()\nMPI.Finalize()\nraise SystemExit(0)",
        ),
    )
)
IMPLICIT_ENDS = tuple(end for end in GOOD_ENDS if "inalize" not in end.text)


def bad_ends(status):
    """Ways to end that are failures, with this status where one can be chosen."""
    return (
        End(f"sys.exit({status})", status),
        End(f"leave({status})", status),
        End(f"raise SystemExit({status})", status),
        End(f"builtins.exit({status})", status),
        End(f"quit({status})", status),
        End(f"sys.exit({status} - 256)", status),
        End(f"class OwnExit(SystemExit):\n    pass\nraise OwnExit({status})", status),
        End("sys.exit('cannot go on')", 1, words="cannot go on"),
        End("raise SystemExit('cannot go on')", 1, words="cannot go on"),
        End("argparse.ArgumentParser().parse_args(['--unknown'])", 2, words="unrecognized arguments: --unknown"),
        End("raise LookupError('no such galaxy')", 1, words="LookupError: no such galaxy"),
        End("assert me < 0", 1, words="AssertionError"),
        End("raise ExceptionGroup('both', [ValueError('one'), OSError('two')])", 1, words="OSError: two"),
        End("raise KeyboardInterrupt", None, words="KeyboardInterrupt"),
        End("signal.raise_signal(signal.SIGINT)", None, words="KeyboardInterrupt"),
        End(f"MPI.COMM_WORLD.Abort({status})", status, seen=False),
        End(f"os._exit({status})", None, seen=False),
        End("os.kill(os.getpid(), signal.SIGKILL)", None, seen=False),
        End("os.kill(os.getpid(), signal.SIGTERM)", None, seen=False),
        End("os.abort()", None, seen=False),
        End("ctypes.string_at(8)", None, seen=False),
    )


def seen_ends(status):
    """Those after which Python comes to its end."""
    return tuple(end for end in bad_ends(status) if end.seen)


# Where a rank ends.
PLACES = (
    "{end}",
    "{end}",
    "with lock:\n    {end}",
    "with dsm.pinned(rows[0]):\n    {end}",
    "try:\n    {end}\nfinally:\n    time.sleep(0.05)",
    "try:\n    1 / 0\nexcept ZeroDivisionError:\n    {end}",
    "def deep(depth):\n    if depth:\n        deep(depth - 1)\n    {end}\ndeep(20)",
    "def handler(number, frame):\n    {end}\n"
    "signal.signal(signal.SIGTERM, handler)\nsignal.raise_signal(signal.SIGTERM)",
    "def handler(number, frame):\n    {end}\nsignal.signal(signal.SIGALRM, handler)\n"
    "signal.setitimer(signal.ITIMER_REAL, 0.1)\n{wait}",
)

# What a rank waits in for ever.  One rank holds `held`, the others never come to `never` and its like.
ENDLESS = """\
never, empty, condition = dsm.Event(), dsm.Semaphore(0), dsm.Condition()
parties, held = dsm.Barrier(100), dsm.Lock()
"""
WAITS = (
    "never.wait()",
    "held.acquire()",
    "held.acquire(timeout=60)",
    "empty.acquire()",
    "with condition:\n    condition.wait()",
    "parties.wait()",
    "time.sleep(60)",
    "threading.Event().wait()",
    "while True:\n    pass",
    "while True:\n    with lock:\n        total[0] += 1",
)
# What a rank waits in for the one that ends.
WAITS_FOR_ALL = (
    "dsm.barrier()",
    "dsm.zeros(10)",
    "dsm.Event()",
    "dsm.broadcast(rows)",
    "dsm.save('never.npy', rows)",
    "dsm.finalize()",
    "MPI.COMM_WORLD.Barrier()",
    "MPI.COMM_WORLD.recv(tag=77)",
)
# Collective calls, and what an error about one says: of the first one inside of it.
MEETINGS = {
    "dsm.barrier()": "barrier",
    "dsm.zeros(10)": "zeros",
    "dsm.broadcast(rows)": "broadcast",
}
FIRST_CALLS = ("dsm.init()", "dsm.barrier()", "dsm.zeros(10)", "dsm.Lock()", "dsm.array([1, 2])", "dsm.Barrier()")
MALFORMED = {"DSM_PAGE_SIZE": "4095", "DSM_PROGRESS": "later", "DSM_WATCHDOG_S": "soon", "DSM_CHECK": "yes"}
NODES = ("host", "2", "rank")  # DSM_NODE
SIGNALS = ("SIGINT group", "SIGTERM launcher", "SIGINT rank", "SIGTERM rank", "SIGKILL rank")

IMPORTS = """\
import argparse, atexit, builtins, concurrent.futures, ctypes, faulthandler, gc, multiprocessing, os, signal, subprocess
import sys, threading, time, traceback
from sys import exit as leave
import numpy as np
"""
EXITS = ("sys.exit(main())", "leave(main())", "raise SystemExit(main())", "builtins.exit(main())")
OWN_HOOK = "sys.excepthook = traceback.print_exception"
GLOBALS = "global rows, total, lock, kept, never, empty, condition, parties, held"


def indented(text, by=4):
    """Shift lines to the right."""
    return textwrap.indent(text, " " * by)


def placed(place, **parts):
    """Fill texts of several lines into a place."""
    lines = []
    for line in place.splitlines():
        word = line.strip()
        margin = len(line) - len(word)
        lines.append(indented(parts[word[1:-1]] or "pass", margin) if word[1:-1] in parts else line)
    return "\n".join(lines)


class Writer:
    """Writes one program: its body in parts, which are put together at the end."""

    def __init__(self, seed):
        self.seed = seed
        self.dice = random.Random(seed)
        self.ranks = self.dice.choice((0, 1, 2, 2, 2, 3, 3, 4))
        self.n = max(1, self.ranks)
        self.call = self.dice.choice(("", "", "main()", *EXITS))  # how the body is called; "": it is no function
        self.lines = []
        self.by = ""
        self.made = 0  # names
        self.fills = 0  # row r of `rows` holds fills + r
        self.counted = 0  # `total` holds as much after a barrier, at least
        self.printed = []  # lines, and functions that make one at the end of writing

    # ---- text --------------------------------------------------------------------------------------------------------

    def write(self, text):
        self.lines += text.splitlines()

    def on(self, ranks, text):
        """Write what only these ranks do."""
        if len(ranks) == self.n:
            self.write(text)
        elif ranks and text:
            self.write(f"if me in {ranks}:\n" + indented(text))

    def on_each(self, texts):
        """Write what each rank does for itself."""
        for text in dict.fromkeys(texts):
            self.on([rank for rank in range(self.n) if texts[rank] == text], text)

    def name(self, word):
        """Make a name that nothing else has."""
        self.made += 1
        return f"{word}{self.made}"

    def maybe(self, probability):
        return self.dice.random() < probability

    def a_rank(self):
        return self.dice.randrange(self.n)

    def some(self, ranks):
        ranks = list(ranks)
        return [rank for rank in ranks if self.maybe(0.6)] or ranks[:1]

    def delay(self):
        """Let the ranks sleep, each as long as it likes."""
        times = [self.dice.choice((0, 0, 0.03, 0.2, 0.5)) for _ in range(self.n)]
        if any(times):
            self.write(f"time.sleep({times}[me])")

    # ---- steps: all ranks do them, in the same order

    def count(self):
        times = self.dice.choice((1, 5, 50))
        self.write(f"for _ in range({times}):\n    with lock:\n        total[0] += 1")
        self.counted += times * self.n

    def check_count(self):
        self.write(f"dsm.barrier()\nwith lock:\n    assert total[0] >= {self.counted}, total[0]")

    def fill(self):
        self.fills += 10
        self.write(f"dsm.barrier()\nrows[me] = {self.fills} + me\ndsm.barrier()")

    def read(self):
        if not self.fills:
            self.fill()
        row = self.dice.choice((f"(me + {self.dice.randrange(4)}) % n", str(self.a_rank())))
        self.write(f"assert (rows[{row}] == {self.fills} + {row}).all()")

    def prefetch(self):
        self.write(f"dsm.prefetch(rows{self.dice.choice(('', '[::2]', '[:, ::3]', '[me]', '[-1, 100:]'))})")

    def pin(self):
        mode = self.dice.choice(("r", "rw", "w"))
        view = "rows[me]" if mode != "r" else self.dice.choice(("rows", "rows[0]", "rows[:, ::2]"))
        name = self.name("pin")
        self.write(f"{name} = dsm.pinned({view}, {mode!r})\n{name}.__enter__()")
        if self.maybe(0.4):
            self.write(f"{name}.__exit__(None, None, None)")

    def event(self):
        name, rank = self.name("event"), self.a_rank()
        self.write(f"{name} = dsm.Event()\nif me == {rank}:\n    {name}.set()\nelse:\n    assert {name}.wait()")

    def threads(self):
        number, times = self.dice.randint(1, 4), self.dice.choice((1, 10))
        work, name = self.name("work"), self.name("threads")
        self.write(
            f"def {work}():\n    for _ in range({times}):\n        with lock:\n            total[0] += 1\n"
            f"{name} = [threading.Thread(target={work}) for _ in range({number})]\n"
            f"for thread in {name}:\n    thread.start()\nfor thread in {name}:\n    thread.join()"
        )
        self.counted += number * times * self.n

    def executor(self):
        """A pool whose threads wait for more work until Python ends them."""
        if not self.fills:
            self.fill()
        name = self.name("pool")
        self.write(
            f"{name} = concurrent.futures.ThreadPoolExecutor(2)\n"
            f"assert list({name}.map(lambda row: int(rows[row % n, 0]), range(6))) == "
            f"[{self.fills} + i % n for i in range(6)]"
        )

    def arrays(self):
        name = self.name("array")
        make = self.dice.choice(
            (
                "dsm.zeros((n, 700), int)",
                "dsm.full((n, 3000), 7)",
                "dsm.ones((n, 5), page_size=1 << 16)",
                "dsm.array([[3] * 9] * n)",
            )
        )
        self.write(f"{name} = {make}\n{name}[me] = me\ndsm.barrier()\nassert ({name}[:, 0] == range(n)).all()")
        if self.maybe(0.6):
            self.write(f"dsm.free({name})")

    def counter(self):
        name, times = self.name("counter"), self.dice.choice((1, 20))
        self.write(f"{name} = dsm.Counter()\nfor _ in range({times}):\n    {name}.next()\ndsm.barrier()")
        self.write(f"assert {name}.value == {times} * n")

    def broadcast(self):
        self.write(f"dsm.broadcast(rows, root={self.a_rank()})")

    def gather(self):
        name = self.name("gathering")
        self.write(f"{name} = dsm.Barrier()\nassert 0 <= {name}.wait() < n")

    def places(self):
        name = self.name("places")
        self.write(f"{name} = dsm.Semaphore({self.dice.randint(1, 2)})\nwith {name}:\n    time.sleep(0.001)")

    def condition(self):
        name, rank = self.name("turn"), self.a_rank()
        self.write(
            f"{name}, {name}_word = dsm.Condition(), dsm.zeros(1)\nwith {name}:\n    if me == {rank}:\n"
            f"        {name}_word[0] = 1\n        {name}.notify_all()\n"
            f"    else:\n        {name}.wait_for(lambda: {name}_word[0])"
        )

    def files(self):
        name = self.name("file")
        self.write(f"dsm.save('saved.npy', rows)\n{name} = dsm.load('saved.npy')\nassert ({name} == rows).all()")

    def caught(self):
        """An end that is none."""
        end = self.dice.choice(seen_ends(5)).text
        self.on(
            [self.a_rank()],
            f"try:\n{indented(end)}\nexcept BaseException as error:\n    assert getattr(error, 'code', 5) is not None",
        )

    def thread_that_exits(self):
        """An exit in another thread ends that thread only."""
        target = self.dice.choice(("sys.exit", "leave", "builtins.exit", "raise_exit"))
        self.on(
            [self.a_rank()],
            "def raise_exit(status):\n    raise SystemExit(status)\n"
            f"thread = threading.Thread(target={target}, args=[3])\nthread.start()\nthread.join()",
        )

    def child(self):
        """A process that is no rank, and comes to its own end."""
        self.on_each(
            [
                self.dice.choice(
                    (
                        "",
                        "child = os.fork()\nif child == 0:\n    os._exit(0)\nos.waitpid(child, 0)",
                        "child = multiprocessing.get_context('fork').Process(target=sys.exit, args=[4])\n"
                        "child.start()\nchild.join()\nassert child.exitcode == 4",
                        "assert subprocess.run(['true']).returncode == 0",
                        "assert subprocess.run([sys.executable, '-S', '-c', 'raise SystemExit(4)']).returncode == 4",
                    )
                )
                for _ in range(self.n)
            ]
        )

    def rest(self):
        self.on_each([self.dice.choice(("", "time.sleep(0.02)", "gc.collect()")) for _ in range(self.n)])

    def step(self):
        often = (self.count, self.count, self.check_count, self.fill, self.fill, self.read, self.pin, self.prefetch)
        seldom = (self.event, self.threads, self.executor, self.arrays, self.counter, self.broadcast, self.gather)
        rare = (self.places, self.condition, self.files, self.caught, self.thread_that_exits, self.child, self.rest)
        self.dice.choice((*often, *seldom, *rare))()

    # ---- what goes on at the end of a program, or behind it ----------------------------------------------------------

    def park(self, ranks):
        """Leave daemon threads inside a wait, or in page faults."""
        kind = self.dice.choice(("lock", "timeout", "event", "condition", "semaphore", "barrier", "faults", "reads"))
        name = self.name(kind)
        made, target = {
            "lock": (f"{name} = dsm.Lock()", f"{name}.acquire"),
            "timeout": (f"{name} = dsm.Lock()", f"lambda: {name}.acquire(timeout=60)"),
            "event": (f"{name} = dsm.Event()", f"{name}.wait"),
            "condition": (
                f"{name}_of = dsm.Condition()\ndef {name}():\n    with {name}_of:\n        {name}_of.wait()",
                name,
            ),
            "semaphore": (f"{name} = dsm.Semaphore(0)", f"{name}.acquire"),
            "barrier": (f"{name} = dsm.Barrier(100)", f"{name}.wait"),
            "faults": (
                f"{name}_in, {name}_lock = dsm.zeros((20, 512)), dsm.Lock()\n"
                f"def {name}():\n    while True:\n        with {name}_lock:\n            {name}_in[...] += 1",
                name,
            ),
            "reads": (
                f"{name}_in = dsm.full((n, 512), 3)\n"
                f"def {name}():\n    while True:\n        assert ({name}_in == 3).all()",
                name,
            ),
        }[kind]
        self.write(made)
        if kind in ("lock", "timeout"):
            self.on([self.a_rank()], f"{name}.acquire()")
            self.write("dsm.barrier()")
        start = f"threading.Thread(target={target}, daemon=True).start()"
        self.on(self.some(ranks), f"for _ in range({self.dice.randint(1, 2)}):\n    {start}")
        if self.maybe(0.5):
            self.write("time.sleep(0.1)")

    def divide(self):
        """Let pages that are wanted again be under way when the program ends."""
        self.count()
        self.write("dsm.barrier()")
        self.on([self.a_rank()], "total /= n")

    def work_on(self, ranks):
        """Leave threads that Python waits for."""
        name, ranks = self.name("on"), self.some(ranks)
        self.write(
            f"def {name}():\n    for _ in range(20):\n        with lock:\n            total[0] += 1\n"
            f'    print(f"rank {{me}} went on", flush=True)'
        )
        self.on(ranks, f"threading.Thread(target={name}).start()")
        self.printed += [f"rank {rank} went on" for rank in ranks]

    def call_back(self, when):
        """Register a callback that only prints."""
        self.write(f'atexit.register(lambda: print(f"rank {{me}} calls back, {when}"))')
        self.printed += [f"rank {rank} calls back, {when}" for rank in range(self.n)]

    def read_at_exit(self, ranks, when):
        """Register a callback that reads an array."""
        name = self.name("read")
        line = f'print(f"rank {{me}} reads {{rows[-1, 0]:.0f}} at exit, {when}")'
        self.on(ranks, f"def {name}():\n    {line}\natexit.register({name})")
        self.printed += [lambda rank=rank: f"rank {rank} reads {self.last():.0f} at exit, {when}" for rank in ranks]

    def read_when_deleted(self, ranks):
        """Leave an object that reads an array when the interpreter deletes it."""
        self.write(
            "class Kept:\n    def __init__(self):\n        self.me, self.rows = me, rows\n"
            '    def __del__(self):\n        print(f"rank {self.me} reads {self.rows[-1, 0]:.0f} when deleted")'
        )
        self.on(ranks, "kept = Kept()")
        self.printed += [lambda rank=rank: f"rank {rank} reads {self.last():.0f} when deleted" for rank in ranks]

    def last(self):
        """What the last row holds at the end."""
        return self.fills + self.n - 1 if self.fills else 0

    # ---- programs ----------------------------------------------------------------------------------------------------

    def start(self):
        """The first collective calls, at different times."""
        self.delay()
        if self.maybe(0.3):
            self.write(self.dice.choice(("dsm.init()", "dsm.barrier()", "dsm.init(MPI.COMM_WORLD.Dup())")))
        width, page_bytes = self.dice.choice((1, 100, 600, 5000)), self.dice.choice((4096, 4096, 65536))
        self.write(f"rows, total = dsm.zeros((n, {width}), page_size={page_bytes}), dsm.zeros(1)")
        self.write(f"lock = dsm.{self.dice.choice(('Lock', 'RLock'))}()")
        if self.maybe(0.05):
            self.write(OWN_HOOK)

    def hold(self, rank):
        """Make what `WAITS` wait for, after the start."""
        self.write(ENDLESS)
        self.on([rank], "held.acquire()")
        self.write("dsm.barrier()")

    def steps(self, most):
        for _ in range(self.dice.randint(0, most)):
            self.step()

    def good(self):
        """All ranks reach the end, each in its own way."""
        ends = [self.dice.choice(GOOD_ENDS if self.maybe(0.6) else IMPLICIT_ENDS) for _ in range(self.n)]
        # After finalize arrays may not be touched; what goes on there, and waits, is an error of the program.
        implicit = [rank for rank in range(self.n) if ends[rank] in IMPLICIT_ENDS]
        if self.maybe(0.3):
            self.call_back("before the start")
        if implicit and self.maybe(0.2):
            self.read_at_exit(implicit, "before the start")
        self.start()
        self.steps(6)
        if self.maybe(0.3):
            self.call_back("after the start")
        if implicit and self.maybe(0.2):
            self.read_at_exit(implicit, "after the start")
        if implicit and self.maybe(0.15):
            self.read_when_deleted(implicit)  # and no daemon thread may keep what it refers to
        else:
            while implicit and self.maybe(0.4):
                self.park(implicit)
        self.steps(3)
        if self.maybe(0.4):
            self.divide()
        elif implicit and self.maybe(0.3):
            self.work_on(implicit)
        self.delay()
        self.write('print(f"rank {me} is at its end")')
        self.printed += [f"rank {rank} is at its end" for rank in range(self.n)]
        self.on_each([end.text for end in ends])
        return Promise(frozenset({0}))

    def bad(self):
        """One rank fails; the others wait for it, sooner or later."""
        ender, status = self.a_rank(), self.dice.randrange(3, 100)
        end, place = self.dice.choice(bad_ends(status)), self.dice.choice(PLACES)
        self.start()
        self.hold(ender)
        self.steps(5)
        if self.maybe(0.3):
            self.park(range(self.n))
        waits = [self.dice.choice((*WAITS, *WAITS_FOR_ALL, "", "", "")) for _ in range(self.n)]
        if self.call in EXITS and self.maybe(0.3) and "def" not in place:
            end = End(f"return {status}", status)
        text = placed(place, end=end.text, wait=self.dice.choice(WAITS))
        if end.seen:
            text = f'print("rank {ender} gives up")\n{text}'  # not flushed
            self.printed.append(f"rank {ender} gives up")
        self.delay()
        self.on_each([text if rank == ender else wait for rank, wait in enumerate(waits)])
        self.steps(3)
        if self.n > 1:
            self.on_each([self.dice.choice(GOOD_ENDS).text for _ in range(self.n)])
        return self.failure(ender, end)

    def failure(self, ender, end, size=None):
        """Promise what comes of a rank that fails while the others, of so many, wait."""
        size = size or self.n
        told = [re.escape(end.words)] if end.words else []
        if end.seen and size > 1:
            told.append(rf"dsm: rank {ender} of {size}: ")
        # Who is killed says nothing; its neighbours may say that it is gone.
        about = {ender} if end.seen else set(range(self.n))
        return Promise(frozenset() if end.status is None else frozenset({end.status}), tuple(told), frozenset(about))

    def alike(self):
        """All ranks fail in the same way."""
        end = self.dice.choice(seen_ends(self.dice.randrange(3, 100)))
        self.start()
        self.steps(4)
        self.delay()
        self.write(end.text)
        return dataclasses.replace(self.failure(0, end), told=(re.escape(end.words),), about=frozenset(range(self.n)))

    def after_the_end(self):
        """All ranks have ended dsm, then one fails: as every program fails that does not use dsm."""
        ender, end = self.a_rank(), self.dice.choice(seen_ends(self.dice.randrange(3, 100)))
        self.start()
        self.steps(4)
        self.write(self.dice.choice(("dsm.finalize()", "MPI.Finalize()", "dsm.finalize()\nMPI.Finalize()")))
        self.on([ender], end.text)
        return dataclasses.replace(self.failure(ender, end), told=(re.escape(end.words),), about=frozenset({ender}))

    def early(self):
        """One rank reaches its end, while the others go on to a collective call."""
        ender, end = self.a_rank(), self.dice.choice(GOOD_ENDS)
        call = self.dice.choice(tuple(MEETINGS))
        self.start()
        self.steps(4)
        self.on([ender], end.text or "pass")
        rest = [
            "" if rank == ender else self.dice.choice(("", "with lock:\n    total[0] += 1")) for rank in range(self.n)
        ]
        self.on_each(rest)
        self.delay()
        self.on([rank for rank in range(self.n) if rank != ender], f'{call}\nprint("passed", flush=True)')
        told = ("ranks met in different collective calls", "finalize", MEETINGS[call])
        return Promise(frozenset({1}), told, frozenset(range(self.n)))

    def before_the_start(self):
        """One rank fails before its first collective call, which the others are in, or come to."""
        ender = self.a_rank()
        end, call = self.dice.choice(bad_ends(self.dice.randrange(3, 100))), self.dice.choice(FIRST_CALLS)
        if self.maybe(0.3):
            name, value = self.dice.choice(tuple(MALFORMED.items()))
            end = End(f'os.environ["{name}"] = "{value}"\n{call}', 1, words=name)
        self.delay()
        self.on([ender], end.text)
        self.write(call)
        self.start()
        return self.failure(ender, end)

    def part(self):
        """One rank takes no part in dsm; it, or another, fails, or none does."""
        outside, ender = self.a_rank(), self.a_rank()
        inside = [rank for rank in range(self.n) if rank != outside]
        self.write(f"part = MPI.COMM_WORLD.Split(MPI.UNDEFINED if me == {outside} else 0, me)")
        self.delay()
        self.on(
            inside,
            "dsm.init(part)\ntotal, lock = dsm.zeros(1), dsm.Lock()\nfor _ in range(20):\n    with lock:\n"
            f"        total[0] += 1\ndsm.barrier()\nassert total[0] == 20 * {len(inside)}",
        )
        self.delay()
        if self.maybe(0.4):
            self.write('print(f"rank {me} is at its end")')
            self.printed += [f"rank {rank} is at its end" for rank in range(self.n)]
            self.on(inside, self.dice.choice(GOOD_ENDS).text)
            self.on([outside], self.dice.choice(IMPLICIT_ENDS).text)
            return Promise(frozenset({0}))
        end = self.dice.choice(bad_ends(self.dice.randrange(3, 100)))
        self.on([ender], end.text)
        self.on(inside, self.dice.choice(("dsm.barrier()", "lock.acquire()\ndsm.barrier()", "dsm.finalize()", "")))
        self.on([outside], self.dice.choice(("time.sleep(60)", "MPI.COMM_WORLD.Barrier()", "")))
        if ender == outside:
            return self.failure(ender, end)
        return self.failure(inside.index(ender), end, len(inside))

    def by_signal(self):
        """One rank at least waits for ever, and the others for it or at their ends, until a signal comes."""
        name, to = self.dice.choice(SIGNALS).split()
        to = str(self.a_rank()) if to == "rank" else to
        said = 'print(f"rank {me} is process {os.getpid()}", flush=True)'
        if self.maybe(0.3):
            self.write(said)
            self.on([self.a_rank()], "time.sleep(60)")
            self.write(self.dice.choice(FIRST_CALLS))
        self.start()
        self.hold(self.a_rank())
        self.steps(4)
        if said not in self.lines:
            self.write(said)
        waits = [self.dice.choice(WAITS) for _ in range(self.n)]
        if self.maybe(0.4):
            late = self.a_rank()
            waits = [waits[rank] if rank == late else self.dice.choice(GOOD_ENDS).text for rank in range(self.n)]
        self.on_each(waits)
        self.by = f"{name} {to}"
        return Promise(frozenset(), (), frozenset(range(self.n)))

    def settings(self):
        env = {"DSM_WATCHDOG_S": "6", "DSM_NODE": self.dice.choice(NODES)}
        for name, probability, values in (
            ("DSM_PROGRESS", 0.3, ("poll", "spin")),
            ("DSM_STATS", 0.2, ("1",)),
            ("DSM_CHECK", 0.1, ("1", "2")),
            ("DSM_COLLECT_BYTES", 0.1, ("1",)),
            ("DSM_CHAOS", 0.1, ("7", "4711")),
        ):
            if self.maybe(probability):
                env[name] = self.dice.choice(values)
        return env

    def head(self):
        lines = ["import dsm", "from mpi4py import MPI"]
        self.dice.shuffle(lines)
        if self.maybe(0.1):
            lines.insert(self.dice.randint(0, 2), OWN_HOOK)
        if self.maybe(0.2):
            lines.insert(0, "faulthandler.enable()")
        lines.append("me, n = MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size")
        lines.append("faulthandler.register(signal.SIGUSR2)  # a job that hangs is asked where it is")
        return IMPORTS + "\n".join(lines)

    def body(self):
        text = "\n".join(self.lines)
        return f"def main():\n{indented(GLOBALS)}\n{indented(text)}\n\n{self.call}" if self.call else text

    def program(self):
        """Write the whole program."""
        kinds = [self.good] * 9 + [self.bad] * 7 + [self.before_the_start] * 2 + [self.by_signal] * 2
        kinds += [self.alike, self.after_the_end] + [self.early] * (self.n > 1) + [self.part] * (self.n > 2)
        kind = self.dice.choice(kinds)
        promise = kind()
        printed = tuple(line if isinstance(line, str) else line() for line in self.printed)
        promise = dataclasses.replace(promise, printed=printed)
        text = f"{self.head()}\n\n{self.body()}\n"
        return Program(self.seed, kind.__name__, self.ranks, self.settings(), text, promise, self.by)


def program(seed):
    """Make the program of a seed."""
    return Writer(seed).program()
