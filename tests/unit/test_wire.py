"""What nodes send each other: every kind of message through a second codec, written from the layouts in the headers,
and through nodes that read it and write it again; then random bytes to nodes in every state (tests/native/fuzz.h).

The second codec shares nothing with the C code: `decode` takes a message apart into numbers and lists and must use up
every byte, and `encode` makes the same bytes of them.
"""

import ctypes
import os
import pathlib
import re
import shutil
import struct
import subprocess

import hypothesis
import pytest
from hypothesis import strategies as st

ROOT = pathlib.Path(__file__).resolve().parents[2]
KINDS = ("fetch", "reply", "push", "acquire", "pass", "grant", "busy", "withdraw", "withdrawn", "arrive", "depart",
         "add", "sum", "request_collection", "collect", "roll_call", "absent", "held", "forward",
         "await", "set", "publish", "unsubscribe")  # fmt: skip
HEADER = struct.Struct("=IBBHIIQQ")  # magic, kind, by service, unused, count, sender, stamp, bytes
MAGIC = int(
    re.search(r"MESSAGE_MAGIC = (0x\w+)", (ROOT / "csrc" / "protocol" / "base" / "message.h").read_text()).group(1), 16
)
WHOLE_OK, WHOLE, APART = 2, 8, 16

pytestmark = pytest.mark.timeout(600)  # it compiles

# --- the second codec ------------------------------------------------------------------------------------------------
#
# A layout is a list of (name, type); a type is a struct format, a function of (stream, value, fields so far), or a
# layout: so many of these as a count of 32 bits before them says.


class Stream:
    """Reads fields from bytes, or writes them: the same layouts serve both ways."""

    def __init__(self, data=None):
        self.reads = data is not None
        self.data = bytearray(data or b"")
        self.at = 0

    def number(self, form, value):
        if self.reads:
            (value,) = struct.unpack_from("=" + form, self.data, self.at)
            self.at += struct.calcsize("=" + form)
        else:
            self.data += struct.pack("=" + form, value)
        return value

    def raw(self, count, value):
        if self.reads:
            value = bytes(self.data[self.at : self.at + count])
            assert len(value) == count
            self.at += count
        else:
            assert len(value) == count
            self.data += value
        return value

    def text(self, value):
        return self.raw(self.number("I", None if self.reads else len(value)), value)

    def repeated(self, layout, values, count=None):
        if count is None:
            count = self.number("I", None if self.reads else len(values))
        return [self.fields(layout, None if self.reads else values[i]) for i in range(count)]

    def fields(self, layout, value):
        found = {}
        for name, kind in layout:
            given = None if self.reads else value[name]
            if isinstance(kind, str):
                found[name] = self.number(kind, given)
            elif isinstance(kind, list):
                found[name] = self.repeated(kind, given)
            else:
                found[name] = kind(self, given, found)
        return found


def text(stream, value, _):
    return stream.text(value)


ALIKE = 1 << 31


def runs(stream, value, found):
    """Runs of one node; or, for several that have named the same as before, what their stamps differ by."""
    if found["runs"] & ALIKE:
        return stream.repeated([("difference", "h")], value, (found["runs"] & (2**30 - 1)) - 1)
    return stream.repeated([("region", "I"), ("pages", "I"), ("first", "Q")], value, found["runs"])


def vector_if_whole_ok(stream, value, found):
    return stream.repeated(VECTOR, value) if found["flags"] & WHOLE_OK else []


def run_content(stream, value, found):
    """What follows the head of a run of a reply: `size` counts it."""
    begin = stream.at if stream.reads else len(stream.data)
    if found["flags"] & WHOLE:
        content = {"have": stream.repeated(HAVE, value and value["have"], found["pages"])}
        left = found["size"] - ((stream.at if stream.reads else len(stream.data)) - begin)
        content["bytes"] = stream.raw(left, value and value["bytes"])
        assert (left == 0) == bool(found["flags"] & APART) == (found["behind"] > 0)
    else:
        assert (found["pages"], found["behind"]) == (1, 0)
        content = stream.fields(DIFFS, value)
    assert found["size"] == (stream.at if stream.reads else len(stream.data)) - begin
    return content


def push_content(stream, value, found):
    """What follows `since` in a push: `size` counts it."""
    begin = stream.at if stream.reads else len(stream.data)
    content = {"have": stream.repeated(VECTOR, None if stream.reads else value["have"])}
    content["diffs"] = stream.repeated(DIFF, None if stream.reads else value["diffs"])
    assert found["size"] == (stream.at if stream.reads else len(stream.data)) - begin
    return content


def diff_body(stream, value, found):
    return stream.raw(found["size"], value)


VECTOR = [("node", "I"), ("stamp", "Q")]
DIFF = [("tag", "Q"), ("size", "Q"), ("body", diff_body)]
DIFFS = [("tag", "Q"), ("have", VECTOR), ("diffs", DIFF)]
HAVE = [("have", VECTOR)]
INTERVAL = [("node", "I"), ("runs", "I"), ("stamp", "Q"), ("list", runs)]
VARIANT = [("first", "I"), ("ranks", "I"), ("kind", "I"), *((f"number{i}", "Q") for i in range(4)), ("what", text),
           ("name", text), ("value", text)]  # fmt: skip
IDS = [("id", "I")]
REQUEST = [("lock", "I"), ("who", "I"), ("rank", "I"), ("trying", "I"), ("known", VECTOR)]
WANT = [("region", "I"), ("flags", "I"), ("page", "Q"), ("since", "Q"), ("have", vector_if_whole_ok)]
PAGES = [("region", "I"), ("flags", "I"), ("first", "Q"), ("pages", "Q"), ("size", "Q"), ("behind", "Q"),
         ("content", run_content)]  # fmt: skip
PUSH = [("region", "I"), ("flags", "I"), ("page", "Q"), ("size", "Q"), ("tag", "Q"), ("since", "Q"),
        ("content", push_content)]  # fmt: skip
HOP = [("lock", "I"), ("node", "I"), ("thread", "I"), ("waits", "I"), ("object", "Q"), ("site", text)]
SENT_ON = [("region", "I"), ("flags", "I"), ("page", "Q"), ("seen", "Q"), ("have", VECTOR)]
ITEMS = {"fetch": WANT, "reply": PAGES, "push": PUSH, "forward": SENT_ON}
FRONTS = {
    "fetch": [("cuts", "Q")],
    "forward": [("first", "I"), ("reader", "I"), ("rank", "I"), ("hops", "I"), ("asked", "Q")],
}
TOLD = [("flag", "I"), ("set", "Q"), ("published", [("node", "I"), ("rank", "I")])]
BODIES = {
    "acquire": REQUEST,
    "pass": REQUEST,
    "grant": [("lock", "I"), ("cuts", "Q"), ("intervals", INTERVAL)],
    "busy": [("lock", "I")],
    "withdraw": [("lock", "I"), ("ahead", "I")],
    "withdrawn": [("lock", "I"), ("follows", "I")],
    "arrive": [("class", "I"), ("variants", VARIANT), ("refusing", "I"), ("refusal", text), ("forgotten", IDS),
               ("intervals", INTERVAL)],
    "depart": [("class", "I"), ("number", "Q"), ("outcome", "I"), ("stamp", "Q"), ("text", text),
               ("agreed", lambda stream, value, _: stream.fields(VARIANT, value)), ("forgotten", IDS),
               ("intervals", INTERVAL)],
    "add": [("counter", "I"), ("ticket", "Q"), ("start", "q"), ("delta", "q")],
    "sum": [("ticket", "Q"), ("before", "q")],
    "request_collection": [],
    "collect": [("number", "Q")],
    "roll_call": [("meeting", "Q"), ("caller", "I"), ("call", "I")],
    "absent": [("meeting", "Q"), ("call", "I"), ("spaces", "Q")],
    "held": [("lock", "I"), ("hops", HOP)],
    "await": [("flag", "I"), ("who", "I"), ("rank", "I"), ("after", "Q"), ("known", VECTOR)],
    "set": TOLD,
    "publish": [("number", "Q"), ("cuts", "Q"), *TOLD, ("intervals", INTERVAL)],
    "unsubscribe": [],
}  # fmt: skip


def body(stream, kind, count, value=None):
    if kind not in ITEMS:
        return stream.fields(BODIES[kind], value)
    found = stream.fields(FRONTS.get(kind, []), value)
    found["items"] = stream.repeated(ITEMS[kind], value and value["items"], count)
    return found


def decode(data):
    """Return (kind, sender, stamp, body); every byte must have a meaning."""
    magic, number, _, unused, count, sender, stamp, size = HEADER.unpack_from(data)
    assert (magic, unused, size) == (MAGIC, 0, len(data))
    stream = Stream(data[HEADER.size :])
    kind = KINDS[number - 1]
    value = body(stream, kind, count)
    assert stream.at == len(data) - HEADER.size
    assert kind in ITEMS or count == 0
    return kind, sender, stamp, value


def encode(kind, sender, stamp, value):
    stream = Stream()
    count = len(value["items"]) if kind in ITEMS else 0
    body(stream, kind, count, value)
    number = 1 + KINDS.index(kind)
    size = HEADER.size + len(stream.data)
    return HEADER.pack(MAGIC, number, 0, 0, count, sender, stamp, size) + bytes(stream.data)


# --- real messages ---------------------------------------------------------------------------------------------------


def build_fuzz(folder, csrc=None, target="build-plain"):
    words = ["make", "-s", "-f", str(ROOT / "tests" / "native" / "fuzz.mk"), target, f"FUZZ_BUILD={folder}"]
    done = subprocess.run(words + ([f"FUZZ_PROTOCOL_DIR={csrc}"] if csrc else []), capture_output=True, text=True)
    if "libasan" in done.stderr or "-lasan" in done.stderr:
        pytest.skip("this compiler has no address sanitizer (libasan)")
    assert done.returncode == 0, done.stderr
    return folder / "fuzz"


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory):
    return build_fuzz(tmp_path_factory.mktemp("fuzz"))


@pytest.fixture(scope="module")
def corpus(fuzz, tmp_path_factory):
    """Real messages of small jobs by kind, without the four bytes that name a state."""
    folder = tmp_path_factory.mktemp("corpus")
    subprocess.run([fuzz, f"--corpus={folder}"], check=True)
    return {kind: [file.read_bytes()[4:] for file in sorted((folder / kind).iterdir())] for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_real_messages_are_what_the_headers_say(corpus, kind):
    assert len(corpus[kind]) >= 25
    for data in corpus[kind]:
        found, sender, stamp, value = decode(data)
        assert found == kind
        assert encode(kind, sender, stamp, value) == data


def test_real_messages_are_not_all_empty(corpus):
    """Lists, vectors, pages and diffs occur in them, so that the test before this one looks at something."""
    bodies = {kind: [decode(data)[3] for data in corpus[kind]] for kind in KINDS}
    pages = [page["content"] for reply in bodies["reply"] for page in reply["items"]]
    assert any(len(reply["items"]) > 1 for reply in bodies["fetch"] + bodies["reply"])
    assert any(page.get("bytes") for page in pages)
    assert any(page.get("bytes") == b"" for page in pages), "some travel behind a reply"
    assert any(page.get("diffs") for page in pages)
    assert any(page["have"] for page in pages)
    assert any(interval["list"] for grant in bodies["grant"] for interval in grant["intervals"])
    assert any(request["known"] for request in bodies["pass"])
    assert any(request["trying"] for request in bodies["acquire"])
    assert any(request["known"] for request in bodies["await"])
    assert any(told["published"] for told in bodies["set"] + bodies["publish"])
    assert any(told["number"] for told in bodies["publish"])
    assert any(told["intervals"] for told in bodies["publish"])


# --- nodes that read and write ---------------------------------------------------------------------------------------

FAR = 2**61  # stamps of the messages of these tests: above all that their bodies name
FAULT, STORE, ENQUEUE, POLL, ADD, ARRIVE, TAKE, MESSAGE = 0, 1, 2, 3, 6, 8, 9, 14  # enum fuzz_entry_kind
ROLL, TELL, JOIN = 17, 18, 19
WAIT_LOCK = 3
BARRIER, ALLOCATE, RECOUNT, FINALIZE, COLLECT = 1, 2, 4, 5, 6  # enum meeting_kind
COMPARED = 1, 2, 3, 5, 6  # of a count the largest one is taken
ROOM = 1 << 16


class Entry(ctypes.Structure):
    """Lies in memory as struct fuzz_entry does."""

    _fields_ = [("kind", ctypes.c_uint32), ("thread", ctypes.c_int32), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64),
                ("c", ctypes.c_uint64), ("bytes", ctypes.c_char_p), ("count", ctypes.c_uint64)]  # fmt: skip


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    made = tmp_path_factory.mktemp("node") / "fuzz_node.so"
    native = ROOT / "tests" / "native"
    sources = [native / "fuzz_node.c", *(ROOT / "csrc" / "protocol").glob("*/*.c")]
    words = [os.environ.get("CC", "cc"), *"-std=gnu11 -O1 -g -shared -fPIC".split(), "-I", ROOT / "csrc", "-I", native]
    subprocess.run([*words, "-o", made, *sources], check=True)
    library = ctypes.CDLL(str(made))
    library.fuzz_node_new.restype = ctypes.c_void_p
    library.fuzz_node_new.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_uint64]
    library.fuzz_node_free.argtypes = [ctypes.c_void_p]
    library.fuzz_node_do.restype = ctypes.c_char_p
    library.fuzz_node_do.argtypes = [ctypes.c_void_p, ctypes.POINTER(Entry)]
    library.fuzz_node_take.restype = ctypes.c_uint64
    library.fuzz_node_take.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint64, ctypes.POINTER(ctypes.c_int)]
    return library


class Node:
    """Node `rank` of a job whose other nodes are the test."""

    def __init__(self, library, rank, size):
        self.library, self.rank, self.departures = library, rank, 0
        self.home = library.fuzz_node_new(rank, size, 1 << 30)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.library.fuzz_node_free(self.home)

    def dies(self, kind, a=0, b=0, c=0, thread=0, data=b""):
        """Do something; returns what the node died of, or None."""
        died = self.library.fuzz_node_do(self.home, Entry(kind, thread, a, b, c, data, len(data)))
        return died and died.decode()

    def do(self, *arguments, **more):
        assert self.dies(*arguments, **more) is None

    def receive(self, sender, kind, value):
        self.do(MESSAGE, thread=sender, data=encode(kind, sender, FAR, value))

    def sent(self):
        """Return what it has sent since, as (receiver, kind, body)."""
        messages, room, to = [], ctypes.create_string_buffer(ROOM), ctypes.c_int()
        while size := self.library.fuzz_node_take(self.home, room, ROOM, ctypes.byref(to)):
            kind, sender, self.stamp, value = decode(room.raw[:size])
            assert sender == self.rank
            messages.append((to.value, kind, value))
        return messages

    def meet(self, kind, b=0, c=0, **agreed):
        """Call something collective; rank 0, the parent, says what was agreed."""
        self.do(ARRIVE, kind, b, c)
        ((to, name, up),) = self.sent()
        assert (to, name, len(up["variants"])) == (0, "arrive", 1)
        made = up["variants"][0]
        assert (made["kind"], made["number0"], made["number1"]) == (kind, b, c)
        assert (made["first"], made["ranks"]) == (self.rank, 1)
        self.departures += 1
        self.receive(0, "depart", departure(number=self.departures, agreed={**made, **agreed}))
        self.do(TAKE)
        return made

    def learn(self, intervals):
        """Take lock 0, whose last holder, rank 0, knows these intervals."""
        self.do(ENQUEUE, 0)
        self.do(POLL)
        ((to, kind, request),) = self.sent()
        assert (to, kind, request["lock"], request["who"], request["trying"]) == (0, "acquire", 0, self.rank, 0)
        self.receive(0, "grant", {"lock": 0, "cuts": 0, "intervals": intervals})
        self.do(POLL)


def departure(**fields):
    value = {"class": 0, "number": 1, "outcome": 0, "stamp": 1, "text": b"", "agreed": variant(), "forgotten": [],
             "intervals": []}  # fmt: skip
    return {**value, **fields}


def arrival(**fields):
    value = {"class": 0, "variants": [variant()], "refusing": 0, "refusal": b"", "forgotten": []}
    return {**value, "intervals": [], **fields}


def variant(**fields):
    value = {"first": 0, "ranks": 1, "kind": 1, "number0": 0, "number1": 0, "number2": 0, "number3": 0}
    return {**value, "what": b"", "name": b"", "value": b"", **fields}


def call_of(value):
    return {name: field for name, field in value.items() if name not in ("first", "ranks")}


numbers = st.integers(0, 2**64 - 1)
signed = st.integers(-(2**63), 2**63 - 1)
texts = st.binary(max_size=40)


def run(regions):
    return st.fixed_dictionaries({"region": regions, "pages": st.integers(0, 2**32 - 1), "first": numbers})


of_flag = st.fixed_dictionaries(
    {"region": st.integers(2**32 - 2, 2**32 - 1), "pages": st.just(1), "first": st.integers(0, 999)}
)


@st.composite
def interval_lists(draw, nodes):
    """Intervals of some nodes, by node, with ascending stamps; of regions that nobody has any more."""
    found = []
    for node in nodes:
        for stamp in sorted(draw(st.sets(st.integers(1, FAR - 1), max_size=3))):
            listed = draw(st.lists(run(st.integers(50, 2**32 - 3)) | of_flag, max_size=3))
            found.append({"node": node, "runs": len(listed), "stamp": stamp, "list": listed})
    return found


variants = st.builds(
    variant, first=st.integers(0, 5), ranks=st.integers(1, 6), kind=st.sampled_from(COMPARED), number0=numbers,
    number1=numbers, number2=numbers, number3=numbers, what=texts, name=texts, value=texts,
)  # fmt: skip
arrivals = st.builds(
    arrival, variants=st.lists(variants, min_size=1, max_size=3, unique_by=lambda v: v["what"]), refusal=texts,
    refusing=st.integers(0, 6), intervals=interval_lists([2, 3, 5]),
)  # fmt: skip


@hypothesis.given(arrivals)
def test_arrivals_are_merged_and_sent_up(library, given):
    """Node 1 of 6 has one child, no word of which may be lost."""
    with Node(library, 1, 6) as node:
        node.do(ARRIVE, 1)
        node.receive(5, "arrive", given)
        ((to, kind, up),) = node.sent()
        assert (to, kind, up["class"]) == (0, "arrive", 0)
        own = variant(first=1)
        alike = [v for v in given["variants"] if call_of(v) == call_of(own)]
        first = min([1, *(v["first"] for v in alike)])
        assert up["variants"][0] == {**own, "first": first, "ranks": 1 + sum(v["ranks"] for v in alike)}
        assert up["variants"][1:] == [v for v in given["variants"] if v not in alike]
        refused = (given["refusing"], given["refusal"]) if given["refusing"] else (0, b"")
        assert (up["refusing"], up["refusal"]) == refused
        assert up["intervals"] == given["intervals"]


@hypothesis.given(interval_lists([1]), interval_lists([2]))
def test_the_root_answers_with_the_intervals_of_all(library, first, second):
    with Node(library, 0, 3) as node:
        node.do(ARRIVE, 1)
        node.receive(1, "arrive", arrival(variants=[variant(first=1)], intervals=first))
        node.receive(2, "arrive", arrival(variants=[variant(first=2)], intervals=second))
        sent = node.sent()
        assert [(to, kind) for to, kind, _ in sent] == [(1, "depart"), (2, "depart")]
        assert sent[0][2] == sent[1][2]
        down = sent[0][2]
        assert (down["class"], down["number"], down["outcome"], down["text"], down["forgotten"]) == (0, 1, 0, b"", [])
        assert down["agreed"] == variant(first=0, ranks=3)
        assert down["intervals"] == first + second


def decided(library, kind, first, second):
    """Return what the root of three nodes decides on its own ballot and those of its children."""
    with Node(library, 0, 3) as node:
        node.do(ARRIVE, kind)
        node.receive(1, "arrive", arrival(variants=[first]))
        node.receive(2, "arrive", arrival(variants=[second]))
        (_, _, down), other = node.sent()
        assert other[2] == down
        return down


@pytest.mark.parametrize("kind", [BARRIER, FINALIZE])
def test_ranks_that_have_made_different_things_are_told_so(library, kind):
    """Before it is told that they call different things: one is often why the other happens."""
    alike, other = (variant(first=1, kind=BARRIER, number3=made, what=b"Lock(), then barrier()") for made in (0, 7))
    down = decided(library, kind, alike, {**other, "first": 2})
    assert down["outcome"] == 3
    assert b"rank 2: Lock(), then barrier()" in down["text"]


def test_the_largest_count_is_taken(library):
    down = decided(
        library, RECOUNT, *(variant(first=i, kind=RECOUNT, number0=n, what=b"a call") for i, n in ((1, 9), (2, 4)))
    )
    assert (down["outcome"], down["agreed"]["number0"], down["agreed"]["ranks"]) == (0, 9, 3)


@hypothesis.given(interval_lists([0, 2, 3, 4]), variants, st.integers(1, 5), texts)
def test_a_departure_goes_down_as_it_came(library, intervals, agreed, outcome, why):
    with Node(library, 1, 6) as node:
        node.do(ARRIVE, 1)
        node.receive(5, "arrive", arrival())
        node.sent()
        value = departure(outcome=outcome, stamp=7, text=why, agreed=agreed, intervals=intervals)
        node.receive(0, "depart", value)
        assert node.sent() == [(5, "depart", value)]


@hypothesis.given(interval_lists([0, 2]), st.integers(0, FAR), st.integers(0, FAR), st.booleans())
def test_a_grant_has_what_the_next_holder_lacks(library, intervals, zero, two, trying):
    """Intervals that came with one lock go on with another, but for those that its request says are known."""
    with Node(library, 1, 3) as node:
        node.meet(BARRIER)
        node.meet(BARRIER)
        node.learn(intervals)
        known = [{"node": q, "stamp": s} for q, s in ((0, zero), (2, two)) if s]
        request = {"lock": 1, "who": 2, "rank": 2, "trying": int(trying), "known": known}
        node.receive(2, "acquire", request)
        lacks = [i for i in intervals if i["stamp"] > {0: zero, 2: two}[i["node"]]]
        assert node.sent() == [(2, "grant", {"lock": 1, "cuts": 2, "intervals": lacks})]
        node.receive(0, "acquire", {**request, "who": 0})
        assert node.sent() == [(2, "pass", {**request, "who": 0})]


@hypothesis.given(st.dictionaries(st.integers(0, 2), st.integers(1, 2**64 - 1)))
def test_who_is_refused_hands_on_who_waits_behind(library, known):
    with Node(library, 1, 3) as node:
        node.do(ENQUEUE, 0, 1)
        node.do(POLL)
        assert node.sent() == [(0, "acquire", {"lock": 0, "who": 1, "rank": 1, "trying": 1, "known": []})]
        request = {
            "lock": 0,
            "who": 2,
            "rank": 2,
            "trying": 0,
            "known": [{"node": q, "stamp": s} for q, s in known.items()],
        }
        node.receive(0, "pass", request)
        node.receive(2, "busy", {"lock": 0})
        assert node.sent() == [(0, "withdraw", {"lock": 0, "ahead": 2}), (2, "pass", request)]
        node.receive(0, "withdrawn", {"lock": 0, "follows": 1})
    with Node(library, 0, 3) as manager:
        manager.do(ENQUEUE, 0, 1)
        manager.receive(1, "withdraw", {"lock": 0, "ahead": 2})
        assert manager.sent() == [(1, "withdrawn", {"lock": 0, "follows": 1})]


@hypothesis.given(numbers, signed, signed)
def test_counters_answer_with_what_they_were(library, ticket, start, delta):
    with Node(library, 1, 3) as node:
        asked = {"counter": 1, "ticket": ticket, "start": start, "delta": delta}
        for i in range(3):
            node.receive(2, "add", asked)
            assert node.sent() == [(2, "sum", {"ticket": ticket, "before": start})], i
            if -(2**63) <= start + delta < 2**63:  # else nothing is added
                start += delta
        node.do(ADD, 0, delta % 2**64, asked["start"] % 2**64)
        ((to, kind, asked),) = node.sent()
        assert (to, kind, asked) == (0, "add", {**asked, "counter": 0, "start": asked["start"], "delta": delta})
        node.receive(0, "sum", {"ticket": asked["ticket"], "before": start})


@st.composite
def diffs(draw, tags):
    """Diffs of a page of 256 bytes, as (tag, body, changes): the format of diff.h, and what it means."""
    found = []
    for tag in tags:
        body, changes = b"", {}
        for block in range(4):
            offsets = draw(st.one_of(st.just(set()), st.just(set(range(64))), st.sets(st.integers(0, 63))))
            values = draw(st.binary(min_size=len(offsets), max_size=len(offsets)))
            changes |= dict(zip((64 * block + offset for offset in sorted(offsets)), values, strict=True))
            if len(offsets) == 64:
                body += struct.pack("=II", block, 1) + values
            elif offsets:
                body += struct.pack("=IIQ", block, 0, sum(1 << offset for offset in offsets)) + values
        found.append((tag, body, changes))
    return found


@hypothesis.given(st.data(), st.booleans())
def test_pages_and_diffs_are_taken_in_and_served(library, data, whole):
    """What another node wrote comes here as diffs or as a page, and goes to a third as a page."""
    with Node(library, 1, 3) as node:
        node.meet(BARRIER)
        initial = node.meet(ALLOCATE, 1000, 256)["value"]
        page = bytearray(initial * (256 // len(initial)))
        notice = {"node": 2, "runs": 1, "stamp": 90, "list": [{"region": 1, "pages": 1, "first": 3}]}
        node.learn([notice])
        node.do(FAULT, 3 * 256 + 5)
        asked = {"region": 1, "page": 3, "since": 0}
        ((to, kind, request),) = node.sent()
        assert (to, kind, len(request["items"])) == (2, "fetch", 1)
        assert {name: request["items"][0][name] for name in asked} == asked
        assert request["items"][0]["flags"] & WHOLE_OK
        have = [{"node": 2, "stamp": 95}]
        if whole:
            page = bytearray(data.draw(st.binary(min_size=256, max_size=256)))
            content = {"have": [{"have": have}], "bytes": bytes(page)}
        else:
            content = {"tag": 95, "have": have}
            made = data.draw(diffs([91, 95]))
            content["diffs"] = [{"tag": tag, "size": len(body), "body": body} for tag, body, _ in made]
            for _, _, changes in made:
                for at, value in changes.items():
                    page[at] = value
        size = 4 + 12 + (256 if whole else 8 + 4 + sum(16 + diff["size"] for diff in content["diffs"]))
        reply = {"region": 1, "flags": WHOLE if whole else 0, "first": 3, "pages": 1, "size": size, "behind": 0}
        reply["content"] = content
        node.receive(2, "reply", {"items": [reply]})
        node.receive(0, "fetch", {"cuts": 2, "items": [{**asked, "flags": 1, "have": []}]})
        ((to, kind, served),) = node.sent()
        assert (to, kind, len(served["items"])) == (0, "reply", 1)
        found = served["items"][0]
        assert (found["region"], found["first"], found["pages"], found["flags"]) == (1, 3, 1, WHOLE)
        assert found["content"]["bytes"] == bytes(page)
        assert found["content"]["have"][0]["have"] == have, "nothing was written here, so it is not sealed"


PAGE = {"region": 1, "page": 3}
HAS = [{"node": 2, "stamp": 95}]
WHOLE_PAGE = {"region": 1, "flags": WHOLE, "first": 3, "pages": 1, "size": 4 + 12 + 256, "behind": 0,
              "content": {"have": [{"have": HAS}], "bytes": bytes(range(256))}}  # fmt: skip


def await_page(node):
    """Ask rank 2 for page 3 of a new region, which it has written."""
    node.meet(BARRIER)
    node.meet(ALLOCATE, 1000, 256)
    node.learn([{"node": 2, "runs": 1, "stamp": 90, "list": [{"region": 1, "pages": 1, "first": 3}]}])
    node.do(FAULT, 3 * 256 + 5)
    assert [(to, kind) for to, kind, _ in node.sent()] == [(2, "fetch")]


def sent_on(seen=FAR, have=HAS, **fields):
    items = [{**PAGE, "flags": 0, "seen": seen, "have": have}]
    return {"first": 0, "reader": 3, "rank": 3, "hops": 1, "asked": 80, "items": items, **fields}


def test_a_second_reader_is_sent_on_to_the_first(library):
    asks = {"cuts": 2, "items": [{**PAGE, "flags": 1, "since": 0, "have": []}]}
    with Node(library, 1, 4) as node:
        await_page(node)
        node.receive(2, "reply", {"items": [WHOLE_PAGE]})
        node.receive(3, "fetch", asks)
        assert [(to, kind) for to, kind, _ in node.sent()] == [(3, "reply")]
        node.receive(0, "fetch", asks)
        who = {"first": 1, "reader": 0, "rank": 0, "asked": FAR}
        assert node.sent() == [(3, "forward", sent_on(**who))]
        node.receive(3, "forward", sent_on(seen=0, have=[], **who))
        assert node.sent() == [(0, "reply", {"items": [WHOLE_PAGE]})], "it cannot be sent on once more"
        node.receive(3, "fetch", asks)
        assert node.sent() == [(3, "reply", {"items": [WHOLE_PAGE]})], "nor to itself"


@pytest.mark.parametrize("early", [False, True])
def test_a_reader_serves_what_has_come_or_comes(library, early):
    with Node(library, 1, 4) as node:
        await_page(node)
        if early:
            node.receive(0, "forward", sent_on(seen=node.stamp))
            assert node.sent() == []
        node.receive(2, "reply", {"items": [WHOLE_PAGE]})
        if not early:
            node.receive(0, "forward", sent_on())
        assert node.sent() == [(3, "reply", {"items": [WHOLE_PAGE]})]


def test_a_reader_sends_back_what_it_cannot_serve(library):
    back = sent_on(hops=2, seen=0, have=[])
    with Node(library, 1, 4) as node:
        await_page(node)
        node.receive(0, "forward", sent_on(seen=1))  # an earlier request was answered, and this one not yet
        assert node.sent() == [(0, "forward", back)]
        node.receive(2, "reply", {"items": [WHOLE_PAGE]})
        node.receive(0, "forward", sent_on(have=[{"node": 2, "stamp": 96}]))
        assert node.sent() == [(0, "forward", back)]


@pytest.mark.parametrize("wrong", [{"first": 4}, {"reader": 4}, {"reader": 1}, {"reader": 0}, {"rank": 4},
                                   {"asked": 2**61 + 2**60}, {"seen": 2**61 + 2**60}])  # fmt: skip
def test_a_reader_that_cannot_be_dies(library, wrong):
    with Node(library, 1, 4) as node:
        assert re.fullmatch(malformed("forward", 0), dies_of(node, 0, "forward", sent_on(**wrong)))


def test_a_wish_for_a_collection_goes_to_the_children(library):
    with Node(library, 0, 4) as node:
        node.receive(3, "request_collection", {})
        assert node.sent() == [(child, "collect", {"number": 1}) for child in (1, 2, 3)]
    with Node(library, 1, 6) as node:
        node.receive(0, "collect", {"number": 1})
        assert node.sent() == [(5, "collect", {"number": 1})]


# --- messages that overtake each other ------------------------------------------------------------------------------


def collection_departure(number):
    return departure(**{"class": 1}, number=number, agreed=variant(kind=COLLECT))


def arrivals_sent(node):
    return [value["class"] for _, kind, value in node.sent() if kind == "arrive"]


def test_a_departure_that_overtakes_another_waits_for_it(library):
    with Node(library, 1, 3) as node:
        node.do(ARRIVE, 1)
        node.receive(0, "collect", {"number": 1})
        assert arrivals_sent(node) == [0, 1]
        node.receive(0, "depart", collection_departure(2))
        assert node.sent() == []
        node.receive(0, "depart", departure(number=1))
        assert arrivals_sent(node) == [1], "both were taken, so it arrives at the collection's second meeting"


@pytest.mark.parametrize("number", [0, 2, 3, 2**40])
@pytest.mark.parametrize("collecting", [False, True])
def test_a_departure_of_a_number_that_cannot_be_dies(library, number, collecting):
    """It would be kept for ever; one that overtakes another is possible where two meetings are under way."""
    with Node(library, 1, 3) as node:
        node.do(ARRIVE, 1)
        if collecting:
            node.receive(0, "collect", {"number": 1})
        died = dies_of(node, 0, "depart", departure(number=number))
        assert (died is None) == (collecting and number == 2)
        assert died is None or re.fullmatch(malformed("depart", 0), died)


@pytest.mark.parametrize("number", [0, 1, 2, 3, 2**40])
def test_a_collection_begins_when_the_last_one_has_ended(library, number):
    with Node(library, 1, 3) as node:
        node.receive(0, "collect", {"number": 1})
        for passed in (1, 2, 3):
            node.receive(0, "depart", collection_departure(passed))
        assert arrivals_sent(node) == [1, 1, 1, 1]
        died = dies_of(node, 0, "collect", {"number": number})
        assert (died is None) == (number == 2), "it overtook the last departure, or it cannot be"
        if died is None:
            assert node.sent() == []
            node.receive(0, "depart", collection_departure(4))
            assert arrivals_sent(node) == [1]


@pytest.mark.parametrize(("phase", "number"), [(0, 0), (0, 2), (1, 2), (3, 2), (4, 1), (4, 3)])
def test_a_collection_of_a_number_that_cannot_be_dies(library, phase, number):
    with Node(library, 1, 3) as node:
        if phase:
            node.receive(0, "collect", {"number": 1})
        for passed in range(1, phase):
            node.receive(0, "depart", collection_departure(passed))
        if phase == 4:
            node.receive(0, "depart", collection_departure(4))
        assert re.fullmatch(malformed("collect", 0), dies_of(node, 0, "collect", {"number": number}))
    with Node(library, 1, 3) as node:
        assert re.fullmatch(malformed("collect", 2), dies_of(node, 2, "collect", {"number": 1}))


def refused(node):
    """A try of lock 0, the request that follows it, and the word of rank 2 that the lock is held."""
    node.do(ENQUEUE, 0, 1)
    node.do(POLL)
    node.receive(2, "busy", {"lock": 0})
    node.do(POLL)
    assert [kind for _, kind, _ in node.sent()] == ["acquire", "withdraw"]
    node.do(ENQUEUE, 0, 0)
    return {"lock": 0, "who": 2, "rank": 2, "trying": 0, "known": []}


@pytest.mark.parametrize("early", [False, True])
def test_a_refused_node_leaves_when_the_request_that_follows_it_has_gone_on(library, early):
    """Not before, though the manager's word may overtake that request."""
    with Node(library, 1, 3) as node:
        follows = refused(node)
        events = [("withdrawn", {"lock": 0, "follows": 1}), ("pass", follows)]
        (first, value), second = events if early else reversed(events)
        node.receive(0, first, value)
        node.do(POLL)
        assert node.sent() == ([] if early else [(2, "pass", follows)]), "it has not left, or it would ask again"
        node.receive(0, *second)
        node.do(POLL)
        assert [kind for _, kind, _ in node.sent()] == (["pass", "acquire"] if early else ["acquire"])


def test_a_second_request_that_follows_a_refused_node_dies(library):
    with Node(library, 1, 3) as node:
        follows = refused(node)
        node.receive(0, "pass", follows)
        assert dies_of(node, 0, "pass", follows) == "lock 0: rank 2 follows this one, which had a follower"


@pytest.mark.parametrize("follows", [[0], [1, 1], [1, 0]])
def test_a_word_of_the_manager_that_cannot_be_dies(library, follows):
    """Nobody follows, and somebody did; or it is said twice."""
    with Node(library, 1, 3) as node:
        request = refused(node)
        if follows == [0]:
            node.receive(0, "pass", request)
        *before, last = follows
        for flag in before:
            node.receive(0, "withdrawn", {"lock": 0, "follows": flag})
        died = dies_of(node, 0, "withdrawn", {"lock": 0, "follows": last})
        assert re.fullmatch(malformed("withdrawn", 0), died)


def test_the_manager_says_whether_somebody_follows(library):
    for last in (1, 2):
        with Node(library, 0, 3) as manager:
            for who in sorted({1, last}):
                manager.receive(who, "acquire", {"lock": 0, "who": who, "rank": who, "trying": 1, "known": []})
            manager.sent()
            manager.receive(1, "withdraw", {"lock": 0, "ahead": 0})
            assert manager.sent() == [(1, "withdrawn", {"lock": 0, "follows": int(last == 2)})]


# --- roll calls and trails --------------------------------------------------------------------------------------------


def test_the_roll_is_called_where_arrivals_are_missing(library):
    """Node 1 of 6 has one child, node 5; node 3 asks."""
    call = {"meeting": 0, "caller": 3, "call": 7}
    with Node(library, 1, 6) as node:
        node.receive(5, "roll_call", call)
        assert node.sent() == [(0, "roll_call", call)], "up to the root first"
        node.receive(0, "roll_call", call)
        assert node.sent() == [(3, "absent", {"meeting": 0, "call": 7, "spaces": 1}), (5, "roll_call", call)]
        node.do(ROLL)
        assert node.sent() == [], "who has not arrived asks nobody"
        node.do(ARRIVE, 1)
        node.receive(0, "roll_call", call)
        assert node.sent() == [(5, "roll_call", call)]
        node.do(ROLL)
        assert node.sent() == [(0, "roll_call", {"meeting": 0, "caller": 1, "call": 1})]
        node.receive(0, "roll_call", {**call, "meeting": 1})
        node.receive(2, "absent", {"meeting": 0, "call": 1, "spaces": 1})
        node.receive(5, "arrive", arrival())
        assert [kind for _, kind, _ in node.sent()] == ["arrive"]
        node.receive(0, "roll_call", call)
        assert node.sent() == [], "all below have arrived"
    with Node(library, 1, 6) as node:
        node.do(JOIN)
        node.receive(0, "roll_call", call)
        assert node.sent() == [(5, "roll_call", call)], "all spaces are here, and the node is about to arrive"
    with Node(library, 0, 3) as root:
        root.do(ARRIVE, 1)
        root.receive(2, "arrive", arrival())
        root.do(ROLL)
        assert root.sent() == [(1, "roll_call", {"meeting": 0, "caller": 0, "call": 1})]


@pytest.mark.parametrize(("sender", "caller"), [(3, 2), (1, 2), (0, 6), (5, 2**31)])
def test_a_roll_call_from_elsewhere_in_the_tree_or_of_nobody_dies(library, sender, caller):
    with Node(library, 1, 6) as node:
        died = dies_of(node, sender, "roll_call", {"meeting": 0, "caller": caller, "call": 1})
        assert re.fullmatch(malformed("roll_call", sender), died)


def hop(lock, node, waits_for=None, site=b"a.py:1"):
    waits = (0, 0) if waits_for is None else (WAIT_LOCK, waits_for)
    return {"lock": lock, "node": node, "thread": 0, "waits": waits[0], "object": waits[1], "site": site}


def test_a_lock_is_told_of_when_it_has_been_held_for_a_while(library):
    """And what a node is told of a lock that it waits for, it passes on to who waits behind it."""
    with Node(library, 1, 3) as node:
        node.do(ENQUEUE, 1)
        node.do(POLL)
        node.receive(2, "acquire", {"lock": 1, "who": 2, "rank": 2, "trying": 0, "known": []})
        node.do(TELL)
        assert node.sent() == []
        node.do(TELL)
        assert node.sent() == [(2, "held", {"lock": 1, "hops": [hop(1, 1, site=b"program.py:7")]})]
    with Node(library, 1, 3) as node:
        node.do(ENQUEUE, 0)
        node.do(POLL)
        node.receive(0, "pass", {"lock": 0, "who": 2, "rank": 2, "trying": 0, "known": []})
        node.sent()
        told = {"lock": 0, "hops": [hop(0, 0)]}
        node.receive(0, "held", told)
        assert node.sent() == [(2, "held", told)]


@pytest.fixture
def waiting_holder(library):
    """Node 1 of 3, whose only thread holds lock 1 and waits for lock 0; node 2 waits for lock 1."""
    with Node(library, 1, 3) as node:
        node.do(ENQUEUE, 1)
        node.do(POLL)
        node.receive(2, "acquire", {"lock": 1, "who": 2, "rank": 2, "trying": 0, "known": []})
        node.do(ENQUEUE, 0)
        node.do(POLL)
        node.sent()
        yield node


def test_a_trail_follows_from_lock_to_lock(waiting_holder):
    told = [hop(0, 0, waits_for=5), hop(5, 2)]
    waiting_holder.receive(0, "held", {"lock": 0, "hops": told})
    own = hop(1, 1, waits_for=0, site=b"program.py:7")
    assert waiting_holder.sent() == [(2, "held", {"lock": 1, "hops": [own, *told]})]


def test_a_circle_is_not_told_again_for_ever(waiting_holder):
    circle = [hop(0, 0, waits_for=1), hop(1, 1, waits_for=0)]
    waiting_holder.receive(0, "held", {"lock": 0, "hops": circle})
    assert waiting_holder.sent() == []
    full = [hop(0, 0, waits_for=10), *[hop(n, 2, waits_for=n + 1) for n in range(10, 17)]]
    waiting_holder.receive(0, "held", {"lock": 0, "hops": full})
    assert waiting_holder.sent() == [], "nor is what has no room for one more"


@pytest.mark.parametrize(
    "hops",
    [[], [hop(1, 0)], [hop(0, 3)], [hop(0, 0, site=b"x" * 64)], [hop(0, 0, site=b"a\nb")], [{**hop(0, 0), "waits": 7}],
     [hop(0, 0), *[hop(n, 0) for n in range(2, 10)]]],
)  # fmt: skip
def test_a_trail_that_cannot_be_dies(waiting_holder, hops):
    assert re.fullmatch(malformed("held", 0), dies_of(waiting_holder, 0, "held", {"lock": 0, "hops": hops}))


# --- what was believed once, and must not be --------------------------------------------------------------------------


def malformed(kind, sender):
    return rf"malformed message of kind {1 + KINDS.index(kind)} from rank {sender} \(\d+ bytes\)"


def dies_of(node, sender, kind, value, *, stamp=FAR, data=None):
    return node.dies(MESSAGE, thread=sender, data=encode(kind, sender, stamp, value) if data is None else data)


def test_a_node_that_waits_behind_itself_dies(library):
    """It told itself of its own lock for ever."""
    with Node(library, 1, 3) as node:
        node.do(ENQUEUE, 0, 0)
        node.do(POLL)
        request = {"lock": 0, "who": 1, "rank": 1, "trying": 0, "known": []}
        assert re.fullmatch(malformed("pass", 0), dies_of(node, 0, "pass", request))


def with_size(data):
    """Make the header agree with the length."""
    return data[: HEADER.size - 8] + struct.pack("=Q", len(data)) + data[HEADER.size :]


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_that_goes_on_behind_its_end_dies(library, corpus, kind):
    """A count that is too small looks like this."""
    found = [(sender, data) for data in corpus[kind] for _, sender, _, value in [decode(data)] if sender != 1]
    if kind == "publish":  # others wait for the one before
        found = [(sender, data) for sender, data in found if decode(data)[3]["number"] < 2]
    if kind == "arrive":
        found = [(5, encode(kind, 5, FAR, arrival()))]
    sender, data = found[0]
    with Node(library, 1, 6) as node:
        if kind == "arrive":  # is looked at when its node arrives, too; others would be kept for what the meeting makes
            node.do(ARRIVE, 1)
        died = node.dies(MESSAGE, thread=sender, data=with_size(data + b"\0"))
        assert re.search(r"malformed message of kind \d+ from rank \d", died)


def test_a_departure_before_the_own_arrival_is_up_dies(library):
    with Node(library, 1, 6) as node:
        node.do(ARRIVE, 1)
        assert re.fullmatch(malformed("depart", 0), dies_of(node, 0, "depart", departure()))


def test_a_departure_from_elsewhere_in_the_tree_dies(library):
    with Node(library, 2, 6) as node:
        node.do(ARRIVE, 1)
        assert re.fullmatch(malformed("depart", 3), dies_of(node, 3, "depart", departure()))


@pytest.mark.parametrize("cuts", [2, 3, 2**40])
def test_a_grant_from_cuts_that_cannot_be_dies(library, cuts):
    """It would be kept for ever, and its thread would wait for ever; one departure ahead is possible in a meeting."""
    with Node(library, 1, 3) as node:
        node.meet(BARRIER)
        node.do(ENQUEUE, 0)
        node.do(POLL)
        grant = {"lock": 0, "cuts": cuts, "intervals": []}
        assert re.fullmatch(malformed("grant", 0), dies_of(node, 0, "grant", grant))
    with Node(library, 1, 3) as node:
        node.meet(BARRIER)
        node.do(ENQUEUE, 0)
        node.do(POLL)
        node.do(ARRIVE, 1)
        died = dies_of(node, 0, "grant", {"lock": 0, "cuts": cuts, "intervals": []})
        assert (died is None) == (cuts == 2)


@pytest.mark.parametrize("run", [{"pages": 2, "first": 0}, {"pages": 1, "first": 2**20}])
@pytest.mark.parametrize("region", [2**32 - 1, 2**32 - 2])
def test_a_flag_that_cannot_be_dies(library, region, run):
    with Node(library, 1, 3) as node:
        interval = {"node": 0, "runs": 1, "stamp": 5, "list": [{"region": region, **run}]}
        told = {"number": 0, "cuts": 0, "flag": 0, "set": 5, "published": [], "intervals": [interval]}
        assert re.fullmatch(malformed("publish", 0), dies_of(node, 0, "publish", told))


@pytest.mark.parametrize("kind", ["depart", "grant"])
def test_an_interval_from_the_future_dies(library, kind):
    with Node(library, 1, 3) as node:
        node.meet(BARRIER)
        node.do(ENQUEUE, 0)
        node.do(POLL)
        node.do(ARRIVE, 1)
        intervals = [{"node": 0, "runs": 0, "stamp": FAR + 1, "list": []}]
        grant = {"lock": 0, "cuts": 1, "intervals": intervals}
        value = departure(number=2, intervals=intervals) if kind == "depart" else grant
        assert re.fullmatch(malformed(kind, 0), dies_of(node, 0, kind, value))


def test_a_clock_at_its_end_dies(library):
    with Node(library, 1, 3) as node:
        died = dies_of(node, 0, "collect", {"number": 1}, stamp=2**62)
        assert re.fullmatch(r"malformed message from rank 0 \(\d+ bytes\): not one of ours", died)
        assert dies_of(node, 0, "collect", {"number": 1}, stamp=2**62 - 1) is None


def test_a_short_request_for_a_lock_is_blamed_on_its_sender(library):
    with Node(library, 1, 3) as node:
        request = encode(
            "acquire", 2, FAR, {"lock": 1, "who": 2, "rank": 2, "trying": 0, "known": [{"node": 0, "stamp": 5}]}
        )
        assert re.fullmatch(malformed("acquire", 2), dies_of(node, 2, "acquire", None, data=with_size(request[:-1])))


def test_an_arrival_without_the_end_of_its_last_count_dies(library):
    """Once its intervals counted as none."""
    with Node(library, 1, 6) as node:
        node.do(ARRIVE, 1)
        short = with_size(encode("arrive", 5, FAR, arrival())[:-1])
        assert re.fullmatch(malformed("arrive", 5), dies_of(node, 5, "arrive", None, data=short))


# --- bytes from anywhere ----------------------------------------------------------------------------------------------


def test_the_states_are_in_the_middle_of_things(fuzz):
    out = subprocess.run([fuzz, "--states"], capture_output=True, text=True, check=True).stdout
    census = {line[:-4].strip(): int(line[-4:]) for line in out.splitlines()}
    assert len(census) == 25
    assert {what: count for what, count in census.items() if count == 0} == {}


def counts(out):
    """Inputs by kind from the driver's table."""
    rows = re.findall(r"^  (\w+) +(\d+) +(\d+) +(\d+) +(\d+)$", out, re.M)
    return {kind: tuple(map(int, row)) for kind, *row in rows}


def test_random_messages_end_in_words_or_do_nothing(fuzz):
    """The plain driver, whatever compiler there is; `make -f tests/native/fuzz.mk fuzz` is the long one."""
    runs = int(os.environ.get("DSM_TEST_INPUTS", "60000"))
    done = subprocess.run([fuzz, f"--runs={runs}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    table = counts(done.stdout)
    for kind in KINDS:
        inputs, survived, panics, most_bytes = table[kind]
        assert inputs > runs // 25
        assert survived > inputs // 50
        assert panics > inputs // 200
        assert most_bytes < 32 * 1024


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "line", "instead", "word"),
    [
        ("base/reader.c", "if (count > reader_left(reader)) {", "if (false) {", "AddressSanitizer|runtime error"),
        ("sync/meeting.c", " || node->meetings[which].children[k]", "", "blocks were not given back"),
    ],
)  # fmt: skip
def test_the_driver_notices_a_check_that_is_missing(tmp_path, file, line, instead, word):
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    path = tmp_path / "csrc" / "protocol" / file
    code = path.read_text()
    assert code.count(line) == 1
    path.write_text(code.replace(line, instead))
    fuzz = build_fuzz(tmp_path, tmp_path / "csrc")
    done = subprocess.run([fuzz, "--runs=400000"], capture_output=True, text=True)
    assert done.returncode != 0
    assert re.search(word, done.stderr)
    # What it names is enough to see it again.
    again = re.search(r"input: (--seed=\d+ --first=\d+ --runs=1 --kind=\w+)", done.stderr).group(1).split()
    assert subprocess.run([fuzz, *again], capture_output=True).returncode != 0
