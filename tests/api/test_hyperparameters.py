"""Hyperparameters: the proto says of each what the core's table says, and an unknown one is refused."""

import re
from pathlib import Path

import grpc
import pytest

from bots.v1 import task_selection_pb2 as pb
from bots_server.core.hyperparameters import RULES, Hyperparameters
from bots_server.storage.v1 import storage_pb2 as storage
from tests.api.service import SECONDS, Run, Service

PROTO = Path(__file__).parents[2] / "proto" / "bots" / "v1" / "task_selection.proto"


def comments() -> dict[str, tuple[str, str | None]]:
    """Returns comment and model of each field of Hyperparameters, by name."""
    body = PROTO.read_text().split("message Hyperparameters {")[1].split("\n}")[0]
    found, comment, model = {}, "", None
    for line in map(str.strip, body.splitlines()):
        if section := re.fullmatch(r"// Model (\w+)\.", line):
            model = section[1]
        if line.startswith("//"):
            comment += " " + line.removeprefix("//").strip()
        elif field := re.fullmatch(r"optional \w+ (\w+) = \d+;", line):
            found[field[1]], comment = (comment, model), ""
    return found


def number(text: str) -> float:
    return {"false": 0.0, "true": 1.0}.get(text) if text in ("false", "true") else float(text)  # type: ignore[return-value]


def test_table_and_messages_have_the_same_fields() -> None:
    """Core, API and store; the last two under the same numbers."""
    numbers = {field.name: field.number for field in pb.Hyperparameters.DESCRIPTOR.fields}
    assert numbers == {field.name: field.number for field in storage.Hyperparameters.DESCRIPTOR.fields}
    assert list(numbers) == list(RULES) == list(comments())


@pytest.mark.parametrize("name", RULES)
def test_proto_states_the_default_and_the_rule(name: str) -> None:
    """The default and the words of the rule, whose bounds hold and beyond which values are refused."""
    comment, model = comments()[name]
    rule = RULES[name]
    assert rule.model == model
    default = re.search(r"Default ([\w.]*\w)", comment)
    assert default
    assert number(default[1]) == float(getattr(Hyperparameters(), name))
    if name == "greedy":
        return
    words = comment.replace("1e6", "1000000")
    inclusive = re.search(r"between ([\d.e]+) (?:\([^)]*\) )?and ([\d.]*\d)", words)
    low, high = inclusive.groups() if inclusive else ("0", "1")
    assert inclusive or rule.words in words, (name, rule.words, comment)
    if inclusive:
        assert rule.words == f"between {low} and {high}"
        assert rule.holds(float(low))
        assert rule.holds(float(high))
    for beyond in (float(low) - 1e-9, float(high) * (1 + 1e-9), float("nan")):
        assert not rule.holds(beyond)


def test_field_of_a_newer_client_is_refused(letters: Service, policy: Run) -> None:
    """A hyperparameter that this server does not know is not dropped silently."""
    newer = pb.Hyperparameters.FromString(b"\xc1\x02" + bytes(8))  # field 40, a double
    for call in (
        lambda: letters.stub.CreateRun(
            pb.CreateRunRequest(dataset="letters", name="new", hyperparameters=newer), timeout=SECONDS
        ),
        lambda: letters.stub.UpdateRun(pb.UpdateRunRequest(run=policy.ref, hyperparameters=newer), timeout=SECONDS),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            call()
        assert isinstance(refused.value, grpc.Call)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert refused.value.details() == (
            "hyperparameters: got field 40, must be known to this server; the client may be newer"
        )
