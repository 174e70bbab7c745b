"""All ranks of one start of a job have one incarnation, and the next start has another."""

from __future__ import annotations

import pytest

import bots
from bots.incarnation import incarnation

TORCHRUN = {"TORCHELASTIC_RUN_ID": "7", "TORCHELASTIC_RESTART_COUNT": "0", "MASTER_ADDR": "n1", "MASTER_PORT": "29500"}
LAUNCHERS = [
    (TORCHRUN, TORCHRUN | {"TORCHELASTIC_RESTART_COUNT": "1"}),
    (
        {"SLURM_JOB_ID": "9", "SLURM_STEP_ID": "0"},
        {"SLURM_JOB_ID": "9", "SLURM_STEP_ID": "0", "SLURM_RESTART_COUNT": "1"},
    ),
    ({"RAY_JOB_ID": "01"}, {"RAY_JOB_ID": "02"}),
    ({"MASTER_ADDR": "n1", "MASTER_PORT": "1"}, {"MASTER_ADDR": "n1", "MASTER_PORT": "2"}),
    ({"BOTS_INCARNATION": "x"}, {"BOTS_INCARNATION": "y"}),
]


@pytest.mark.parametrize(("first", "second"), LAUNCHERS)
def test_ranks_of_one_start_agree_and_a_restart_differs(first: dict[str, str], second: dict[str, str]) -> None:
    """The launcher's variables decide, whatever the rank."""
    assert incarnation(None, first | {"RANK": "0"}) == incarnation(None, first | {"RANK": "1"})
    assert incarnation(None, first) != incarnation(None, second)


def test_without_a_launcher_every_process_has_its_own() -> None:
    """Nothing in the environment: a random text."""
    assert incarnation(None, {}) != incarnation(None, {})


def test_what_is_given_comes_first() -> None:
    """The argument is taken before the environment, and is 1 to 64 bytes."""
    assert incarnation("mine", TORCHRUN) == "mine"
    with pytest.raises(ValueError, match="incarnation: got 65 bytes, must be 1 to 64 bytes"):
        bots.Client(incarnation="x" * 65)
