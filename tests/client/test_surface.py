"""The public surface: complete, plain, and light."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bots
from bots.v1 import task_selection_pb2 as pb
from tests.client.recorder import METHODS, Recorder

# One call of the public surface for each RPC.
CALLS: dict[str, Callable[[bots.Client, bots.Run], object]] = {
    "CreateDataset": lambda client, run: client.create_dataset("d", size=1),
    "GetDataset": lambda client, run: client.get_dataset("d"),
    "ListDatasets": lambda client, run: list(client.list_datasets()),
    "DeleteDataset": lambda client, run: client.delete_dataset("d"),
    "CreateRun": lambda client, run: client.create_run("d", "r"),
    "GetRun": lambda client, run: run.info(),
    "ListRuns": lambda client, run: list(client.list_runs("d")),
    "UpdateRun": lambda client, run: run.update(target=0.5),
    "DeleteRun": lambda client, run: client.delete_run("d", "r"),
    "SelectBatch": lambda client, run: run.select(1),
    "ReportOutcomes": lambda client, run: run.report("t0", 1, 1),
    "ReleaseSelection": lambda client, run: run.release("s"),
    "GetPosteriors": lambda client, run: run.posteriors(),
    "GetRunSummary": lambda client, run: run.summary(),
    "WatchRun": lambda client, run: next(run.watch()),
    "CreateCheckpoint": lambda client, run: run.checkpoint("c"),
    "ListCheckpoints": lambda client, run: list(run.checkpoints()),
    "DeleteCheckpoint": lambda client, run: run.delete_checkpoint("c"),
    "RestoreRun": lambda client, run: run.restore(version=0),
    "UndoReport": lambda client, run: run.undo(1),
    "ListLeases": lambda client, run: list(run.leases()),
    "EndLeases": lambda client, run: run.end_leases(job="j"),
    "RetireTasks": lambda client, run: run.retire(["t1"]),
    "ListEvents": lambda client, run: list(run.events()),
    "GetServer": lambda client, run: client.get_server(),
}


def test_every_rpc_of_the_proto_is_in_this_test() -> None:
    """The list of calls is the service's list of RPCs."""
    assert sorted(CALLS) == sorted(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_every_rpc_is_reached(recorder: Recorder, client: bots.Client, method: str) -> None:
    """Each RPC of the proto is reached through the client, with a deadline."""
    CALLS[method](client, client.run("d", "r"))
    (call,) = recorder.of(method)
    assert call.seconds is not None
    assert call.seconds <= 61  # 60, and what the clocks of both ends differ by


@pytest.mark.parametrize("method", METHODS)
def test_no_protobuf_comes_back(client: bots.Client, method: str) -> None:
    """What comes back is plain: dataclasses, arrays, numbers, or a Run."""
    result = CALLS[method](client, client.run("d", "r"))
    assert not type(result).__module__.startswith(("google", "bots.v1"))


def test_what_comes_back_is_frozen() -> None:
    """Every dataclass of the surface is frozen."""
    kinds = [getattr(bots, name) for name in bots.__all__]
    records = [kind for kind in kinds if inspect.isclass(kind) and dataclasses.is_dataclass(kind)]
    assert len(records) > 10
    assert all(kind.__dataclass_params__.frozen for kind in records)  # type: ignore[attr-defined]


def test_the_surface_is_listed() -> None:
    """`__all__` is sorted, and holds every public name of the package's front but its modules."""
    names = {name for name, value in vars(bots).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert set(bots.__all__) == names


def test_everything_public_is_documented() -> None:
    """Each class of the surface, and each public method of it, has a docstring."""
    for name in bots.__all__:
        kind = getattr(bots, name)
        assert inspect.getdoc(kind), name
        for method, function in inspect.getmembers(kind, inspect.isfunction):
            assert method.startswith("_") or inspect.getdoc(function), f"{name}.{method}"


def test_hyperparameters_are_those_of_the_proto() -> None:
    """Keywords, dataclass and message have the same fields."""
    proto = [field.name for field in pb.Hyperparameters.DESCRIPTOR.fields]
    assert list(bots.HyperparameterValues.__annotations__) == proto
    assert [field.name for field in dataclasses.fields(bots.Hyperparameters)] == proto


def test_hyperparameters_are_given_either_way(recorder: Recorder, client: bots.Client) -> None:
    """As keywords, as the dataclass, or both for different ones."""
    client.create_run("d", "r", target=0.4, greedy=np.True_)  # type: ignore[arg-type]  # accepted all the same
    client.create_run("d", "r", hyperparameters=bots.Hyperparameters(target=0.4, greedy=True))
    client.create_run("d", "r", hyperparameters=bots.Hyperparameters(target=0.4), greedy=True)
    first, *others = [call.request for call in recorder.of("CreateRun")]
    assert others == [first] * 2


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"forgeting": 0.1}, "forgeting: no such hyperparameter, must be one of target, rest"),
        ({"target": "0.5"}, "target: got '0.5', must be a number"),
        ({"rollouts_per_update": 3.5}, "rollouts_per_update: got 3.5, must be a whole number"),
        ({"greedy": 2}, "greedy: got 2, must be True or False"),
        ({"target": [0.5]}, r"target: got \[0.5\], must be a number"),
        ({"hyperparameters": bots.Hyperparameters(target=0.4), "target": 0.5}, "target: given both"),
        ({"model": "irt"}, "model: got 'irt', must be one of"),
    ],
    ids=str,
)
def test_a_type_error_names_the_argument(client: bots.Client, keywords: dict[str, Any], message: str) -> None:
    """Also if a type checker does not see it."""
    with pytest.raises(TypeError, match=message):
        client.create_run("d", "r", **keywords)


@pytest.mark.skipif(find_spec("mypy") is None, reason="no mypy here: it is of the development environment")
def test_mypy_checks_a_users_script() -> None:
    """Calls and results have types that an editor completes; a misspelt keyword is found before the run."""
    script = Path(__file__).with_name("user_script.py")
    check = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary"]
    done = subprocess.run([*check, script], capture_output=True, text=True, timeout=300)
    assert done.stdout == ""
    assert done.returncode == 0
    wrong = "import bots\nbots.Client().run('d', 'r').update(tarjet=0.5)\n"
    done = subprocess.run([*check, "-c", wrong], capture_output=True, text=True, timeout=300)
    assert 'Unexpected keyword argument "tarjet"' in done.stdout


def test_the_library_imports_nothing_but_grpc_protobuf_and_numpy() -> None:
    """`import bots` in a trainer loads no package beyond those three and the standard library."""
    program = """
import sys
import numpy, grpc, google.protobuf.timestamp_pb2, google.protobuf.message
before = set(sys.modules)
import bots
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert set(done.stdout.split()) <= {"bots", "google", "grpc", "numpy"}
