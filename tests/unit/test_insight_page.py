"""The page of a profile: complete, self-contained, with the numbers of profile.json, and sound in a real browser."""

import html.parser
import json
import re
import shutil
import subprocess

import profiles
import pytest

from dsm import _report
from dsm._report import page, timeline, words
from dsm._report.profile import Profile

SECTIONS = ["time", "advice", "sites", "lines", "locks", "arrays", "timeline", "memory"]


def text_of(shown):
    """The page without markup, scripts and styles."""

    class Text(html.parser.HTMLParser):
        def __init__(self):
            super().__init__()
            self.words, self.skipped, self.ids, self.links = [], 0, [], []

        def handle_starttag(self, tag, attrs):
            self.skipped += tag in ("script", "style")
            given = dict(attrs)
            self.ids += [given["id"]] if "id" in given else []
            self.links += [given[name] for name in ("href", "src") if name in given]

        def handle_endtag(self, tag):
            self.skipped -= tag in ("script", "style")

        def handle_data(self, data):
            if not self.skipped:
                self.words.append(data)

    parser = Text()
    parser.feed(shown)
    parser.text = " ".join(" ".join(parser.words).split())
    return parser


@pytest.fixture(scope="module")
def jacobi():
    return text_of(page.write(Profile(profiles.jacobi()), profiles.trace()))


def test_every_section_is_there_once(jacobi):
    assert [name for name in jacobi.ids if name in SECTIONS] == SECTIONS
    assert len(set(jacobi.ids)) == len(jacobi.ids)


def test_the_page_needs_nothing_from_elsewhere(jacobi):
    assert [link for link in jacobi.links if not link.startswith("#")] == []
    assert {link[1:] for link in jacobi.links} <= set(jacobi.ids)


def test_the_numbers_of_the_profile_are_in_the_page(jacobi):
    assert missing(profiles.jacobi(), jacobi.text) == []


def missing(made, text):
    """Numbers of a profile that the text of a page does not have."""
    numbers = {f"{rank[name]:,}" for rank in made["ranks"] for name in ("messages_sent", "fetches", "faults_read")}
    numbers |= {f"{rank['time'][name]:.3f}" for rank in made["ranks"] for name in profiles.TIMES}
    numbers |= {f"{sum(site['by_rank'][name]):,}" for site in made["sites"] for name in ("calls", "faults", "pages")}
    numbers |= {
        words.seconds(max(site["by_rank"]["waited_s"])) for site in made["sites"] if max(site["by_rank"]["waited_s"])
    }
    numbers |= {f"{sum(lock['by_rank']['acquires']):,}" for lock in made["locks"]}
    numbers |= {f"{sum(one[2] for one in lock['hand_overs']):,}" for lock in made["locks"]}
    numbers |= {
        f"{sum(array['by_rank'][name]):,}" for array in made["arrays"] for name in ("fetches", "diffs_received")
    }
    numbers |= {words.size(max(node["protocol_bytes"])) for node in made["memory"]}
    numbers |= {array["name"] for array in made["arrays"]} | {site["source"] for site in made["sites"]}
    return sorted(number for number in numbers if number not in text)


def test_text_of_the_program_cannot_break_the_page():
    evil = "</script><script>alert(1)</script>\"'&<b>"
    made = profiles.jacobi()
    made["arrays"][0]["name"] = made["locks"][0]["name"] = made["sites"][2]["source"] = evil
    made["run"]["program"] = made["lines"][0]["source"] = made["notes"][0] = evil
    events = profiles.trace()
    events[5]["name"] = evil
    shown = page.write(Profile(made), events)
    assert "<script>alert" not in shown
    assert "</script><script>" not in shown
    assert "<b>" not in shown.replace("<b>&", "").split("<main>")[0]


def test_a_program_that_shares_nothing_has_a_page(tmp_path):
    (tmp_path / "profile.json").write_text(json.dumps(profiles.profile(size=1)))
    file = _report.write(tmp_path)
    found = text_of(file.read_text())
    assert [name for name in SECTIONS if name not in found.ids] == ["lines"]
    assert "no shared array" in found.text


def race(**more):
    sides = [
        {"rank": r, "access": "wrote", "began": f"zeros at a.py:{r}", "ended": "barrier at a.py:9"} for r in (0, 1)
    ]
    made = {"kind": "write/write", "certain": True, "array": "grid", "shape": [64, 64], "dtype": "float64"}
    made |= {
        "where": "grid[2:4, 0:64]",
        "index": [[2, 4, 1], [0, 64, 1]],
        "elements": 128,
        "share": 0.5,
        "sides": sides,
    }
    return made | {"pairs": [[0, 1], [0, 2]]} | more


def test_races_beside_the_profile_are_shown(tmp_path):
    (tmp_path / "profile.json").write_text(json.dumps(profiles.profile()))
    races = {"version": 1, "ranks": 3, "program": ["a.py"], "complete": False}
    races["races"] = [race(), race(kind="read/write", certain=False)]
    (tmp_path / "races.json").write_text(json.dumps(races))
    found = text_of(_report.write(tmp_path).read_text())
    assert "races" in found.ids
    for words_ in ("cut short", "1 certain, 1 possible", "grid[2:4, 0:64]", "zeros at a.py:1", "barrier at a.py:9"):
        assert words_ in found.text
    (tmp_path / "races.json").write_text(json.dumps(races | {"complete": True, "races": []}))
    assert "found no data race" in text_of(_report.write(tmp_path).read_text()).text


def crowd(ranks=64, arrays=200):
    """A profile as large as pages get: every rank in every array, with unquiet strips."""
    made = profiles.jacobi(ranks)
    grid = made["arrays"][0]
    unquiet = [[bin_, 1, 1 + bin_ * 7 % 50] for bin_ in range(256)]
    for number in range(arrays):
        strips = [{"rank": r, "written": unquiet, "read": unquiet[::2], "fetched": unquiet[::3]} for r in range(ranks)]
        made["arrays"].append(grid | {"id": 2 + number, "name": f"array {number}", "strips": strips})
    return made


@pytest.fixture(scope="module")
def crowded():
    return page.write(Profile(crowd()), profiles.trace(64, 2000))


def test_many_ranks_and_arrays_have_a_page_of_bounded_size(crowded):
    assert len(crowded) < 10_000_000


# ---- the timeline ----


def test_waits_and_faults_are_told_apart():
    drawn = timeline.timeline(profiles.trace(2, 10))
    assert drawn["tracks"] == ["rank 0", "rank 1"]
    assert {drawn["kinds"][span[1]] for span in drawn["spans"]} == {"compute", "barrier", "fault"}
    assert len(drawn["arrows"]) == 20
    assert drawn["end"] == pytest.approx(2.0)


def test_arrows_of_a_lock_lead_from_rank_to_rank():
    ends = [
        {"ph": ph, "cat": "lock", "id": 7, "pid": pid, "tid": 103, "ts": 1e6, "name": ""}
        for ph, pid in (("s", 0), ("f", 1))
    ]
    held = {"ph": "X", "cat": "held", "name": "Lock 3", "pid": 0, "tid": 103, "ts": 0, "dur": 9}
    drawn = timeline.timeline([*profiles.trace(2, 1), held, *ends])
    assert [arrow for arrow in drawn["arrows"] if arrow[4] == "lock"] == [(0, 1.0, 1, 1.0, "lock")]
    assert len(drawn["tracks"]) == 2


def test_a_long_run_is_thinned_and_keeps_its_time():
    spans = [timeline.Span(0, number % 2, 0, number * 1e-3, (0.2e-3, 0.8e-3)[number % 2]) for number in range(50_000)]
    found = timeline.thinned(spans, 1000)
    assert len(found) <= 1000
    assert sum(span.many for span in found) == 50_000
    for kind, seconds in ((0, 5.0), (1, 20.0)):
        assert sum(span.length_s for span in found if span.kind == kind) == pytest.approx(seconds)


def test_a_span_that_can_be_seen_stays_as_it_is():
    long = timeline.Span(0, 0, 0, 10.0, 5.0)
    spans = [long, *(timeline.Span(0, 1, 0, number * 1e-4, 1e-4) for number in range(5000))]
    assert long in timeline.thinned(spans, 100)


def test_without_a_trace_there_is_no_timeline():
    assert timeline.timeline([]) is None


# ---- quantities ----


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (words.seconds(0.9996), "1.00 s"),
        (words.seconds(0.00123), "1.23 ms"),
        (words.seconds(12.34), "12.3 s"),
        (words.size(4096), "4 KiB"),
        (words.size(1536 << 10), "1.5 MiB"),
        (words.share(0.004), "less than 1 %"),
        (words.ranks([0, 1, 2, 3, 7]), "ranks 0 to 3 and 7"),
        (words.ranks([5]), "rank 5"),
        (words.counted(1, "page"), "1 page"),
    ],
)
def test_quantities_are_written_for_readers(written, text):
    assert written == text


# ---- in a browser ----

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
REPORTER = """<script>
const errors = [];
addEventListener("error", (event) => errors.push(event.message + " at " + event.lineno));
addEventListener("unhandledrejection", (event) => errors.push(String(event.reason)));
</script>"""
# Looks at everything, then clicks on everything.
EXERCISER = """<script>
function use() {
  HTMLCanvasElement.prototype.setPointerCapture = () => {}; // no pointer is real here
  document.querySelectorAll("details").forEach((one) => { one.open = true; });
  for (const [canvas, draw] of page.drawings) { canvas.dataset.seen = "1"; draw(); }
  const blank = [...page.drawings.keys()].filter((c) => {
    const pixels = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
    return !pixels.some((value) => value);
  });
  document.querySelectorAll("thead button, .tools button").forEach((one) => one.click());
  for (const canvas of page.drawings.keys())
    for (const type of ["mousemove", "pointerdown", "pointerup", "dblclick", "mouseleave"])
      canvas.dispatchEvent(new PointerEvent(type, { clientX: 300, clientY: 60, pointerId: 1 }));
  for (const key of ["+", "ArrowRight", "-"])
    document.getElementById("tracks")?.dispatchEvent(new KeyboardEvent("keydown", { key }));
  page.redraw();
  const wide = document.documentElement.scrollWidth > innerWidth;
  return { blank: blank.length, canvases: page.drawings.size, wide };
}
addEventListener("load", () => {
  let told = {};
  try { told = use(); } catch (error) { errors.push(String(error)); }
  document.body.insertAdjacentHTML("beforeend", "<pre id=told>" + JSON.stringify({ errors, ...told }) + "</pre>");
});
</script>"""


@pytest.fixture
def browse(tmp_path):
    """Load a page in headless Chromium, use everything in it, and return what it reports and its DOM."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")

    def load(shown, width=1280):
        file = tmp_path / "page.html"
        file.write_text(shown.replace("<head>", "<head>" + REPORTER, 1).replace("</body>", EXERCISER + "</body>", 1))
        words_ = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom"]
        words_ += [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},800", "--timeout=60000"]
        run = subprocess.run([*words_, file.as_uri()], capture_output=True, text=True, timeout=110)
        found = re.search(r"<pre id=\"told\">(.*)</pre>", run.stdout)
        assert found, run.stderr[-2000:] + run.stdout[-2000:]
        return json.loads(html.unescape(found[1])), run.stdout

    return load


@pytest.mark.parametrize("width", [1280, 800])
def test_a_browser_shows_the_page_without_an_error(browse, width):
    told, dom = browse(page.write(Profile(profiles.jacobi()), profiles.trace()), width)
    assert told == {"errors": [], "blank": 0, "canvases": 4, "wide": False}
    found = text_of(dom)
    assert [name for name in SECTIONS if name not in found.ids] == []
    assert missing(profiles.jacobi(), found.text) == []


def test_a_browser_copes_with_many_ranks_and_arrays(browse, crowded):
    told, _ = browse(crowded)
    assert told["errors"] == []
    assert told["blank"] == 0
    assert told["canvases"] > 4
