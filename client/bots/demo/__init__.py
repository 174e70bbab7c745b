"""`bots demo`: a small policy learns to add, on a shuffled epoch and on tasks that a real server selects.

It is a training, not a simulation: a two-layer network writes sums digit by digit and learns by policy gradient with
group-normalised advantages (GRPO) from the rollouts of the tasks that it is given.
"""
