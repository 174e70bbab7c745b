"""Selection: which tasks to train on next. Selection has exactly the distribution of drawing every task.

eligible -> draw               which tasks can be selected, as individuals and ranges; one selection as offers
nearest, tempered, ties        three ways in which tasks take their turn: sources of ever further tasks
envelope, pool, members        drawing only what can win; draws that wait; distinct members of a range
"""

from bots_server.core.selection.draw import Candidates as Candidates
from bots_server.core.selection.draw import Draw as Draw
from bots_server.core.selection.draw import draw_quotas as draw_quotas
from bots_server.core.selection.draw import take as take
