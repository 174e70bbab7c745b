"""Whose turn it is to compute: one thread of a process folds or draws at a time.

Both are hundreds of calls of numpy on short arrays, each of which lets go of the interpreter's lock. Several threads at
it spend more time handing that lock around than computing: 16 jobs got 120 pairs of calls a second from one process on
2 cores, and get 200 by turns. What takes long, on very many strata or on all N tasks, shares the cores better without.
"""

import threading

TURN = threading.Lock()
