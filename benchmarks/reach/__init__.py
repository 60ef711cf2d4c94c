"""What hosts as nodes are to reach and neither the applications nor `micro` measures: `python -m benchmarks reach`.

launch.py     starts a job for each layout of ranks, and prints a table for each
rank.py       what a rank of a job runs
rivals.py     one program over dsm and over the floor, in turns with mpi4py's
programs.py   transpose, pipelined stencil, Floyd-Warshall, Jacobi from allocation on
single.py     memory, first writes, barriers, locks, and what must not happen on one host
hosts.py      faults of several ranks of one host on pages of another
"""
