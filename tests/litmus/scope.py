"""How far each litmus program is explored: (decisions that are tried in all ways, schedules), one for each placement.

0 decisions stands for all of them: every schedule.  The numbers were measured; a test compares, so that a scope that
shrinks is noticed.  After a change of the protocol or of a program, make the table again:

    PYTHONPATH=tests python -P -m litmus.scope [RUNS]

which takes as many decisions as fit RUNS runs (1000), counting those that the explorer gives up as redundant.
"""

import sys

from litmus.in_simulator import Translated
from litmus.programs import PROGRAMS

RUNS = 1000
SCOPE: dict[str, tuple[tuple[int, int], ...]] = {
    "message passing, racy": ((10, 632), (10, 632), (9, 632), (9, 738)),
    "message passing, one lock": ((0, 580), (0, 580), (0, 543), (26, 754)),
    "message passing, a lock for each variable": ((0, 190), (0, 190), (25, 682), (26, 664)),
    "message passing, barriers": ((0, 38), (0, 38), (0, 75), (0, 134)),
    "store buffering, racy": ((10, 568), (10, 568), (9, 617), (9, 675)),
    "store buffering, one lock": ((27, 708), (27, 708), (0, 615), (26, 661)),
    "store buffering, a lock for each variable": ((23, 670), (23, 670), (23, 672), (25, 764)),
    "store buffering, barriers": ((0, 67), (0, 67), (0, 67), (23, 566)),
    "load buffering, racy": ((9, 673), (9, 673), (9, 673), (9, 925)),
    "load buffering, one lock": ((0, 461), (0, 461), (0, 461), (0, 727)),
    "load buffering, a lock for each variable": ((0, 103), (0, 103), (0, 73), (0, 153)),
    "load buffering, barriers": ((0, 4), (0, 4), (0, 4), (0, 5)),
    "2+2W, racy": ((9, 673), (9, 673), (9, 730), (9, 731)),
    "2+2W, one lock": ((26, 723), (26, 723), (24, 677), (26, 724)),
    "2+2W, a lock for each variable": ((23, 733), (23, 733), (23, 738), (24, 604)),
    "2+2W, barriers": ((26, 674), (26, 674), (26, 725), (23, 613)),
    "WRC, racy": ((7, 671), (7, 671), (7, 710), (7, 904)),
    "WRC, one lock": ((16, 801), (16, 801), (16, 811), (16, 672)),
    "WRC, a lock for each variable": ((14, 808), (14, 808), (14, 808), (14, 759)),
    "WRC, barriers": ((16, 740), (16, 740), (16, 740), (15, 800)),
    "ISA2, racy": ((7, 835), (7, 835), (7, 919), (6, 467)),
    "ISA2, one lock": ((14, 714), (14, 714), (14, 743), (14, 654)),
    "ISA2, a lock for each variable": ((18, 793), (18, 793), (18, 804), (19, 718)),
    "ISA2, barriers": ((15, 800), (15, 800), (15, 846), (14, 700)),
    "IRIW, racy": ((5, 457), (5, 457), (5, 465), (5, 513)),
    "IRIW, one lock": ((9, 755), (9, 755), (9, 755), (9, 766)),
    "IRIW, a lock for each variable": ((12, 713), (12, 713), (12, 713), (12, 742)),
    "IRIW, barriers": ((12, 480), (12, 480), (12, 480), (13, 210)),
    "CoRR, racy": ((10, 659), (9, 606)),
    "CoRR, one lock": ((0, 580), (27, 618)),
    "CoRR, barriers": ((34, 535), (34, 734)),
    "CoWW, racy": ((9, 552), (9, 522)),
    "CoWW, one lock": ((0, 280), (0, 481)),
    "CoWW, barriers": ((0, 55), (0, 146)),
    "CoWR, racy": ((9, 625), (9, 691)),
    "CoWR, one lock": ((28, 679), (31, 652)),
    "CoWR, barriers": ((0, 136), (30, 530)),
    "CoRW, racy": ((9, 683), (9, 783)),
    "CoRW, one lock": ((28, 796), (31, 694)),
    "CoRW, barriers": ((33, 777), (33, 630)),
    "two threads of one node": ((0, 502), (0, 502), (0, 592), (15, 828)),
    "data beside the lock": ((0, 33), (0, 33), (0, 95), (26, 526)),
    "data beside a chain of locks": ((14, 888), (14, 888), (14, 901), (13, 744)),
    "a chain of four nodes and three locks": ((10, 939), (10, 939), (10, 939), (10, 954)),
    "diff of an open interval, racy": ((0, 21),),
    "diff of an open interval, old value on top": ((17, 774), (17, 774), (18, 754)),
    "1 -> 2 -> 1": ((25, 637), (25, 637), (24, 635), (26, 725)),
    "two writers of one page": ((27, 689), (27, 689), (23, 563)),
    "three writers of neighbouring bytes under locks of their own": ((18, 802), (19, 713)),
    "prefetched and never used": ((22, 695), (21, 585)),
    "prefetched before the lock": ((0, 704), (0, 704), (30, 774), (27, 631)),
    "collection while a request is under way": ((9, 498), (9, 498), (9, 501), (9, 508)),
    "collection while a lock is passed": ((9, 505), (9, 578)),
    "collection, and a lock chain over three nodes": ((6, 513), (6, 513), (6, 513), (6, 514)),
    "a grant from a node that is one cut ahead": ((10, 761), (10, 761), (10, 781), (10, 705)),
    "a grant from beyond the cut, of a third node's write": ((8, 688), (8, 688), (8, 688), (8, 833)),
    "a write beside a barrier, told by who saw it": ((11, 739), (10, 651)),
    "free and reuse of an address": ((29, 657), (29, 657), (27, 769), (26, 748)),
    "upgrade from read to write while the page is served": ((28, 673), (28, 673), (28, 755), (30, 736)),
    "lock passed on while its holder waits for a page": ((14, 836), (14, 836), (14, 868), (14, 900)),
    "lock passed on while a thread beside waits for a page": ((8, 604), (8, 604)),
    "a pinned page is served": ((25, 690), (25, 690), (24, 644), (26, 725)),
    "a page pinned for reading": ((27, 810), (27, 810), (28, 817), (28, 686)),
    "an event passes a message": ((10, 496), (10, 579)),
    "events pass on what others wrote": ((0, 40), (0, 40), (0, 32), (0, 55)),
    "an event that is cleared and set again": ((10, 766), (9, 514)),
    "an event that a third node clears": ((13, 802), (13, 772)),
    "an event of two setters": ((0, 24), (0, 24), (0, 24), (0, 40)),
    "what a lock tells of an event": ((0, 192), (0, 192), (0, 172), (26, 389)),
}


def measure(translated, runs):
    """Return the deepest scope that fits, as far as the growth so far lets one guess."""
    scope, ran = (0, 0), 1
    for depth in range(1, 1000):
        found = translated.simulated.explore(limit=runs, depth=depth)
        before, ran = ran, found.schedules + found.redundant
        if found.limited or ran > runs:
            return scope
        if found.decisions_max < depth:
            return 0, found.schedules
        scope = (depth, found.schedules)
        if ran * ran > runs * before:
            return scope
    raise AssertionError("no end")


def row(name, runs=RUNS):
    """Return the table's row of a program."""
    program = next(program for program in PROGRAMS if program.name == name)
    return tuple(measure(Translated(program, placement), runs) for placement in program.placements)


def main():
    """Print the table."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    print("SCOPE = {")
    for program in PROGRAMS:
        print(f'    "{program.name}": {row(program.name, runs)},', flush=True)
    print("}")


if __name__ == "__main__":
    main()
