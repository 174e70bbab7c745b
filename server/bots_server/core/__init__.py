"""The method, pure: numpy and scipy, no clock, no network, and nothing of ours outside this package.

strata -> tasks               a dataset, arranged
hyperparameters -> posterior  the fold of a run's events, with evidence, statistics and distinct as its parts
selection, summary            what is read from a posterior
"""
