"""The simulator's face for tests in Python: programs that are written down, and what their threads saw."""

import collections

from native import native_build

# What sim_explore found.  outcomes: {((thread, operation, value), ...): number of schedules}, sorted by thread.
Exploration = collections.namedtuple("Exploration", "schedules redundant classes decisions_max limited outcomes")


class Failed(AssertionError):
    """The simulator's words on what went wrong; `decisions` replay it, if it was explored."""

    def __init__(self, words, decisions=None):
        super().__init__(words if decisions is None else f"{words}\ndecisions: {decisions}")
        self.decisions = decisions


def kind_number(lib, kind):
    return lib.SIM_MEET if kind == "barrier" else getattr(lib, f"SIM_{kind.upper()}")


class Program:
    """A program of `nodes` nodes; the methods return the index of what they add (see sim.h).

    `spaces`: how many processes each node has, one each if not said.
    """

    def __init__(self, nodes, spaces=None):
        self.ffi, self.lib = native_build.load()
        pointer = self.lib.sim_program_new(nodes, self.ffi.NULL if spaces is None else spaces)
        if not pointer:
            raise ValueError(f"too many nodes or spaces: {nodes}, {spaces}")
        self.pointer = self.ffi.gc(pointer, self.lib.sim_program_delete)

    def _made(self, index):
        if index < 0:
            raise ValueError("no room for it in the program, or it names what is not there")
        return index

    def slot(self, size, page_size=64, *, later=False):
        make = self.lib.sim_program_slot_later if later else self.lib.sim_program_slot
        return self._made(make(self.pointer, size, page_size))

    def cell(self, slot, offset, size=1):
        return self._made(self.lib.sim_program_cell(self.pointer, slot, offset, size))

    def locks(self, count=1):
        return self._made(self.lib.sim_program_locks(self.pointer, count))

    def counters(self, count=1):
        return self._made(self.lib.sim_program_counters(self.pointer, count))

    def flags(self, count=1):
        return self._made(self.lib.sim_program_flags(self.pointer, count))

    def thread(self, rank):
        return self._made(self.lib.sim_program_thread(self.pointer, rank))

    def op(self, thread, kind, what=0, value=0, pattern=0, jump=0):
        """`kind` as in enum sim_op_kind, without its prefix: "write", "barrier" (short for a meeting), ..."""
        number = kind_number(self.lib, kind)
        return self._made(self.lib.sim_program_op(self.pointer, thread, number, what, value, pattern, jump))

    def ops(self, thread, *ops):
        """Several of them, as tuples; returns the index of the last."""
        return [self.op(thread, *op) for op in ops][-1]

    def knobs(self, **values):
        knobs = self.ffi.new("struct sim_knobs *")
        self.lib.sim_knobs_default(knobs)
        for name, value in values.items():
            if self.lib.sim_knob_set(knobs, name.encode(), value):
                raise ValueError(f"no such knob: {name}")
        return knobs

    def _run(self, function, *arguments, trace, room):
        stats, failure = self.ffi.new("struct sim_stats *"), self.ffi.new("char[]", self.lib.SIM_FAILURE_BYTES)
        seen, count = self.ffi.new("struct sim_observation[]", room), self.ffi.new("uint32_t *")
        if function(self.pointer, *arguments, trace, stats, failure, seen, room, count):
            raise Failed(self.ffi.string(failure).decode())
        return [(seen[i].thread, seen[i].op, seen[i].value) for i in range(min(room, count[0]))]

    def run(self, seed=0, *, trace=False, room=256, **knobs):
        """Run it once; returns what was seen: (thread, operation, value), in the order of the schedule."""
        return self._run(self.lib.sim_run_program, seed, self.knobs(**knobs), trace=trace, room=room)

    def replay(self, decisions, *, trace=False, room=256, **knobs):
        """Run it with these decisions; returns as run does."""
        settings = self.knobs(**knobs)
        return self._run(self.lib.sim_run_decided, settings, decisions, len(decisions), trace=trace, room=room)

    def explore(self, *, limit=1_000_000, depth=0, reduce=True, **knobs):
        """Run all schedules, or those that differ in the first `depth` decisions; returns an Exploration."""
        stats, failure = self.ffi.new("struct sim_stats *"), self.ffi.new("char[]", self.lib.SIM_FAILURE_BYTES)
        found = self.ffi.gc(
            self.lib.sim_explore(self.pointer, self.knobs(**knobs), limit, depth, reduce, stats, failure),
            self.lib.sim_exploration_delete,
        )
        if found.failed:
            raise Failed(self.ffi.string(failure).decode(), list(found.failing[0 : found.failing_count]))
        outcomes = {}
        for outcome in found.outcomes[0 : found.outcome_count]:
            seen = tuple((one.thread, one.op, one.value) for one in outcome.seen[0 : outcome.count])
            outcomes[seen] = outcome.schedules
        return Exploration(
            found.schedules, found.redundant, found.classes, found.decisions_max, bool(found.limited), outcomes
        )


class Open:
    """A run by hand: threads are told what to do while it goes on, and every step is chosen (see sim_open)."""

    def __init__(self, program, **knobs):
        self.program, self.ffi, self.lib = program, program.ffi, program.lib
        self.failure = self.ffi.new("char[]", self.lib.SIM_FAILURE_BYTES)
        self.pointer = self.lib.sim_open(program.pointer, program.knobs(**knobs), False, self.failure)
        if not self.pointer:
            raise Failed(self.ffi.string(self.failure).decode())

    def op(self, thread, kind, what=0, value=0, pattern=0):
        if self.lib.sim_open_op(self.pointer, thread, kind_number(self.lib, kind), what, value, pattern):
            raise ValueError(f"refused: {kind} {what}")

    def choices(self):
        room = self.ffi.new("uint16_t[]", 512)
        return list(room[0 : self.lib.sim_open_choices(self.pointer, room, 512)])

    def choose(self, choice):
        if self.lib.sim_open_choose(self.pointer, choice):
            raise Failed(self.ffi.string(self.failure).decode())

    def idle(self, thread):
        return bool(self.lib.sim_open_idle(self.pointer, thread))

    def holds(self, thread, lock):
        return bool(self.lib.sim_open_holds(self.pointer, thread, lock))

    def seen(self, thread):
        return self.lib.sim_open_seen(self.pointer, thread)

    def close(self, *, quietly=False):
        """End the run and free it; `quietly`: something failed before."""
        pointer, self.pointer = self.pointer, None
        if self.lib.sim_close(pointer, self.ffi.new("struct sim_stats *")) and not quietly:
            raise Failed(self.ffi.string(self.failure).decode())
