"""A state machine over the real protocol: hypothesis chooses every operation and every step, and shrinks what fails.

The simulator (tests/native/sim.h) is driven by hand: a rule tells an idle thread of some node what to do, delivers the
next message of a channel, or runs a thread by one step.  The model that judges the reads is plain Python and knows
nothing of pages or messages: a read must return a value that no other write replaced before it, as far as locks and
barriers order them.  `DSM_TEST_EXAMPLES=10000` tries more than the default.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest
from hypothesis import stateful
from hypothesis import strategies as st
from native import simulator

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = int(os.environ.get("DSM_TEST_EXAMPLES", "120"))
LOCKS = 2
CELLS = ((0, 1), (1, 1), (63, 1), (64, 8))  # offset and bytes; on one page each, so that a thread uses it in one step
PINS = 2


class Node:
    """What one node knows: how many writes of each node happen before what it does next (Mattern 1989)."""

    def __init__(self, nodes):
        self.clock = [0] * nodes

    def learn(self, clock):
        self.clock = [max(pair) for pair in zip(self.clock, clock, strict=True)]


class Model:
    """Who wrote what, and what orders it."""

    def __init__(self, nodes):
        self.nodes = [Node(nodes) for _ in range(nodes)]
        self.writes = [[(0, None, [0] * nodes)] for _ in CELLS]  # value, node, clock
        self.locks = [[0] * nodes for _ in range(LOCKS)]
        self.arrivals = {}

    def write(self, rank, cell, value):
        node = self.nodes[rank]
        node.clock[rank] += 1
        self.writes[cell].append((value, rank, list(node.clock)))

    def allowed(self, rank, cell):
        """The values that a read of this node may return now."""

        def before(write, clock):
            return write[1] is None or clock[write[1]] >= write[2][write[1]]

        known = [write for write in self.writes[cell] if before(write, self.nodes[rank].clock)]
        return {
            write[0]
            for write in self.writes[cell]
            if not any(other is not write and other[1] is not None and before(write, other[2]) for other in known)
        }

    def acquire(self, rank, lock):
        self.nodes[rank].learn(self.locks[lock])

    def release(self, rank, lock):
        self.locks[lock] = [max(pair) for pair in zip(self.locks[lock], self.nodes[rank].clock, strict=True)]

    def arrive(self, rank, meeting):
        self.arrivals.setdefault(meeting, []).append(list(self.nodes[rank].clock))

    def depart(self, rank, meeting):
        assert len(self.arrivals[meeting]) == len(self.nodes)
        for clock in self.arrivals[meeting]:
            self.nodes[rank].learn(clock)


class Thread:
    """What a thread was told to do, as long as it is not done."""

    def __init__(self, rank):
        self.rank, self.op, self.queue, self.begun, self.locks, self.pins = rank, None, [], False, [], 0


class Protocol(stateful.RuleBasedStateMachine):
    """2 to 5 nodes with a main thread and another one each."""

    def __init__(self):
        super().__init__()
        self.run = None

    @stateful.initialize(nodes=st.integers(2, 5), whole=st.integers(0, 3), stay_open=st.sampled_from([0, 500]))
    def start(self, nodes, whole, stay_open):
        program = simulator.Program(nodes)
        slot = program.slot(128)
        for offset, size in CELLS:
            program.cell(slot, offset, size)
        program.locks(LOCKS)
        self.threads = [Thread(program.thread(node)) for node in range(nodes)]
        for node in range(nodes):
            program.thread(node)
            self.threads.append(Thread(node))
        self.model, self.nodes = Model(nodes), nodes
        self.values = [0] * len(CELLS)
        self.meetings = [0] * nodes
        self.run = simulator.Open(program, whole=whole, stay_open=stay_open)

    # --- what threads do ---

    def tell(self, thread, kind, what=0, value=0, *then):
        """Give an idle thread an operation, and what it does after that."""
        self.run.op(thread, kind, what, value)
        state = self.threads[thread]
        state.op, state.begun, state.queue = (kind, what, value), False, list(then)

    def new_value(self, cell):
        """No value twice: a write of what is there already is none, for this protocol."""
        self.values[cell] = min(self.values[cell] + 1, 255)
        return self.values[cell]

    def idle_thread(self, number):
        """One of the threads that have nothing to do, or None."""
        idle = [index for index, thread in enumerate(self.threads) if thread.op is None]
        return idle[number % len(idle)] if idle else None

    @stateful.rule(number=st.integers(0, 9), cell=st.integers(0, len(CELLS) - 1))
    def read(self, number, cell):
        thread = self.idle_thread(number)
        if thread is not None:
            self.tell(thread, "peek", cell)

    @stateful.rule(number=st.integers(0, 9), cell=st.integers(0, len(CELLS) - 1))
    def write(self, number, cell):
        thread = self.idle_thread(number)
        if thread is not None:
            self.tell(thread, "write", cell, self.new_value(cell))

    @stateful.rule(number=st.integers(0, 9), lock=st.integers(0, LOCKS - 1), cell=st.integers(0, len(CELLS) - 1))
    def section(self, number, lock, cell):
        """Read and write under the lock."""
        thread = self.idle_thread(number)
        if thread is not None and all(held < lock for held in self.threads[thread].locks):
            write = ("write", cell, self.new_value(cell))
            self.tell(thread, "acquire", lock, 0, ("peek", cell), write, ("release", lock))

    @stateful.rule(number=st.integers(0, 9), lock=st.integers(0, LOCKS - 1))
    def acquire(self, number, lock):
        """In ascending order only, else the program would be what deadlocks."""
        thread = self.idle_thread(number)
        if thread is not None and all(held < lock for held in self.threads[thread].locks):
            self.tell(thread, "acquire", lock)

    @stateful.rule(number=st.integers(0, 9))
    def release(self, number):
        thread = self.idle_thread(number)
        if thread is not None and self.threads[thread].locks:
            self.tell(thread, "release", self.threads[thread].locks[-1])

    @stateful.rule(number=st.integers(0, 4))
    def arrive(self, number):
        """At a barrier: main threads only, and nobody waits there with a lock."""
        main = number % self.nodes
        if self.threads[main].op is None and not self.threads[main].locks:
            self.tell(main, "barrier")

    @stateful.rule(number=st.integers(0, 9), cell=st.integers(0, len(CELLS) - 1), writing=st.booleans())
    def pin(self, number, cell, writing):
        thread = self.idle_thread(number)
        if thread is not None and self.threads[thread].pins < PINS:
            self.tell(thread, "pin", cell, int(writing))

    @stateful.rule(number=st.integers(0, 9))
    def unpin(self, number):
        thread = self.idle_thread(number)
        if thread is not None and self.threads[thread].pins:
            self.tell(thread, "unpin")

    @stateful.rule(number=st.integers(0, 9), cell=st.integers(0, len(CELLS) - 1))
    def prefetch(self, number, cell):
        thread = self.idle_thread(number)
        if thread is not None:
            self.tell(thread, "hint", cell)

    @stateful.rule(number=st.integers(0, 9))
    def want_a_collection(self, number):
        thread = self.idle_thread(number)
        if thread is not None:
            self.tell(thread, "request")

    # --- the schedule ---

    def choose(self, choice):
        """One step, and what follows from it for the model."""
        first = self.run.lib.SIM_THREAD_CHOICE
        if choice < first:
            self.run.choose(choice)
            return
        thread = self.threads[choice - first]
        kind, what, value = thread.op
        if kind == "barrier" and not thread.begun:
            self.meetings[thread.rank] += 1
            self.model.arrive(thread.rank, self.meetings[thread.rank])
        thread.begun = True
        self.run.choose(choice)
        if not self.run.idle(choice - first):
            return
        thread.op = None
        if kind == "peek":
            self.judge(thread.rank, what, self.run.seen(choice - first))
        elif kind == "write":
            self.model.write(thread.rank, what, value)
        elif kind == "acquire":
            self.model.acquire(thread.rank, what)
            thread.locks.append(what)
        elif kind == "release":
            self.model.release(thread.rank, what)
            thread.locks.remove(what)
        elif kind == "barrier":
            self.model.depart(thread.rank, self.meetings[thread.rank])
        elif kind in ("pin", "unpin"):
            thread.pins += 1 if kind == "pin" else -1
        if thread.queue:
            self.tell(choice - first, *(*thread.queue[0], 0)[:3], *thread.queue[1:])

    def judge(self, rank, cell, seen):
        allowed = self.model.allowed(rank, cell)
        for value in seen.to_bytes(8, "little")[: CELLS[cell][1]]:
            assert value in allowed, f"node {rank} read {value} in cell {cell}, allowed are {allowed}"

    @stateful.rule(number=st.integers(0, 30), count=st.integers(1, 12))
    def step(self, number, count):
        """One of the steps that can be taken, and what then stands at its place in their list."""
        for _ in range(count):
            if choices := self.run.choices():
                self.choose(choices[number % len(choices)])

    @stateful.rule()
    def everything(self):
        """Take steps until nothing more can be done without another operation."""
        turn = 0
        while choices := self.run.choices():
            self.choose(choices[turn % len(choices)])
            turn += 1
            assert turn < 20_000, "no end in sight"

    def teardown(self):
        """Whatever is begun can be ended, and then the run gives everything back."""
        if self.run is None:
            return
        failed = sys.exc_info()[0] is not None
        try:
            if not failed:
                self.finish()
        except BaseException:
            failed = True
            raise
        finally:
            self.run.close(quietly=failed)

    def finish(self):
        for _ in range(100):
            self.everything()
            told = False
            for number, thread in enumerate(self.threads):
                if thread.op is None and (thread.locks or thread.pins):
                    self.tell(number, *(("release", thread.locks[-1]) if thread.locks else ("unpin",)))
                    told = True
            if told:
                continue
            waiting = [thread for thread in self.threads if thread.op]
            if not waiting:
                return
            late = [number for number in range(self.nodes) if self.threads[number].op is None]
            assert late, f"deadlock: {[thread.op for thread in waiting]}"
            for number in late:
                self.tell(number, "barrier")
        raise AssertionError("there is always something left to do")


Protocol.TestCase.settings = hypothesis.settings(
    max_examples=EXAMPLES,
    stateful_step_count=40,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
TestProtocol = Protocol.TestCase


# --- it can fail -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_planted_fault_is_found_and_shrunk(tmp_path):
    """In a copy of the sources a grant does not close the interval; a short example shows it."""
    for part in ("csrc", "tests/native", "tests/unit"):
        shutil.copytree(ROOT / part, tmp_path / part)
    path, rule = tmp_path / "csrc" / "protocol" / "sync" / "lock.c", "    release_interval(node);\n"
    text = path.read_text()
    assert text.count(rule) == 1
    path.write_text(text.replace(rule, ""))
    program = (
        "import hypothesis\n"
        "from hypothesis import stateful\n"
        "from test_stateful import Protocol\n"
        "settings = hypothesis.settings(Protocol.TestCase.settings, max_examples=2000, derandomize=True)\n"
        "stateful.run_state_machine_as_test(Protocol, settings=settings)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(str(tmp_path / "tests" / part) for part in (".", "unit"))},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=350,
        check=False,
    )
    assert done.returncode == 1
    example = re.findall(r"^\s*\|?\s*(state\.(?!teardown).*)$", done.stderr, re.M)
    assert "allowed are" in done.stderr, done.stderr[-5000:]
    assert 2 < len(example) < 12, example  # 5 when it was written
