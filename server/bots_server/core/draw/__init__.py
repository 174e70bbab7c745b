"""The drawing of a selection: which tasks to train on next.

eligible -> draw                        which tasks can be selected, as individuals and ranges; a selection as offers
quotas                                  how a batch is divided among tags
lists                                   the candidates of a part, as far as revealed; distinct members of ranges
nearest, targets, tempered, ties, sieve orders of tasks, from which ever further ones are revealed
envelope, pool                          drawing only what can win; known draws
"""

from bots_server.core.draw.draw import Candidates as Candidates
from bots_server.core.draw.draw import Counts as Counts
from bots_server.core.draw.draw import Draw as Draw
from bots_server.core.draw.draw import SelectionSpec as SelectionSpec
from bots_server.core.draw.draw import take as take
