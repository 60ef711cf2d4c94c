"""The report of the benchmark suite: what it computes and says, and that it copes with whatever was measured."""

import base64
import html.parser
import re
import sys
import types
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))  # last: what is measured is the dsm that is installed, or named by PYTHONPATH

from benchmarks import report, results  # noqa: E402
from benchmarks.report import figures, sections, sentences, words  # noqa: E402
from benchmarks.report.data import Measured, Verdict, split  # noqa: E402
from benchmarks.report.document import Items, Section, Table  # noqa: E402
from benchmarks.results import Interval  # noqa: E402

KIB = 1 << 10


def app(name, reach=0.9, paper=None, paper_note=""):
    return types.SimpleNamespace(name=name, reach=reach, paper=paper, paper_note=paper_note)


APPS = {"sor": app("sor", 0.9, (4.0, 3.0)), "ep": app("ep", 0.98, None, "no communication"), "is": app("is", 0.5)}


def record(name="sor", version="dsm", time=1.0, **more):
    """A run, all whose repetitions took the same time."""
    made = {"kind": "app", "job": "j", "time": "2026-01-02T03:04:05+00:00", "commit": "abc", "mpi": "X 1"}
    made |= {
        "machine": {"host": "a", "cpu": "b", "cores": 2},
        "software": {"numpy": "2"},
        "network": "one host",
        "node": "host",
    }
    made |= {"ranks": 2, "page_size": 4 * KIB, "aggregation": True, "size": "small", "scaling": "strong"}
    made |= {"app": name, "version": version, "times_s": [time] * 3, "checksum": "0", "lines": 7}
    counters = {"messages_sent": 10, "bytes_sent": 1000}
    if version == "dsm":
        counters = {"messages_sent": 30, "bytes_sent": 2500, "faults_read": 40, "faults_write": 10, "diffs_made": 3}
        counters |= {"wait_fault_ns": 0, "wait_lock_ns": 0, "wait_counter_ns": 0, "wait_barrier_ns": 0}
    return made | {"counters": counters} | more


def pair(name="sor", ratio=0.8, **more):
    """Both parallel versions of a job; mpi4py takes a second."""
    return [record(name, "mpi4py", 1.0, **more), record(name, "dsm", 1.0 / ratio, **more)]


def point(pattern="migratory", bytes_=64, page_size=4 * KIB, ratio=0.5, compute_us=0, **more):
    made = record() | {"kind": "granularity", "pattern": pattern, "bytes": bytes_, "page_size": page_size}
    return made | {"compute_us": compute_us, "dsm_s": [1.0 / ratio] * 3, "mpi4py_s": [1.0] * 3} | more


def everything():
    """Some of all that can be measured."""
    made = []
    for name, ratio in (("sor", 0.8), ("ep", 1.0), ("is", 0.6)):
        made.append(record(name, "serial", 1.8, ranks=1))
        made += pair(name, ratio, ranks=1) + pair(name, ratio) + pair(name, ratio / 2, ranks=4)
        for page_size, factor in ((16 * KIB, 1.1), (64 * KIB, 0.9)):
            made += pair(name, ratio * factor, page_size=page_size)
        for page_size in (4 * KIB, 16 * KIB):
            made += pair(name, ratio / 2, page_size=page_size, aggregation=False)
        made += pair(name, ratio, node="rank") + [record(name, "floor", 1.1)]
        made += pair(name, ratio, network="100mbit") + pair(name, ratio, mpi="Y 2")
        made += [record(name, "serial", 2.0, ranks=1, scaling="weak"), *pair(name, ratio, scaling="weak")]
        made += pair(name, 1.0, ranks=1, scaling="weak")
    for pattern in ("migratory", "producer"):
        for bytes_, ratio in ((64, 0.1), (4096, 0.9)):
            made += [point(pattern, bytes_, size * KIB, ratio) for size in (4, 16)]
            made.append(point(pattern, bytes_, 4 * KIB, 0.95, 1000))
    return made


def measured(*records, apps=APPS):
    return Measured(records, apps)


def words_of(section):
    return str(section)


# ---- quantities ----


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (words.seconds(0.0000123), "12.3 \N{MICRO SIGN}s"),
        (words.seconds(0.25), "250 ms"),
        (words.seconds(12.345), "12.3 s"),
        (words.size(512), "512 B"),
        (words.size(4096), "4 KiB"),
        (words.size(3 << 19), "1.50 MiB"),
        (words.ratio(0.8765), "0.88"),
        (words.ratio(0.0321), "0.032"),
        (words.ratio(1234.0), "1,234"),
        (words.percent(0.126), "13 %"),
        (words.percent(0.0001), "less than 1 %"),
        (words.percent(0), "0 %"),
        (words.listed(["a"]), "a"),
        (words.listed(["a", "b", "c"]), "a, b and c"),
        (words.counted(1, "rank"), "1 rank"),
        (words.counted(1200, "rank"), "1,200 ranks"),
        (words.power_of_two(0.25), "1/4"),
    ],
)
def test_quantities_are_written_for_readers(written, text):
    assert written == text


def test_the_mean_of_ratios_is_geometric():
    assert words.geometric_mean([0.5, 2.0]) == pytest.approx(1)


# ---- numbers ----


def test_the_ratio_is_the_speed_of_dsm_over_that_of_mpi4py():
    found = measured(*pair(ratio=0.8)).ratio("sor", "small")
    assert found == pytest.approx((0.8, 0.8, 0.8))


def test_the_floor_is_a_rival_of_its_own():
    made = measured(*pair(ratio=0.8), record(version="floor", time=0.5))
    assert made.ratio("sor", "small", rival="floor") == pytest.approx((0.4, 0.4, 0.4))
    assert sentences.overall(made).endswith("0.80 of mpi4py's and 0.40 of the floor's.")
    document = sections.build(made)
    assert tables(document)[1].rows[0][8:10] == ["0.40", f"0.40{words.DASH}0.40"]
    assert sections.FLOOR in words_of(document)
    assert "and over the floor" in document.pictures()[0].title
    assert sections.NO_FLOOR in words_of(sections.build(measured(*pair())))


def test_nodes_are_compared_where_there_are_several():
    several = {"network": "full, 2 ranks a host", "ranks": 4}
    made = [*pair(ratio=0.8, **several), *pair(ratio=0.4, node="rank", **several), *pair()]
    speeds, mean, sent = sections.nodes(measured(*made)).blocks
    assert mean.words == "The geometric mean over 1 application is 0.80 with node host and 0.40 with node rank."
    assert [cell.split()[0] for cell in speeds.rows[0]] == ["sor", "0.80", "0.40"]
    assert sent.rows == [["sor", "2.44 KiB", "2.44 KiB"]]
    assert "sweep nodes" in sections.nodes(measured(*pair()))


def test_speed_ups_are_over_serial_wherever_it_ran():
    made = measured(record(version="serial", time=1.8, ranks=1, page_size=64 * KIB), *pair(ratio=0.5))
    assert made.speedup("sor", "small", "mpi4py") == pytest.approx(1.8)
    assert made.speedup("sor", "small", "dsm") == pytest.approx(0.9)
    assert made.speedup("ep", "small", "dsm") is None


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(0.91, Verdict(True, True)), (0.95, Verdict(True, False)), (0.89, Verdict(False, False))]
)
def test_a_reach_is_met_when_the_median_is_there(ratio, verdict):
    mpi, dsm = pair(ratio=ratio)
    if verdict.open:
        dsm["times_s"] = [1.0, 1.0 / ratio, 1.2]
    assert measured(mpi, dsm).verdict("sor", "small") == verdict


def test_no_reach_is_judged_but_on_two_ranks():
    made = measured(*pair(ranks=4))
    assert made.ranks == 4
    assert made.verdict("sor", "small") is None
    assert "reach" not in sentences.overall(made)


def test_the_plain_runs_are_what_most_have_in_common():
    made = measured(*everything())
    assert made.plain == {
        "scaling": "strong",
        "page_size": 4 * KIB,
        "aggregation": True,
        "network": "one host",
        "mpi": "X 1",
        "node": "host",
    }
    assert made.sizes == ["small"]
    assert made.all_ranks("small") == [1, 2, 4]


def test_the_size_with_most_runs_comes_first():
    assert measured(*pair(size="tiny"), *pair(size="paper"), *pair("ep", size="paper")).sizes == ["paper", "tiny"]


def test_shares_are_of_the_time_of_all_ranks_in_the_repetition_of_the_counters():
    waits = {"wait_fault_ns": 4e9, "wait_lock_ns": 1e9, "wait_counter_ns": 1e9, "wait_barrier_ns": 2e9}
    made = split(record(times_s=[9.0, 9.0, 5.0], counters=waits))
    assert tuple(made) == pytest.approx((0.2, 0.4, 0.2, 0.2))
    assert made.largest_wait == "data"


def test_shares_of_threads_that_wait_together_add_up_to_one():
    made = split(record(counters={"wait_fault_ns": 6e9, "wait_lock_ns": 2e9}))
    assert tuple(made) == pytest.approx((0, 0.75, 0.25, 0))


def test_the_best_page_size_has_the_best_geometric_mean_of_what_all_applications_have():
    made = measured(*everything(), *pair("ep", 9.0, page_size=1024 * KIB))
    means, names = made.sweep("page_size").means()
    mean = words.geometric_mean([0.8, 1.0, 0.6])
    assert means == pytest.approx({4 * KIB: mean, 16 * KIB: 1.1 * mean, 64 * KIB: 0.9 * mean})
    assert names == ["sor", "ep", "is"]


def test_weak_scaling_compares_with_serial_on_one_rank():
    size, curves = measured(*everything()).weak_efficiency()
    assert size == "small"
    assert curves["sor"] == {"mpi4py": {1: 2.0, 2: 2.0}, "dsm": pytest.approx({1: 2.0, 2: 1.6})}


def test_the_last_point_of_a_granularity_counts():
    (heat,) = measured(point(ratio=0.1), point(ratio=0.4), point(bytes_=4096, ratio=0.9)).heats()
    assert heat.speed == pytest.approx({(64, 4 * KIB): 0.4, (4096, 4 * KIB): 0.9})
    assert heat.enough(4 * KIB) == 4096


def test_a_grain_is_coarse_enough_only_if_all_coarser_ones_are():
    (heat,) = measured(point(bytes_=8, ratio=0.9), point(bytes_=16, ratio=0.7), point(bytes_=32, ratio=0.9)).heats()
    assert heat.enough(4 * KIB) == 32
    assert measured(point(ratio=0.7)).heats()[0].enough(4 * KIB) is None


# ---- sentences ----


def test_the_one_sentence():
    assert sentences.overall(measured(*everything())) == (
        "On 2 ranks, in size `small`, dsm is within 5 % of mpi4py, or faster, in 1 of 3 applications and meets "
        "the reach in 2; the geometric mean of its speed is 0.78 of mpi4py's and 0.86 of the floor's."
    )


def test_the_recommendation():
    made = measured(*everything())
    on, off = made.sweep("page_size"), made.sweep("page_size", aggregation=False)
    assert sentences.pages(on, 4 * KIB, off) == (
        "Pages of 16 KiB have the best geometric mean of the ratio, 0.86 over 3 applications; the usual 4 KiB has 0.78 "
        "and loses 9 %. Without aggregation the best is 4 KiB with 0.39: aggregation on the usual pages is 100 % ahead."
    )


def test_what_the_map_of_granularities_shows():
    made = measured(*everything())
    assert sentences.heats(made.heats(), 4 * KIB) == (
        "At 0 of 8 points dsm is within 5 % of mpi4py, or faster; pages of 4 KiB have the best geometric mean over all "
        "grains and patterns, 0.30. With pages of 4 KiB its speed stays at 0.8 of mpi4py's or more from 4 KiB on in "
        "`migratory` and `producer`."
    )
    assert "at no grain in `migratory`" in sentences.heats(measured(point()).heats(), 4 * KIB)


def test_what_computing_in_between_does():
    assert sentences.compute(measured(*everything()).compute_curves()) == (
        "With 1 ms of computing between synchronisations the geometric mean is 0.95, beside 0.30 with none."
    )


def test_a_miss_is_explained_by_the_counters():
    mpi, dsm = pair(ratio=0.8)
    dsm["counters"] |= {"wait_fault_ns": 100_000_000, "wait_barrier_ns": 25_000_000, "collections": 1}
    told = sentences.reasons(measured(mpi, dsm).reasons("sor", "small"))
    assert told == (
        "0.80 of mpi4py's speed instead of 0.90: dsm takes 1.25 times as long, and 5 % of its ranks' time is waiting; "
        "the largest wait is for data. Waiting does not explain all of it: the rest goes to the computing side "
        "(faults, twins, diffs)."
    )


def test_counters_of_what_is_missed_are_tabulated():
    mpi, dsm = pair(ratio=0.8)
    dsm["counters"] |= {"wait_fault_ns": 100_000_000, "wait_barrier_ns": 25_000_000, "collections": 1}
    table, _ = sections.missed(measured(mpi, dsm)).blocks
    assert table.rows == [["sor", "0.80", "0.90", "4.0", "0.0", "1.0", "40", "3", "1", "3.00", "2.50"]]


def test_only_what_is_missed_is_explained():
    section = sections.missed(measured(*everything()))
    _, items = section.blocks
    assert isinstance(items, Items)
    assert [name for name, _ in items.rows] == ["sor"]
    assert "Every reach is met, in 1 application" in words_of(sections.missed(measured(*pair(ratio=0.95))))


def test_scaling_is_told_where_ranks_have_cores_and_at_most_ranks():
    curves = {"sor": {"mpi4py": {1: 1.0, 2: 1.9, 4: 1.7}, "dsm": {1: 1.0, 2: 1.5, 4: 1.2}}}
    assert sentences.scaling(curves, 2, "speed-up") == (
        "On 2 ranks the geometric mean of the speed-up is 1.50 with dsm and 1.90 with mpi4py; on 4 ranks the geometric "
        "mean of the speed-up is 1.20 with dsm and 1.70 with mpi4py; with more than 2 cores ranks take turns on them."
    )


# ---- tables ----


def tables(document):
    return [block for section in document.sections for block in section.blocks if isinstance(block, Table)]


def test_the_table_of_speeds_has_all_that_was_asked_for():
    document = sections.build(measured(*everything()))
    speeds, costs, by_ranks = [table for table in tables(document) if table.columns[0].name == "application"][:3]
    dash = words.DASH
    assert speeds.rows[0] == [
        *("sor", "1.80 s", "1.80", "1.44", "0.80", f"0.80{dash}0.80", "0.90", "missed"),
        *("0.88", f"0.88{dash}0.88", "4.00", "3.00", "0.75"),
    ]
    assert speeds.rows[1][-3:] == [dash, dash, "no communication"]
    assert costs.rows[0] == ["sor", "10", "30", "3.00", "1,000 B", "2.44 KiB", "2.50", "7", "7", "7"]
    assert [column.group for column in by_ranks.columns[1::3]] == ["1 rank", "2 ranks", "4 ranks *"]


def test_what_is_missing_is_said_in_one_line():
    document = sections.build(measured(*pair()))
    last = document.sections[-1]
    assert last.title == "Not in these results"
    assert len(last.blocks) == 1
    assert "sweep pages" in words_of(last)
    assert "sweep granularity" in words_of(last)
    assert not any(section.title == "Page size" for section in document.sections)


# ---- the page ----


class Page(html.parser.HTMLParser):
    """What a page refers to, and whether its tags are closed."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self, text):
        super().__init__()
        self.open, self.images, self.refers, self.tags, self.ids, self.text = [], [], [], [], set(), []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append((tag, found))
        self.ids |= {found["id"]} if "id" in found else set()
        self.refers += [found[name] for name in ("src", "href", "srcset", "data", "action") if name in found]
        if tag == "img":
            self.images.append(found)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    file = report.write(everything(), folder, APPS)
    return folder, file, Page(file.read_text(encoding="utf-8"))


def test_the_page_needs_nothing_else(written):
    _, file, page = written
    assert file.name == "report.html"
    assert page.refers
    for target in page.refers:
        assert target.startswith("data:image/svg+xml;base64,") or (target[0] == "#" and target[1:] in page.ids)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert not re.search(r"@import|url\(", file.read_text(encoding="utf-8"))


def test_every_picture_is_drawn_and_told(written):
    folder, _, page = written
    names = {path.stem for path in folder.glob("*.png")}
    assert names == {
        *("ratios", "ranks", "split", "pages", "pages-heat", "granularity", "compute", "scaling", "weak", "networks")
    }
    assert len(page.images) == len(names)
    for image in page.images:
        assert len(image["alt"]) > 40
        root = ElementTree.fromstring(base64.b64decode(image["src"].partition(",")[2]))
        assert sum(1 for _ in root.iter("{http://www.w3.org/2000/svg}path")) > 20
    for path in folder.glob("*.png"):
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert path.stat().st_size > 5000


def test_the_page_can_be_read_by_all(written):
    _, _, page = written
    assert ("html", {"lang": "en"}) in page.tags
    heads = [attributes for tag, attributes in page.tags if tag == "th"]
    assert all(attributes["scope"] in ("row", "col", "colgroup") for attributes in heads)


def test_names_are_escaped(tmp_path):
    name = '<b>"x"&y|z'
    records = pair(name, commit="<i>")
    page = Page(report.write(records, tmp_path, {name: app(name, paper_note="<u>")}).read_text(encoding="utf-8"))
    assert not {"b", "i", "u"} & {tag for tag, _ in page.tags}
    assert name in page.text
    text = report.markdown(records, apps={name: app(name)})
    assert "<b>" not in text
    assert "y\\|z" in text


def test_markdown_has_the_tables_and_names_the_pictures():
    text = report.markdown(everything(), "pictures/", APPS)
    assert text.startswith("# dsm beside mpi4py\n\nOn 2 ranks")
    assert "](pictures/ratios.png)" in text
    for table in re.findall(r"(?:^\|.*\|\n)+", text, re.M):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert "](ratios.png)" in report.markdown(everything(), apps=APPS)


@pytest.mark.parametrize(
    "records",
    [
        [],
        [record()],
        [record(version="serial", ranks=1)],
        [record(version="mpi4py", ranks=8)],
        pair("unknown"),
        pair(ranks=1),
        pair(machine={}, software={}, counters={}),
        pair(aggregation=False),
        pair(scaling="weak"),
        pair(network="full"),
        pair() + pair(page_size=16 * KIB),
        pair() + pair("ep", page_size=16 * KIB),
        pair(ratio=0.001) + pair("ep", 50.0),
        pair() + pair(ranks=4),
        [point()],
        [point(compute_us=100)],
        [point(compute_us=100), point(compute_us=0)],
        [point(bytes_=8), point(bytes_=16, compute_us=5), point(bytes_=16, compute_us=9)],
    ],
    ids=lambda records: f"{len(records)} records",
)
def test_partial_results_make_a_report(records, tmp_path):
    page = Page(report.write(records, tmp_path, APPS).read_text(encoding="utf-8"))
    assert page.text
    assert report.markdown(records, apps=APPS)


def test_other_work_beside_the_runs_is_told():
    quiet, noisy = pair(load=1.9), pair("ep", load=9.0)
    assert sentences.noise(quiet) == ""
    assert sentences.noise(quiet + noisy).startswith("In 2 of 4 runs the load average was above")


def test_the_wait_of_one_application_is_told_plainly():
    parts = {"sor": split(record(counters={"wait_fault_ns": 5e8, "wait_lock_ns": 1e8}))}
    assert sentences.splits(parts) == "30 % of the time of dsm's ranks in sor is waiting, most of it for data."


def test_several_machines_are_told():
    told = words_of(sections.facts(measured(*pair(), *pair("ep", machine={"host": "other", "cpu": "c", "cores": 4}))))
    assert "several machines" in told
    assert "other: c, 4 cores" in told


def test_a_part_of_the_report_is_a_section_or_says_what_lacks():
    for part in (sections.page_sizes, sections.granularity, sections.ranks, sections.weak, sections.networks):
        assert isinstance(part(measured(*everything())), Section)
        assert "python -m benchmarks" in part(measured(*pair()))


def test_the_same_data_make_the_same_picture():
    found = {"sor": Interval(0.8, 0.7, 0.9)}
    first, second = (figures.render(lambda: figures.ratios(found, {"sor": 0.9}, {"sor": 0.7})) for _ in range(2))
    assert first == second


def test_records_of_the_tests_are_what_is_kept(tmp_path):
    results.append(tmp_path / "r", everything())
    assert results.load(tmp_path / "r") == everything()
