"""Profiles made by hand, for tests of the report: parts with defaults, and whole ones (schema: docs/insight.md)."""

import random

TIMES = ("compute_s", "data_s", "lock_s", "barrier_s", "event_s", "other_s", "protocol_s")
RANK_COUNTS = """
faults_read faults_write faults_local fetches pages_received diffs_received diff_bytes_received pages_served
diffs_served messages_sent messages_received bytes_sent bytes_received barriers lock_acquires lock_acquires_local
intervals_closed notices_received invalidations twins_made collections pages_readahead pages_refetched
pushes_sent pushes_used memory_bytes_max
""".split()
ARRAY_COUNTS = """
faults_read faults_write fetches pages_received diffs_received diff_bytes_received bytes_received pages_served
diffs_served invalidations notices_received
""".split()
SITE_COUNTS = ("calls", "faults", "pages", "bytes")
SITE_TIMES = ("computed_s", "data_s", "waited_s", "imbalance_s", "latency_s")


def by_rank(value, size):
    return list(value) if isinstance(value, (list, tuple)) else [value] * size


def rank(number, seconds=2.0, host=0, node=None, **more):
    time = dict.fromkeys(TIMES, 0.0) | {name: more.pop(name) for name in TIMES if name in more}
    time["compute_s"] = time["compute_s"] or seconds - sum(time.values())
    made = {"rank": number, "host": host, "node": number if node is None else node, "pid": 100 + number}
    made |= {"began_s": 0.0, "seconds": seconds, "time": time, "service_s": 0.01, "threads": []}
    return made | dict.fromkeys(RANK_COUNTS, 0) | more


def site(number=0, kind="barrier", line=10, size=2, source="dsm.barrier()", file="prog.py", **more):
    rows = {name: by_rank(more.pop(name, 0), size) for name in (*SITE_COUNTS, *SITE_TIMES)}
    made = {"id": number, "file": file, "line": line, "function": "main", "source": source, "kind": kind}
    return made | {"object": None, "by_rank": rows, "arrays": [], "empty": 0 if kind == "barrier" else None} | more


def lock(number=0, size=2, **more):
    rows = {name: by_rank(more.pop(name, 0), size) for name in ("acquires", "local", "waited_s", "held_s")}
    made = {"id": number, "name": f"Lock {number}", "kind": "Lock", "by_rank": rows}
    return made | {"hand_overs": [], "sites": []} | more


def array(number=0, name="grid", shape=(512, 512), size=2, page_bytes=4096, **more):
    items = 1
    for length in shape:
        items *= length
    pages = -(-items * 8 // page_bytes)
    rows = {name_: by_rank(more.pop(name_, 0), size) for name_ in ARRAY_COUNTS}
    rows["wait_s"] = by_rank(more.pop("wait_s", 0.0), size)
    bins = min(256, shape[0] if shape else 1)
    made = {"id": number, "name": name, "named": True, "shape": list(shape), "dtype": "float64", "itemsize": 8}
    made |= {"order": "C", "bytes": items * 8, "page_bytes": page_bytes, "pages": pages, "allocated_at": None}
    made |= {"allocated_s": 0.0, "freed_s": None, "alive": True, "by_rank": rows, "bins": bins, "bin_axis": "rows"}
    made |= {"bin_bytes": items * 8 / max(bins, 1), "strips": [], "pages_written": [0] * size, "pages_read": [0] * size}
    return made | {"first_writer": [], "owners": [], "contested": contested(), "memory_bytes": [None] * size} | more


def contested(pages=0, phases=0, diff_bytes=0, kind="false", ranks=(0, 1)):
    worst = {"page": 7, "first": [1, 0], "last": [1, 511], "ranks": list(ranks), "phases": phases}
    worst |= {"diff_bytes": diff_bytes, "overlap_bytes": 0 if kind == "false" else 8, "kind": kind}
    made = {"pages": pages, "phases": phases, "diff_bytes": diff_bytes, "worst": [worst] if pages else []}
    return made | {"false_pages": pages * (kind == "false"), "true_pages": pages * (kind == "true")}


def memory(node=0, protocol=(1 << 20,) * 10, **more):
    made = {"node": node, "time_s": [0.2 * i for i in range(len(protocol))], "protocol_bytes": list(protocol)}
    for name in ("twin_bytes", "diff_bytes", "data_bytes", "cached_bytes"):
        made[name] = list(more.get(name, [0] * len(protocol)))
    return made


def profile(size=2, seconds=2.0, cores=64, **more):
    """A run whose ranks only computed, on a machine with enough cores."""
    run = {"program": "python prog.py 512", "argv": ["prog.py", "512"], "folder": "/home/u", "seconds": seconds}
    run |= {"began": "2026-11-30T17:00:00+00:00", "size": size, "page_bytes": 4096, "node": "rank", "one_node": False}
    run |= {"oversubscribed": False, "dsm": "1", "python": "3.11.2", "numpy": "2.1.0", "mpi": "MPICH 5"}
    run |= {"clock_error_s": 0.0, "ended": "normally"} | more.pop("run", {})
    made = {"version": 1, "run": run, "nodes": [[number] for number in range(size)]}
    made |= {"hosts": [{"name": "alpha", "ranks": list(range(size)), "cores": cores, "memory_bytes": 8 << 30}]}
    made |= {"machine": {"cpu": "Some CPU", "kernel": "6.1.0"}, "ranks": [rank(r, seconds) for r in range(size)]}
    made |= {"sites": [], "locks": [], "arrays": [], "arrays_left_out": 0, "memory": [], "lines": []}
    return made | {"traffic": [[0] * size for _ in range(size)], "truncated": [], "notes": []} | more


def jacobi(size=4, steps=200):
    """A run with all that the page shows: two grids, blocks of rows that share pages, a lock, a slow rank."""
    draw = random.Random(size)
    seconds = 2.0
    ranks = []
    for number in range(size):
        barrier_s = 0.1 if number == size - 1 else 0.3 + 0.1 * draw.random()
        counts = {name: draw.randrange(10, 9999) for name in RANK_COUNTS}
        split = {"data_s": 0.3 + 0.1 * draw.random(), "barrier_s": barrier_s, "lock_s": 0.08, "other_s": 0.02}
        ranks.append(rank(number, seconds, **split, protocol_s=0.03, **counts))
    computed = [one["time"]["compute_s"] for one in ranks]
    data = [one["time"]["data_s"] for one in ranks]
    waited = [one["time"]["barrier_s"] for one in ranks]
    sites = [
        site(0, "allocation", 9, size, 'grid = dsm.zeros((500, 500), name="grid")', calls=1, waited_s=0.005),
        site(1, "allocation", 10, size, 'new = dsm.zeros((500, 500), name="new")', calls=1, waited_s=0.005),
        site(
            2,
            "barrier",
            20,
            size,
            calls=steps,
            computed_s=computed,
            data_s=data,
            waited_s=waited,
            imbalance_s=[value - 0.1 for value in waited],
            latency_s=0.1,
            faults=300,
            pages=2 * steps,
            bytes=900_000,
            arrays=[[0, 600], [1, 400]],
        ),
        site(3, "acquire", 25, size, "with lock:", calls=steps, computed_s=0.01, waited_s=0.08, latency_s=0.08),
        site(4, "end", 0, size, "", file="", calls=1, waited_s=0.002),
    ]
    grids = []
    for number, name in enumerate(("grid", "new")):
        block = 256 / size
        strips = []
        for r in range(size):
            first, last = round(r * block), round((r + 1) * block)
            near = [[first - 1, 1, steps]] * (r > 0) + [[last, 1, steps]] * (r < size - 1)
            strips.append({"rank": r, "written": [[first, last - first, steps]], "read": near, "fetched": near})
        pages = 489 // size
        grids.append(
            array(
                number,
                name,
                (500, 500),
                size,
                faults_read=200,
                faults_write=100,
                fetches=2 * steps,
                pages_received=20,
                diffs_received=2 * steps,
                diff_bytes_received=90_000,
                bytes_received=180_000,
                wait_s=[value / 2 for value in data],
                allocated_at=number,
                allocated_s=0.1,
                strips=strips,
                pages_written=[pages] * size,
                pages_read=[2] * size,
                first_writer=[[0, 256, 0]],
                owners=[[r * pages, pages, r] for r in range(size)],
                contested=contested(size - 1, (size - 1) * steps, 400_000),
                memory_bytes=[1_000_000 + r for r in range(size)],
            )
        )
    one = lock(0, size, acquires=steps, local=steps // 10, waited_s=0.08, held_s=0.001, sites=[[3, steps * size]])
    one["hand_overs"] = [[r, (r + 1) % size, steps - 5 * r % 50, 0.05] for r in range(size)]
    grown = [1 << 20, 3 << 20, 5 << 20, 4 << 20, 6 << 20, 5 << 20, 5 << 20]
    lines = [{"file": "prog.py", "line": 18, "function": "step", "source": "new[here] = 0.25 * (old[above] + ...)"}]
    lines[0]["by_rank"] = [0.8 * value for value in computed]
    return profile(
        size,
        seconds,
        cores=size,
        ranks=ranks,
        sites=sites,
        locks=[one],
        arrays=grids,
        memory=[memory(r, grown, data_bytes=[2 << 20] * 7) for r in range(size)],
        lines=lines,
        traffic=[[steps * (abs(a - b) == 1) for b in range(size)] for a in range(size)],
        notes=["A note of the collector."],
    )


def trace(size=4, steps=200, seconds=2.0):
    """The events of such a run."""
    draw = random.Random(steps)
    events = [
        {"ph": "M", "pid": r, "tid": 1, "name": "process_name", "args": {"name": f"rank {r}"}} for r in range(size)
    ]
    step = seconds * 1e6 / steps
    for number in range(steps):
        begin = number * step
        for r in range(size):
            work = step * (0.95 if r == size - 1 else 0.6 + 0.2 * draw.random())
            fault = {"array": 0, "faults": 2, "pages": 2, "bytes": 8192, "from": (r + 1) % size}
            common = {"ph": "X", "pid": r, "tid": 1}
            events.append(common | {"cat": "phase", "name": "prog.py:20", "ts": begin, "dur": work})
            events.append(
                common | {"cat": "fault", "name": "2 faults on grid", "ts": begin, "dur": step / 8, "args": fault}
            )
            wait = {"cat": "wait", "name": "barrier prog.py:20", "ts": begin + work, "dur": step - work}
            events.append(common | wait)
            ends = [("s", (r + 1) % size, begin), ("f", r, begin + step / 8)]
            for ph, pid, ts in ends:
                events.append(
                    {"ph": ph, "cat": "data", "id": number * size + r, "pid": pid, "tid": 1, "ts": ts, "name": ""}
                )
    return events
