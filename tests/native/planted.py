"""Take one rule out of the protocol at a time, and show which random program of the simulator notices.

    python tests/native/planted.py [--programs 6000] [--only WORD]

Prints a table: the fault, after how many programs it was caught, and how.  It is the evidence that the simulator can
fail.  A fault is a replacement in a copy of the sources, so the sources themselves stay as they are read; a text that
is no longer found exactly once ends the run, so that the table keeps up with them.

Not in the table, because no program is known that shows it: addresses that are used again while something still arrives
there (R15).  Because the simulator cannot see them: faults in what happens at the same time as one entry into a
node.  There an entry is one instant, but for the changes of protection, and for the bytes of a page that are copied,
compared or changed in its place.
"""

import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import typing

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Fault(typing.NamedTuple):
    """One line of the protocol that is wrong, and knobs of programs that can notice."""

    name: str
    file: str
    rule: str
    without: str
    knobs: tuple[str, ...] = ()
    also: tuple[tuple[str, str, str], ...] = ()  # file, rule, without: where a rule is kept in two places


# Whole pages come over what threads may read and have written, whose sender has not seen it.
OVERWRITING = ("--whole=2", "--refetch_bytes=4096", "--push_bytes=0", "--guess=700", "--bystanders=1000", "--nodes=3",
               "--regions=1", "--page_bytes=256", "--lock_threads=2", "--phases=4", "--open_bytes=0")  # fmt: skip
CROWDED = ("--nodes=2", "--spaces=2", "--edges=4", "--edges_told=0", "--pins=0", "--changes=1000", "--phases=8")
REORDERED = (
    *("--nodes=2", "--spaces=2", "--regions=1", "--lock_threads=2", "--disorder=1000", "--deliver=100"),
    *("--changes=700", "--phases=8", "--whole=3", "--flags=0", "--readers=0", "--cache_bytes=0", "--evict=0"),
)
# Nodes of several spaces, and none of the simulator's own checks of their states: the program must notice.
FROZEN = ("--preopen=300", "--collect=300", "--page_bytes=256", "--guess=700")
SHARED = ("--spaces=0", "--check=0")
SEALED_UNSEEN = (
    "coherence/seal.c",
    '    context_assert(node, !page->writers, "seal: a page is encoded that the program can write (R4)");\n',
    "",
)
# Copies are given up all the time, and a fault is not found by the assertions that repeat the rule.
EVICTING = ("--evict=900", "--cache_bytes=1000000000", "--check=0")
MAY_GIVE_UP = (
    ("coherence/evict.c", '!in_use(node, page), "evict: a copy is given up that is in use"', 'true, ""'),
    ("coherence/evict.c", "!may_be_asked(node, page) && !vector_get(&page->need, node->number),", "true,"),
    (
        "coherence/evict.c",
        "page->owner != node->number && (page->owner != NODE_NONE || page->need.count > 0),",
        "true,",
    ),
)
# Many readers of a version, who serve each other.
CROWDS = ("--nodes=6", "--readers=1", "--whole=2")
GUESSING = ("--guess=500", "--refetch_bytes=4096", "--push_bytes=4096", "--open_bytes=4096")

# Accesses are logged, and the races in the log compared with those that there were.
RACING = ("--detect=1", "--races=400", "--pins=0")

FLAGS = ("--flags=4", "--phases=2", "--lock_threads=0", "--races=0")

FAULTS = (
    Fault(
        "R1 no stamp taken from a message",
        "node/node.c",
        "        node->stamp = header->stamp; /* R1 */\n",
        "        (void)0;\n",
    ),
    Fault(
        "R2 diffs applied as they come",
        "coherence/install.c",
        "    sort_parts(fetch->parts, fetch->part_count);\n    if",
        "    (void)sort_parts;\n    if",
    ),
    Fault(
        "R2 diffs not applied to the twin",
        "coherence/install.c",
        "        if (page->twin)\n            diff_apply(page->twin, part->body, part->bytes);\n",
        "",
    ),
    Fault(
        "R2 a racing diff takes away what was written since the twin",
        "coherence/install.c",
        "        if (written)\n            diff_apply_under(",
        "        if (false)\n            diff_apply_under(",
        ("--races=400",),
    ),
    Fault(
        "R3 diffs of an open interval not completed",
        "coherence/install.c",
        "        vector_raise(&page->need, &node->pool, entry.node, entry.stamp);\n",
        "        (void)page;\n        (void)entry;\n",
    ),
    Fault(
        "H3 a page that some space can write is sent from its place",
        "coherence/seal.c",
        "changed = page->writers ? seal",
        "changed = page->writers && false ? seal",
    ),
    Fault(
        "R4 diff cut before the kernel was told",
        "coherence/serve.c",
        "    protection_flush(node);\n    if (!all)\n",
        "    if (!all)\n",
        ("--bystanders=1000",),
    ),
    Fault(
        "R6 whole page taken though it lacks something",
        "coherence/install.c",
        "page->copy && !vector_covers(have, &page->have, node->number)",
        "false",
        ("--whole=2", "--bulk=1"),
        (("coherence/serve.c", "vector_covers(&page->have, &request->have, reader)", "true"),),
    ),
    Fault(
        "R6 own sealed diffs lost under a whole page",
        "coherence/install.c",
        "diff = page_diffs_after(page, known); diff;",
        "diff = NULL; diff;",
        ("--whole=2",),
    ),
    Fault(
        "R6 twin not moved to the new base",
        "coherence/install.c",
        "    diff_apply(page->twin, body, bytes);\n",
        "",
        ("--whole=2",),
    ),
    Fault(
        "R6 a page that may be read is built in its place",
        "coherence/install.c",
        "beside = lacks && (page->twin || page->readers);\n",
        "beside = lacks && page->twin;\n",
        ("--pins=200", "--bulk=1", *OVERWRITING),
    ),
    Fault(
        "R7 logs emptied at a cut, not cut",
        "sync/cut.c",
        "        interval_trim(&node->logs[q], &node->pool, node->cut[q]);\n",
        "        interval_trim(&node->logs[q], &node->pool, UINT64_MAX);\n",
    ),
    Fault(
        "R7 a grant from beyond the cut taken at once",
        "node/grant.c",
        "    if (knows_later_cut(node, message, cuts)) {",
        "    if (!cuts && knows_later_cut(node, message, cuts)) {",
    ),
    Fault(
        "R7 old intervals choose owners again",
        "sync/cut.c",
        "        if (walk.stamp <= node->cut[walk.node])\n",
        "        if (false)\n",
    ),
    Fault(
        "R7 who has a copy chooses another owner",
        "sync/cut.c",
        "    if (!page->cut_owner_wrote && ",
        "    if ((!page->cut_owner_wrote || page->copy) && ",
    ),
    Fault(
        "R7 an arrival carries only its node's own intervals",
        "sync/meeting.c",
        "    notices_put_all(node, node->meetings[which].own, which == MEETING_THREADS);\n",
        "    struct vector others = {0};\n"
        "    for (node_id q = 0; q < node->size; q++)\n"
        "        if (q != node->number && node->vt[q])\n"
        "            vector_raise(&others, &node->pool, q, node->vt[q]);\n"
        "    notices_put(node, node->meetings[which].own, &others);\n"
        "    vector_clear(&others, &node->pool);\n",
        ("--lock_threads=2", "--deliver=300"),
    ),
    Fault(
        "R8 stale copies survive a collection",
        "sync/collection.c",
        "    page->fresh = page->fresh && !page->copy;\n    page->copy = false;\n"
        "    page_twin_drop(page, &node->pool);\n",
        "    (void)node;\n",
    ),
    Fault(
        "R8 faults go on during a collection",
        "node/access.c",
        "        if (context_holds(node))\n            return ACCESS_WAIT;\n        fetch_start",
        "        fetch_start",
    ),
    Fault(
        "R8 copies dropped before the owners are up to date",
        "sync/collection.c",
        "        if (node->fetches->count == 0) {\n            collection->phase = COLLECTION_DROPPING;",
        "        if (true) {\n            collection->phase = COLLECTION_DROPPING;",
        ("--collect=100",),
    ),
    Fault(
        "R8 no second cut",
        "sync/collection.c",
        "        collection->phase = COLLECTION_CUTTING;\n        arrive(node);",
        "        collection->phase = COLLECTION_VALIDATING;",
        ("--collect=100",),
    ),
    Fault(
        "R8 vectors from before a collection believed",
        "coherence/wire.c",
        "    reader_vector(reader, &node->pool, node->size, node->collection.floor, have);",
        "    reader_vector(reader, &node->pool, node->size, 0, have);",
        ("--collect=100",),
    ),
    Fault(
        "R8 diffs from before a collection asked for again",
        "base/context.c",
        "    return known < node->collection.floor ? node->collection.floor : known;\n",
        "    return known;\n",
        (
            "--collect=100",
            "--nodes=5",
            "--lock_threads=2",
            "--regions=1",
            "--page_bytes=256",
            "--whole=1",
            "--deliver=50",
            "--stalls=20",
        ),
    ),
    Fault(
        "R8 a leak: diffs are forgotten, not given back",
        "sync/collection.c",
        "    page_diffs_drop(page, &node->pool);\n    crowd_forget(page, &node->pool);\n",
        "    if (page->extension)\n        page->extension->diffs = page->extension->diffs_last = NULL;\n"
        "    crowd_forget(page, &node->pool);\n    page_tidy(page, &node->pool);\n",
    ),
    Fault(
        "R10 pages opened while a collection runs",
        "coherence/writes.c",
        "    if (context_holds(node))\n        return false;\n",
        "",
    ),
    Fault(
        "R10 a page opened early without a notice",
        "coherence/writes.c",
        "    writes_mark_dirty(node, page);\n    page->mode = PAGE_OPEN;\n",
        "    page->mode = PAGE_OPEN;\n",
    ),
    Fault(
        "R11 a page fetched twice at a time",
        "node/access.c",
        "            page_fetch(page)->speculative = false;\n            return ACCESS_WAIT;\n",
        "            fetch_start(node, page, false);\n            return ACCESS_WAIT;\n",
    ),
    Fault(
        "R14 a page is opened while it is being sent",
        "coherence/writes.c",
        "    if (bulk_leaves(node, page)) {\n",
        "    if (false) {\n",
        ("--eager=0",),
    ),
    Fault(
        "R14 a fetch starts while its page is being sent",
        "coherence/fetch.c",
        "    fetch->postponed = bulk_leaves(node, fetch->page);\n",
        "    fetch->postponed = false;\n",
        ("--eager=0",),
    ),
    Fault(
        "R14 what is being fetched is sent from its place",
        "coherence/serve.c",
        ", copied = snapshot || page_fetch(page);\n",
        ", copied = snapshot;\n",
        ("--eager=0",),
    ),
    Fault(
        "R14 a page pinned for writing is sent from its place",
        "coherence/serve.c",
        "    bool snapshot = page_inspected(page), copied",
        "    bool snapshot = page->mode == PAGE_PREOPENED, copied",
        ("--eager=0", "--pins=200"),
    ),
    Fault(
        "R15 a page is received over what was written since its twin",
        "coherence/reply.c",
        "        bool unwritten = !page->twin && !page->writers;\n",
        "        bool unwritten = !page->writers;\n",
    ),
    Fault(
        "R15 a page is received over a copy that has more",
        "coherence/reply.c",
        "unwritten && (!page->copy || vector_covers(&theirs, &page->have, node->number));\n",
        "unwritten;\n",
        ("--whole=2",),
        (("coherence/serve.c", "vector_covers(&page->have, &request->have, reader)", "true"),),
    ),
    Fault(
        "R15 a page that may be read is received over what its sender lacks",
        "coherence/reply.c",
        "        bool kept = !page->readers || !page_diffs_after(page, vector_get(&theirs, node->number));\n",
        "        bool kept = true;\n",
        ("--bulk=2", *OVERWRITING),
    ),
    Fault(
        "R15 a request for a page that is arriving is not held",
        "coherence/serve.c",
        "    if (page->arriving)\n        return false;\n",
        "",
    ),
    Fault(
        "R15 a page that is arriving is taken for a copy",
        "coherence/reply.c",
        "            page->copy = page->fresh = false;\n            page->arriving = true;\n",
        "            page->fresh = false;\n            page->arriving = true;\n",
    ),
    Fault(
        "R15 what arrives for an array that was freed stays there",
        "coherence/reply.c",
        "            node->port->discard(node->port->context, segment->offset, segment->bytes);\n",
        "            (void)segment;\n",
        ("--changes=1000", "--phases=8", "--bulk=2", "--disorder=1000", "--regions=3", "--cache_bytes=0", "--evict=0"),
    ),
    Fault(
        "H5 what is owed a notice is granted away",
        "coherence/preopened.c",
        "    if (!context_silent(node))\n        return false;\n",
        "    if (node->size)\n        return false;\n",
        ("--pins=200", "--collect=100"),
    ),
    Fault(
        "pins: an acquire does not wait for them",
        "node/access.c",
        "            valid = false;\n",
        "",
        ("--pins=300",),
    ),
    Fault(
        "locks: token handed on while a thread holds it",
        "sync/lock.c",
        "    if (lock->token && !lock_held(lock) && !lock->queue) {",
        "    if (lock->token && !lock->queue) {",
    ),
    Fault(
        "locks: grant carries only the holder's own notices",
        "sync/lock.c",
        "    notices_put(node, message, &lock->waiting_vector);\n",
        "    struct vector others = {0};\n"
        "    for (node_id q = 0; q < node->size; q++)\n"
        "        if (q != node->number && node->vt[q])\n"
        "            vector_raise(&others, &node->pool, q, node->vt[q]);\n"
        "    notices_put(node, message, &others);\n"
        "    vector_clear(&others, &node->pool);\n",
    ),
    Fault("locks: grant without closing the interval", "sync/lock.c", "    release_interval(node);\n", ""),
    Fault(
        "locks: the manager knows no lock that it has not used itself",
        "sync/lock.c",
        "    lock_use(node, reader_u32(&peek)); /* the manager may hear of it for the first time */\n",
        "    reader_u32(&peek);\n",
    ),
    Fault(
        "locks: a refused try stays in the chain",
        "sync/lock.c",
        "    if (!follows)\n        lock->tail",
        "    if (lock->tail == NODE_NONE)\n        lock->tail",
        ("--tries=450",),
    ),
    Fault(
        "locks: a try behind another try is refused",
        "sync/lock.c",
        "    return lock->asked && !lock->asked_trying;\n",
        "    return lock->asked && !waiter->asked;\n",
        ("--tries=450", "--lock_threads=2"),
    ),
    Fault(
        "flags: a set publishes before the interval is closed",
        "sync/event.c",
        "    publish(node, flag, to, peer->rank, ++peer->sent, &peer->told);\n",
        "    for (node_id q = 0; q < node->size; q++)\n"
        "        if (node->vt[q])\n"
        "            vector_raise(&peer->told, &node->pool, q, node->vt[q]);\n"
        "    publish(node, flag, to, peer->rank, ++peer->sent, &peer->told);\n",
        FLAGS,
    ),
    Fault(
        "flags: an answer carries only the setter's own notices",
        "sync/event.c",
        "    notices_put(node, message, known);\n",
        "    for (node_id q = 0; q < node->size; q++)\n"
        "        if (q != node->number && node->vt[q])\n"
        "            vector_raise(known, &node->pool, q, node->vt[q]);\n"
        "    notices_put(node, message, known);\n",
        (*FLAGS, "--nodes=3"),
    ),
    Fault(
        "flags: a clear does not travel",
        "sync/flag.c",
        "    else if (flag && flag->clear < interval->stamp)\n        flag->clear = interval->stamp;\n",
        "",
        FLAGS,
    ),
    Fault(
        "flags: a set that came late at the home counts for who knows a later clear",
        "sync/event.c",
        "        if ((*link)->after >= set) {\n",
        "        if ((*link)->after >= set && set == 0) {\n",
        (*FLAGS, "--nodes=3"),
    ),
    Fault(
        "flags: a wait after a clear relies on an older request",
        "sync/event.c",
        "    if (!ask || (flag->asked && flag->asked_after >= after))\n",
        "    if (!ask || flag->asked || (flag->asked_after && flag->asked_after <= after))\n",
        FLAGS,
    ),
    Fault(
        "flags: the home forgets who waits when another request comes",
        "sync/event.c",
        "    kept->next = *link;\n",
        "    while (flag->waiters)\n        flag_free_waiter(node, flag_take_waiter(node, &flag->waiters));\n",
        (*FLAGS, "--flags=4"),
        (("sync/event.c", "    *link = kept;\n", "    flag->waiters = kept;\n    kept->next = NULL;\n"),),
    ),
    Fault(
        "flags: the home does not pass on what it was asked before the set",
        "sync/event.c",
        "        if (waiter->node != node->number || flag->set <= waiter->after)\n            send_await",
        "        if (flag->told == 0)\n            send_await",
        FLAGS,
    ),
    Fault(
        "flags: the home does not remember who has set a flag",
        "sync/event.c",
        "    } else if (flag->told > waiter.after) {\n",
        "    } else if (flag->told == STAMP_END) {\n",
        FLAGS,
    ),
    Fault(
        "flags: the home drops a request that is newer than the set",
        "sync/event.c",
        "        if (act && *link && (*link)->after < set && (uint32_t)(*link)->rank == rank)\n",
        "        if (act && *link && (uint32_t)(*link)->rank == rank)\n",
        (*FLAGS, "--nodes=3", "--publishes=2", "--deliver=100", "--disorder=1000"),
    ),
    Fault(
        "flags: a PUBLISH that overtook another is taken at once",
        "sync/event.c",
        "    return number > received + 1; /* R18 */\n",
        "    return number > received + 1 && number == UINT64_MAX;\n",
        (*FLAGS, "--publishes=64", "--disorder=1000"),
        (("sync/event.c", "    if (number && number <= received)\n", "    if (number == UINT64_MAX)\n"),),
    ),
    Fault(
        "flags: a PUBLISH from beyond a cut is taken at once",
        "node/grant.c",
        "    if (event_overtook(node, message, number) || knows_later_cut(node, message, cuts)) {\n",
        "    if (event_overtook(node, message, number) || (!cuts && knows_later_cut(node, message, cuts))) {\n",
        (*FLAGS, "--phases=6"),
    ),
    Fault(
        "flags: a set during a collection gives a notice",
        "sync/event.c",
        "        return true;\n    if (context_silent(node))\n        return false;\n    release(node, flag, RUN_SETS",
        "        return true;\n    release(node, flag, RUN_SETS",
        (*FLAGS, "--collect=30"),
    ),
    Fault(
        "order: a departure that overtook another is taken at once",
        "node/departure.c",
        "    if (number > node->cuts + 1) {\n",
        "    if (false) {\n",
    ),
    Fault(
        "order: departures have no number",
        "node/departure.c",
        " && number > node->cuts && number - node->cuts <= meeting_departures_due(node);",
        ";",
        (),
        (("node/departure.c", "    if (number > node->cuts + 1) {\n", "    if (false) {\n"),),
    ),
    Fault(
        "order: a departure that overtook another is malformed",
        "node/departure.c",
        "number - node->cuts <= meeting_departures_due(node);",
        "number == node->cuts + 1;",
    ),
    Fault(
        "order: departures of threads are not counted among those of collections",
        "sync/meeting.c",
        "node->cuts + meeting_departures_due(node) + 1);",
        "node->cuts + (which == MEETING_COLLECTION));",
    ),
    Fault(
        "order: what was deferred is not delivered after a departure",
        "node/departure.c",
        "    node->redeliver = true; /* messages of nodes that departed before this one */\n",
        "",
    ),
    Fault(
        "order: a collection begins before the last one has ended",
        "sync/collection.c",
        "    if (overtakes)\n        context_defer(node, message);\n",
        "    if (false)\n        context_defer(node, message);\n",
        ("--collect=30",),
    ),
    Fault(
        "order: a COLLECT that overtakes the end of the last collection is malformed",
        "sync/collection.c",
        "    bool overtakes = ends && number == next + 1;\n",
        "    bool overtakes = ends && number == next;\n",
        ("--collect=30",),
    ),
    Fault(
        "order: a refused node leaves before its follower's request has come",
        "sync/lock.c",
        "    if (!follows || lock->passed_on)\n",
        "    if (true)\n",
        ("--tries=450",),
    ),
    Fault(
        "order: the manager does not know of a follower",
        "sync/lock.c",
        "    message_put_u32(withdrawn, &node->pool, follows);\n",
        "    message_put_u32(withdrawn, &node->pool, 0);\n",
        ("--tries=450",),
    ),
    Fault(
        "order: a refused node stays when its follower's request came after the manager's word",
        "sync/lock.c",
        "        if (lock->follower_due)\n",
        "        if (false)\n",
        ("--tries=450",),
    ),
    Fault(
        "order: a refused node forgets that it passed its follower's request on",
        "sync/lock.c",
        "        lock->waiting = NODE_NONE;\n        vector_clear(&lock->waiting_vector, &node->pool);\n"
        "        lock->passed_on = true;\n",
        "        lock->waiting = NODE_NONE;\n        vector_clear(&lock->waiting_vector, &node->pool);\n",
        ("--tries=450",),
    ),
    Fault(
        "counters: the sum is sent before adding",
        "sync/counter.c",
        "        counter->value = before + delta;\n",
        "        counter->value = before + (delta > 2 ? 2 : delta);\n",
    ),
    Fault(
        "counters: one that is made by an addition from afar starts at 0",
        "sync/counter.c",
        "!counter_use(node, counter, (int64_t)start))",
        "!(start++, counter_use(node, counter, 0)))",
        ("--counters=2",),
    ),
    Fault(
        "departures: one that went on is not taken in",
        "node/node.c",
        "    if (!node->outbox && node->unfinished) {\n",
        "    if (!node->outbox && node->unfinished && node->number == 0) {\n",
    ),
    Fault(
        "departures: one that went on is passed before it is taken in",
        "node/departure.c",
        "        if (node->unfinished) {\n",
        "        if (node->unfinished) {\n            node->cuts++;\n",
        ("--nodes=3",),
    ),
    Fault(
        "habits: a list of the same length is taken for the same",
        "sync/habit.c",
        " && memcmp(list->runs, runs, run_count * sizeof(struct run)) == 0)\n",
        ")\n",
    ),
    Fault(
        "habits: collections teach them, too",
        "node/departure.c",
        "    cut_pass(node, message, intervals, which == MEETING_THREADS);\n",
        "    cut_pass(node, message, intervals, true);\n",
        ("--collect=1000", "--nodes=3", "--phases=6"),
    ),
    Fault(
        "habits: the other list is read",
        "sync/notices.c",
        "        walk->which = walk->run_count >> 30 & 1;\n",
        "        walk->which = !(walk->run_count >> 30 & 1);\n",
    ),
    Fault(
        "events: a waiter that expects a set never asks for it",
        "sync/event.c",
        "    if (!ask || (flag->asked && flag->asked_after >= after))\n",
        "    if (!ask || event_expects(node) || (flag->asked && flag->asked_after >= after))\n",
        ("--flags=4", "--publishes=2", "--expects=500", "--nodes=4", "--lock_threads=0"),
    ),
    Fault(
        "H1 an acquire does not follow the changes",
        "node/access.c",
        "        changes_follow(node);\n",
        "        (void)changes_follow;\n",
    ),
    Fault(
        "H1 a notice leaves no change to follow",
        "sync/notices.c",
        "                changes_add(node, page);\n",
        "                (void)changes_add;\n",
    ),
    Fault(
        "H1 a page that was sent leaves no change to follow",
        "coherence/preopened.c",
        "    list(node, page);\n    changes_add(node, page);\n",
        "    list(node, page);\n",
        ("--pins=200",),
    ),
    Fault(
        "H5 an inspection in the silence of a collection",
        "coherence/preopened.c",
        "    if (context_silent(node))\n        return;\n    protection_flush",
        "    protection_flush",
        ("--pins=200", "--collect=100"),
    ),
    Fault(
        "H5 a page that may be written with no notice is dropped",
        "sync/collection.c",
        "node->number || page->writers || page_inspected(page);\n",
        "node->number;\n",
        ("--pins=200", "--collect=100"),
    ),
    Fault(
        "H5 an inspected page forgets its twin",
        "sync/collection.c",
        "    if (page_inspected(page))\n        return;",
        "    if (page_inspected(page))\n        page->mode = PAGE_OPEN;",
        ("--pins=200", "--collect=100"),
    ),
    Fault(
        "H5 the same snapshot is sent with its old stamp",
        "coherence/seal.c",
        "        return sealed(node, page, tag, true);\n    page_fill",
        "        return vector_get(&page->have, node->number);\n    page_fill",
        ("--pins=300", "--collect=20", "--stalls=50"),
    ),
    Fault(
        "H9 a fault takes access that a pin keeps",
        "node/access.c",
        "    if (page_access(node, page) < access)\n        protection_set",
        "    if (page_access(node, page) != access)\n        protection_set",
        ("--pins=300", "--lock_threads=2"),
    ),
    Fault(
        "H9 the end of a pin leaves no change to follow",
        "node/access.c",
        "        changes_add(node, page); /* what",
        "        (void)page; /* what",
        ("--pins=300",),
    ),
    Fault(
        "H9 a pinned page is not passed over",
        "coherence/changes.c",
        " || pin_find(node, page))\n        return;\n    protection_set",
        ")\n        return;\n    protection_set",
        ("--pins=300",),
    ),
    Fault(
        "protection: a failure to protect is ignored",
        "coherence/protection.c",
        "bytes, node->protection->access) != 0)\n",
        "bytes, node->protection->access) == 77)\n",
        ("--edges=6", "--edges_told=0", "--pins=0"),
    ),
    Fault(
        "protection: a fault is done though everything was made inaccessible",
        "node/access.c",
        " page_access(node, page) < (write ? ACCESS_WRITE : ACCESS_READ)) {\n        answer",
        " false) {\n        answer",
        ("--edges=6", "--edges_told=0", "--pins=0"),
    ),
    Fault(
        "R8 a prefetch starts while a collection holds",
        "predict/prefetch.c",
        "    while (all->first && !context_holds(node)) {\n",
        "    while (all->first) {\n",
        ("--prefetch=1", "--collect=20"),
    ),
    Fault(
        "R11 a prefetch fetches what is on its way",
        "predict/prefetch.c",
        "        if (page_fetch(page) || page_valid(page))\n",
        "        if (page_valid(page))\n",
        ("--prefetch=1",),
    ),
    Fault(
        "R9 a push of a page that is open again claims writes that are not encoded",
        "coherence/push.c",
        "        if (!sealed && page_open(page))\n            seal_open(node, page);\n        else if (!sealed)\n",
        "        if (!sealed && page->mode == PAGE_OPEN)\n            seal_open(node, page);\n"
        "        else if (!sealed && !page_open(page))\n",
        ("--refetch_bytes=4096", "--push_bytes=4096", "--open_bytes=4096", "--spaces=2", "--flags=3", "--guess=700"),
    ),
    Fault(
        "R9 a push used that begins after what is here",
        "coherence/pushed.c",
        "page->copy && named && push->since <= known",
        "page->copy && named",
        GUESSING,
    ),
    Fault(
        "a page that is fed is listed twice",
        "predict/update.c",
        "    if (history->listed || node->options.refetch_bytes_max == 0)\n",
        "    if (node->options.refetch_bytes_max == 0)\n",
        GUESSING,
        (
            (
                "predict/update.c",
                "    if (history->listed)\n        return;\n    node->updates->fed_bytes",
                "    node->updates->fed_bytes",
            ),
        ),
    ),
    Fault(
        "a page that is being fetched is fed",
        "predict/update.c",
        "    if (page_valid(page) || page_fetch(page) || context_holds(node))\n"
        "        return;\n    page_history(page)->streamed",
        "    page_history(page)->streamed",
        GUESSING,
    ),
    Fault(
        "the appetites of a region that goes are kept",
        "page/region.c",
        "    if (region->appetites.items)\n",
        "    if (false)\n",
    ),
    Fault(
        "R10 what was opened early is not looked at", "sync/release.c", "    preopened_inspect(node);\n", "", GUESSING
    ),
    Fault(
        "R10 a page that was open when it became stale is open again, and not inspected",
        "coherence/fetch.c",
        "(reopens && preopened_open(node, page, true))",
        "(reopens && (page->mode = PAGE_OPEN, protection_set(node, page, ACCESS_WRITE), true))",
        ("--refetch_bytes=4096", "--push_bytes=4096", "--open_bytes=4096", "--nodes=2", "--guess=0", "--preopen=0"),
    ),
    Fault(
        "R3 a page that has changed since it was sealed keeps its stamp",
        "coherence/seal.c",
        "!changed && last > node->collection.ended",
        "last > node->collection.floor",
    ),
    Fault(
        "R8 an unchanged page keeps a stamp that a collection has forgotten",
        "coherence/seal.c",
        "!changed && last > node->collection.ended && node->collection.phase == COLLECTION_IDLE",
        "!changed",
        ("--collect=300", "--nodes=3"),
    ),
    Fault(
        "R10 a page is closed that the look before has protected only now",
        "coherence/preopened.c",
        "    bool lags = page->writers;\n",
        "    bool lags = false;\n",
        (*GUESSING, "--bystanders=1000"),
    ),
    Fault(
        "R10 a change that others were sent is not noticed",
        "coherence/seal.c",
        "        writes_mark_dirty(node, page); /* nobody has found it changed before */\n",
        "            (void)0;\n",
        GUESSING,
    ),
    Fault(
        "R4 a late diff takes in what was written since",
        "page/page.c",
        "*now = page->twin ? page->twin : port->view",
        "*now = port->view",
    ),
    Fault(
        "R4 diffs are dropped that one of several others lacks",
        "coherence/serve.c",
        "node->size == 2 && (request->flags",
        "(request->flags",
    ),
    Fault(
        "R4 a late diff is not cut before others are applied",
        "coherence/fetch.c",
        "    seal_encode_deferred(node, fetch->page);\n",
        "",
    ),
    Fault(
        "H1 only the space that receives a notice gives the page up",
        "sync/notices.c",
        "                changes_add(node, page);\n",
        "                protection_set(node, page, ACCESS_NONE);\n",
        SHARED,
        (
            (
                "sync/notices.c",
                '#include "protocol/coherence/changes.h"\n',
                '#include "protocol/coherence/protection.h"\n',
            ),
        ),
    ),
    Fault(
        "H1 one position in the log for all spaces",
        "coherence/changes.c",
        "    uint64_t *seen = &changes->seen[node->me];\n",
        "    uint64_t *seen = &changes->seen[0];\n",
        SHARED,
    ),
    Fault(
        "H1 an entry of the log grows though a space has passed it",
        "coherence/changes.c",
        "    if (changes->count > changes->followed) {\n",
        "    if (changes->count > 0) {\n",
        SHARED,
    ),
    Fault(
        "H1 a space that follows goes on reading a stale page",
        "coherence/changes.c",
        "    if (!page_valid(page) || page->unwanted)\n        return ACCESS_NONE;\n",
        "",
        SHARED,
    ),
    Fault(
        "H1 a space that follows goes on writing a closed page",
        "coherence/changes.c",
        "    return page_open(page) ? ACCESS_WRITE : ACCESS_READ;\n",
        "    return ACCESS_WRITE;\n",
        SHARED,
    ),
    Fault(
        "H1 a space that was overtaken follows what is left of the log",
        "coherence/changes.c",
        "    if (overtaken(changes, node->me))\n        follow_all(node);\n    else\n        for",
        "    for",
        (*SHARED, "--changes_kept=4"),
    ),
    Fault(
        "H1 a space that was overtaken goes on reading freed arrays",
        "coherence/changes.c",
        "    for (uint32_t i = 0; i < node->regions->grave_count; i++)\n"
        "        follow_grave(node, &node->regions->graves[i]);\n    for",
        "    for",
        ("--spaces=0", "--changes=1000", "--phases=8", "--changes_kept=4"),
    ),
    Fault(
        "H2 the memory of a dropped copy is given back",
        "sync/collection.c",
        "    page->copy = false;\n    page_twin_drop(page, &node->pool);\n",
        "    page->copy = false;\n    page_twin_drop(page, &node->pool);\n"
        "    node->port->discard(node->port->context, page_offset(page), page_region(page)->page_bytes);\n",
        SHARED,
    ),
    Fault(
        "H3 a page is sealed as if no other space could write it",
        "coherence/seal.c",
        "changed = page->writers ? seal",
        "changed = page_access(node, page) == ACCESS_WRITE ? seal",
        SHARED,
        (SEALED_UNSEEN,),
    ),
    Fault(
        "H3 a stale page is sealed as if nobody could write it",
        "coherence/seal.c",
        "changed = page->writers ? seal",
        "changed = page->writers && page_valid(page) ? seal",
        SHARED,
        (SEALED_UNSEEN,),
    ),
    Fault(
        "R3 an unchanged page keeps a stamp from before a collection",
        "coherence/seal.c",
        "last > node->collection.ended",
        "last > node->collection.floor",
        ("--races=400", "--lock_threads=2", "--nodes=4", "--seed=499000"),
    ),
    Fault(
        "H3 the diff is encoded from the page, not from the snapshot",
        "coherence/seal.c",
        "changed = encode(node, page, snapshot,",
        "changed = encode(node, page, node->port->view + page_offset(page),",
        SHARED,
    ),
    Fault(
        "H3 the page is sent, not the snapshot",
        "coherence/serve.c",
        "snapshot ? page->twin : node->port->view + page_offset(page);",
        "node->port->view + page_offset(page);",
        (*SHARED, "--whole=2"),
    ),
    Fault(
        "H3 the twin is a second copy of the page",
        "coherence/seal.c",
        "    page->twin = snapshot;\n",
        "    live_copy(snapshot, node->port->view + page_offset(page), bytes);\n    page->twin = snapshot;\n",
        SHARED,
    ),
    Fault(
        "H3 a stale page is not inspected",
        "coherence/preopened.c",
        "        if (page_inspected(page))\n            inspect(",
        "        if (page_inspected(page) && page_valid(page))\n            inspect(",
        SHARED,
    ),
    Fault(
        "H3 found changed by a seal, and not noticed",
        "coherence/seal.c",
        "    if (page_inspected(page) && preopened_changed(node, page))\n",
        "    if (page_inspected(page) && preopened_changed(node, page) && node->size < 0)\n",
        SHARED,
    ),
    Fault(
        "H3 a page that lags is closed though some space may write it",
        "coherence/preopened.c",
        "    else if (lags)\n        shut(",
        "    else if (lags && page->mode == PAGE_PREOPENED)\n        shut(",
        SHARED,
        (
            (
                "coherence/preopened.c",
                '    context_assert(node, !page->writers, "preopened: a page is closed that some space can write");\n',
                "",
            ),
        ),
    ),
    Fault(
        "H4 a whole page is copied over what is being written",
        "coherence/install.c",
        "    diff_apply_under(node->port->view + page_offset(page), page->twin, body, bytes);\n",
        "    unsigned char *own = pool_take(&node->pool, room), *view = node->port->view + page_offset(page);\n"
        "    uint64_t own_bytes = diff_encode(view, page->twin, page_bytes, page_bytes, own);\n"
        "    diff_apply(view, own, 0);\n"  # where threads go on
        "    memcpy(view, base, page_bytes);\n"
        "    diff_apply(view, own, own_bytes);\n"
        "    pool_give(&node->pool, own, room);\n",
        (*SHARED, "--bystanders=1000", "--whole=2"),
    ),
    Fault(
        "H4 own sealed writes go on top when the page is in its place",
        "coherence/install.c",
        "        put_own(page, built, known);\n"
        "        if (page->twin)\n            merge(node, page, built);\n"
        "        else\n            memcpy(view, built, page_bytes);\n",
        "        if (page->twin)\n            merge(node, page, built);\n"
        "        else\n            memcpy(view, built, page_bytes);\n"
        "        put_own(page, view, known);\n"
        "        if (page->twin)\n            put_own(page, page->twin, known);\n",
        SHARED,
    ),
    Fault(
        "H5 what was written and is closed by now is dropped",
        "sync/collection.c",
        "node->number || page->writers || page_inspected(page);\n",
        "node->number || page->writers;\n",
        (*SHARED, "--collect=30"),
    ),
    Fault(
        "H5 what some space may write is dropped",
        "sync/collection.c",
        "node->number || page->writers || page_inspected(page);\n",
        "node->number || page_inspected(page);\n",
        (*SHARED, "--collect=30"),
    ),
    Fault(
        "H5 a new snapshot for everybody who asks",
        "coherence/seal.c",
        "    return context_silent(node) && page_inspected(page);\n",
        "    return context_silent(node) && page_inspected(page) && node->size < 0;\n",
        (*SHARED, "--collect=30"),
    ),
    Fault(
        "H5 threads arrive while a notice is owed",
        "sync/meeting.c",
        "        meeting->withheld = preopened_owing(node);\n",
        "        meeting->withheld = false;\n",
        (*SHARED, "--collect=30"),
    ),
    Fault(
        "H5 grants that had to wait are forgotten",
        "sync/collection.c",
        "    meeting_resume(node);\n    lock_resume(node);\n",
        "    meeting_resume(node);\n",
        (*SHARED, "--collect=30"),
    ),
    Fault(
        "H5 silent from the departure on, not from the arrival",
        "base/context.h",
        "    return node->collection.phase >= COLLECTION_CUTTING;\n",
        "    return node->collection.phase >= COLLECTION_VALIDATING;\n",
        (*SHARED, "--collect=30"),
    ),
    Fault(
        "H5 what other spaces can write is not exclusive after a collection",
        "sync/collection.c",
        "    if (page->writers)\n        page->mode = PAGE_OPEN;",
        "    if (page_access(node, page) == ACCESS_WRITE)\n        page->mode = PAGE_OPEN;",
        ("--spaces=0", "--collect=30"),
    ),
    Fault(
        "H6 the node arrives with the first of its spaces",
        "sync/meeting.c",
        "(atomic_fetch_or(&meeting->joined, me) | me) != context_spaces(node)",
        "atomic_fetch_or(&meeting->joined, me) != 0",
        SHARED,
    ),
    Fault(
        "H6 a space departs that another one has departed for",
        "sync/meeting.c",
        "    meeting->seats[space].taken++;\n",
        "    for (uint32_t k = 0; k < node->spaces; k++)\n        meeting->seats[k].taken = meeting->passed;\n",
        SHARED,
    ),
    Fault(
        "H8 a node that is alone leaves ballots unread where the last space brings a barrier's",
        "sync/meeting.c",
        "!alone_is(node) || !all_at_barrier(node)",
        "!alone_is(node) || seat->ballot",
        ("--nodes=1", "--spaces=4", "--phases=8"),
    ),
    Fault(
        "H8 a lock that is held is taken without the mutex",
        "sync/lock.c",
        "    if (use > LOCK_LINE || (use == LOCK_LINE &&",
        "    if ((use == LOCK_LINE &&",
        ("--nodes=1", "--spaces=4", "--lock_threads=2"),
    ),
    Fault(
        "H8 a lock is given up without the mutex while threads stand in line",
        "sync/lock.c",
        "    uint32_t mine = used_by(rank);\n",
        "    uint32_t mine = used_by(rank) | (lock->use & LOCK_LINE);\n",
        ("--nodes=1", "--spaces=4", "--lock_threads=2"),
    ),
    Fault(
        "H8 a barrier of a node that is alone keeps the outcome of the meeting before",
        "sync/meeting.c",
        "    meeting->outcome = MEETING_AGREED;\n",
        "",
        ("--nodes=1", "--spaces=4", "--phases=8"),
    ),
    Fault(
        "H6 spaces depart before what the meeting decided is carried out",
        "node/departure.c",
        "        if (agreed)\n            carry_out(node, meeting, &outcome);\n",
        "        if (agreed && context_spaces(node) == 1)\n            carry_out(node, meeting, &outcome);\n",
        SHARED,
    ),
    Fault(
        "H6 of a node's ballots the last one counts",
        "sync/meeting.c",
        "    if (into->variant_count)\n        ballot_merge(into, other);\n    else\n",
        "",
        (*SHARED, "--changes=1000"),
    ),
    Fault(
        "H6 addresses are used again that one space has forgotten",
        "sync/meeting.c",
        "grave->forgotten == context_spaces(node)",
        "grave->forgotten",
        (*SHARED, "--changes=1000", "--phases=8"),
    ),
    Fault(
        "H6 an array is freed for one space",
        "node/departure.c",
        "    changes_add_region(node, region->id);\n    region_remove",
        "    region_remove",
        ("--spaces=0", "--changes=1000", "--phases=8"),
    ),
    Fault(
        "H1 a space that lags behind a free leaves its mappings where room is needed",
        "coherence/protection.c",
        "done = protection_close_graves(node);",
        "done = true;",
        CROWDED,
    ),
    Fault(
        "H7 diffs are dropped that a page lacks which is on its way",
        "coherence/serve.c",
        " && !page_fetch(page))\n        page_diffs_drop_until",
        ")\n        page_diffs_drop_until",
        REORDERED,
    ),
    Fault(
        "H5 of a frozen page whose twin is the constant, one granule is sent as the page",
        "coherence/serve.c",
        "    if (snapshot)\n        page_twin_own(page, &node->pool); /* the constant is one granule */\n",
        "",
        (*REORDERED, *FROZEN, "--seed=1000000"),
    ),
    Fault(
        "R17 a page that is to be inspected is sent as it lies there",
        "page/page.h",
        "page->mode == PAGE_CLOSED && !page->writers && !page->twin",
        "!page_open(page) && !page->writers",
        (*CROWDS, "--preopen=300"),
    ),
    Fault(
        "R17 a reader that has given its copy up is sent on to itself",
        "page/crowd.c",
        " || member(crowd, reader))",
        ")",
        (*CROWDS, "--evict=900", "--cache_bytes=1000000000"),
    ),
    Fault(
        "R17 what a reader could not serve is sent on once more",
        "coherence/serve.c",
        "    if (last || origin.hops >= HOPS_MAX)\n        reply.readers_max = UINT32_MAX;\n",
        "",
        CROWDS,
    ),
    Fault(
        "R17 a request that waits for a page is forgotten when it has come",
        "coherence/reply.c",
        "    if (node->deferred)\n",
        "    if (segments)\n",
        CROWDS,
    ),
    Fault(
        "H9 an acquire returns before what is pinned is up to date",
        "node/access.c",
        "            valid = false;\n            if (!page_fetch(pin->page)",
        "            if (!page_fetch(pin->page)",
        (*SHARED, "--pins=300"),
    ),
    Fault(
        "H9 what is pinned for writing is protected when it is sealed",
        "coherence/seal.c",
        " && !frozen(node, page) && !pin_find(node, page);\n",
        " && !frozen(node, page);\n",
        (*SHARED, "--pins=300"),
    ),
    Fault(
        "H9 a page that one space pins is passed over by all",
        "coherence/pin.c",
        "    while (pin && pin->space != node->me)\n        pin = pin->other;\n",
        "",
        (*SHARED, "--pins=300"),
    ),
    Fault(
        "evict: the owner gives up the last copy",
        "coherence/cache.c",
        "    if (page->cached && owner == node->number)\n        cache_leave(node, page);\n    else if",
        "    if",
        EVICTING,
        MAY_GIVE_UP,
    ),
    Fault(
        "evict: who owned the page before the last cut gives it up",
        "coherence/cache.c",
        "    page->lent = page->lent || page->owner == node->number;\n",
        "",
        EVICTING,
    ),
    Fault(
        "evict: a writer gives up what its notice has named",
        "coherence/evict.c",
        "(page->lent || vector_get(&page->have, node->number))",
        "page->lent",
        EVICTING,
        MAY_GIVE_UP[1:],
    ),
    Fault(
        "evict: a pinned page is given up",
        "coherence/evict.c",
        "(extension->pins || extension->fetch",
        "(extension->fetch",
        (*EVICTING, "--pins=200"),
        MAY_GIVE_UP[:1],
    ),
    Fault(
        "evict: a page is given up while it is fetched",
        "coherence/evict.c",
        "extension->pins || extension->fetch ||",
        "extension->pins ||",
        EVICTING,
        MAY_GIVE_UP[:1],
    ),
    Fault(
        "evict: a dirty page is given up",
        "coherence/evict.c",
        "bool written = page->mode != PAGE_CLOSED || page->dirty || page->twin || page->writers;",
        "bool written = false;",
        EVICTING,
        MAY_GIVE_UP[:1],
    ),
    Fault(
        "evict: a copy is given up that another space may touch",
        "coherence/evict.c",
        "    if (!used && !asked && !page->readers) {",
        "    if (!used && !asked && page_access(node, page) == ACCESS_NONE) {",
        (*EVICTING, "--spaces=2"),
        (("coherence/evict.c", '!page->readers, "evict: a copy', 'true, "evict: a copy'),),
    ),
    Fault(
        "evict: memory goes before the kernel was told",
        "coherence/evict.c",
        "    protection_flush(node); /* nobody may read what is gone */\n",
        "",
        ("--evict=500", "--cache_bytes=300", "--check=0", "--bystanders=1000", "--collect=30"),
    ),
    Fault(
        "evict: a copy is given up during a collection",
        "coherence/evict.c",
        "cache->count == 0 || context_holds(node)",
        "cache->count == 0",
        (*EVICTING, "--collect=30"),
    ),
    Fault(
        "diff: the last block is not looked at",
        "page/diff.c",
        "blocks = page_bytes / DIFF_BLOCK_BYTES;",
        "blocks = (page_bytes - 1) / DIFF_BLOCK_BYTES;",
    ),
    Fault(
        "diff: words, not bytes",
        "page/diff.c",
        "(((high >> 7) * 0x0102040810204080u) >> 56)",
        "(high ? 255u : 0u)",
        (),
        (("page/diff.c", "#define DIFF_X86 3", "#define DIFF_X86 0 "),),
    ),
    Fault(
        "races: a clock does not hold what the stretch before it knew",
        "sync/races.c",
        "            clock[q] = theirs[q];\n",
        "            clock[q] = clock[q];\n",
        RACING,
    ),
    Fault(
        "races: a stretch after a meeting follows nobody's",
        "sync/races.c",
        "ended_before_arrival, stretch->departures));",
        "ended_before_arrival, 0));",
        RACING,
    ),
    Fault(
        "races: a stretch follows all that its grant tells of",
        "sync/lock.c",
        "    lock->released_at = node->accesses->cut;\n",
        "",
        (*RACING, "--lock_threads=2"),
        (("node/grant.c", "    lock->released_at = released_at;\n", "    lock->released_at = node->stamp;\n"),),
    ),
    Fault(
        "races: what is served as a whole page is not logged",
        "coherence/seal.c",
        "    late &= !node->options.races; ",
        "",
        RACING,
    ),
    Fault(
        "races: a page stays open when its stretch ends",
        "coherence/stretch.c",
        "        if (!keeps(node, accesses->opened[i]))\n",
        "        if (page_access(node, accesses->opened[i]) == ACCESS_READ)\n",
        RACING,
        (
            (
                "coherence/stretch.c",
                "        if (may_be_written(accesses->opened[i]))\n",
                "        if (!accesses->opened[i]->writers && may_be_written(accesses->opened[i]))\n",
            ),
        ),
    ),
    Fault(
        "races: what is open at a collection is not logged before",
        "sync/collection.c",
        "        if (node->options.races)\n            stretch_harvest(node);",
        "        if (false)\n            stretch_harvest(node);",
        (*RACING, "--collect=30"),
    ),
    Fault(
        "races: a wait for a flag follows nobody",
        "sync/races.c",
        "    accesses_after(node, setter, set);\n",
        "    (void)setter;\n    (void)set;\n",
        (*RACING, "--flags=4", "--lock_threads=0"),
    ),
)


def plant(fault, tree, *parts):
    """Copy parts of the sources, csrc among them, and put the fault into the copy."""
    for part in parts:
        shutil.copytree(ROOT / part, tree / part)
    for file, rule, without in ((fault.file, fault.rule, fault.without), *fault.also):
        path = tree / "csrc/protocol" / file
        text = path.read_text()
        if text.count(rule) != 1:
            sys.exit(f"{fault.name}: its text is {text.count(rule)} times in {file}")
        path.write_text(text.replace(rule, without))


def planted(fault, folder):
    """Compile the simulator from a copy of the sources with the fault in it; returns the program."""
    tree = folder / re.sub(r"\W+", "-", fault.name)
    plant(fault, tree, "csrc", "tests/native")
    command = ["make", "-s", "-f", str(tree / "tests/native/sim.mk"), "sim", f"SIM_BUILD={tree / 'build'}", "CC=cc -w"]
    subprocess.run(command, check=True)
    return tree / "build" / "sim"


def main():
    """Print the table; the status is the number of faults that were not caught."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=int, default=6000)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        for fault in FAULTS:
            if arguments.only not in fault.name:
                continue
            program = planted(fault, pathlib.Path(folder))
            command = [program, f"--runs={arguments.programs}", "--quiet", *fault.knobs]
            done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
            caught = re.search(r"FAILED after (\d+) programs, commit \S+: (seed \d+), step \d+, (.*)", done.stdout)
            missed += not caught and done.returncode >= 0
            how = f"{caught[1]:>5} programs, {caught[2]}: {caught[3][:90]}" if caught else "NOT CAUGHT"
            if done.returncode < 0:
                how = f"the simulator died of signal {-done.returncode}"
            print(f"{fault.name:72} {how}", flush=True)
    return missed


if __name__ == "__main__":
    sys.exit(main())
