"""The method, pure: numpy and scipy, no clock, no network, and nothing of ours outside this package.

arrays                                 types of arrays
strata -> tasks                        a dataset, arranged; inputs: its columns as a model takes them
hyperparameters, evidence              what a run is given, and what it is told
interpolation, item_response -> models the evidence models, behind one interface
task_set -> coverage, statistics       what was evaluated, and how well it was predicted
outlier                                whether a report is far outside what the run has seen
state -> posterior -> transfer         the fold of a run's events; a run that goes on from another
undo                                   which events give a state, and which are left without one
draw, summary                          what is read from a posterior
"""
