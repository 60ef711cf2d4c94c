"""Single operations: faults, fetches, locks, barriers and two small programs, each beside MPI in the same run.

launch.py   starts the job, on this host or on several virtual ones, and prints the table
table.py    one line of the table: what was measured, its rivals, how far it is to reach
rank.py     what a rank of the job runs
bench.py    what the rows have in common: turns, clocks, checks
helper.c    what must be timed without Python between
kernels.py  loops compiled by numba, the same for dsm and for its rivals
faults.py, fetch.py, sync.py, apps.py, memory.py   the rows
"""
