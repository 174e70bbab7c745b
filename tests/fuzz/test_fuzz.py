"""Whatever is sent: no call ends in a fault of the server, and a refused call changes nothing."""

import os
from collections.abc import Iterator

import grpc
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from bots_server.store import history
from tests.api.service import Service, serving
from tests.fuzz.in_process import serving_in_process
from tests.fuzz.requests import METHODS, SERVICE, VALID, World, requests
from tests.fuzz.session import Lines, Session, call_raw, log_lines
from tests.valkey import Valkey

CALLS = int(os.environ.get("TEST_FUZZ_CALLS", "1500"))
CALLS_PER_EXAMPLE = 20
RANDOM = st.randoms(use_true_random=False)  # whose draws are shrunk
SNAPSHOT_EVENTS = 4  # so that replicas are rebuilt from snapshots too

fuzz = settings(
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)


@pytest.fixture(scope="module")
def servers(shared_valkey: Valkey) -> Iterator[tuple[Service, Service, Lines]]:
    """Two servers in this process over one Redis, and what they log."""
    patched, url = pytest.MonkeyPatch(), shared_valkey.url
    patched.setattr(history, "SNAPSHOT_EVENTS", SNAPSHOT_EVENTS)
    with log_lines() as lines, serving_in_process(url) as (one, _), serving_in_process(url) as (other, _):
        yield one, other, lines
    patched.undo()


@pytest.fixture(scope="module")
def channel(shared_valkey: Valkey) -> Iterator[tuple[grpc.Channel, Lines]]:
    """A channel to a server, and what it logs."""
    with (
        log_lines() as lines,
        serving(shared_valkey.url) as service,
        grpc.insecure_channel(service.address) as channel,
    ):
        yield channel, lines


def test_every_method_has_a_valid_request() -> None:
    """The fields of a request are found in the descriptor; what is valid is written down."""
    assert set(VALID) == set(SERVICE.methods_by_name)


@settings(fuzz, max_examples=max(1, CALLS // CALLS_PER_EXAMPLE))
@given(st.data())
def test_calls_keep_the_invariants(servers: tuple[Service, Service, Lines], data: st.DataObject) -> None:
    """Sequences of requests, valid but for some fields, to either server."""
    *services, lines = servers
    session = Session(*services)
    for _ in range(data.draw(st.integers(1, 2 * CALLS_PER_EXAMPLE - 1))):
        method = data.draw(st.sampled_from(METHODS))
        messages = requests(data.draw(RANDOM), method, session.world)
        note(f"{method} {messages}"[:2000])
        session.call(method, messages, data.draw(st.integers(0, 1)))
    session.end()
    assert lines.bad == []


@settings(fuzz, max_examples=CALLS)
@given(st.sampled_from(sorted(VALID)), st.data())
def test_raw_bytes_are_answered_or_refused(
    channel: tuple[grpc.Channel, Lines], method: str, data: st.DataObject
) -> None:
    """Encoded requests of which bytes are changed, removed and inserted, and bytes at random."""
    connected, lines = channel
    messages = requests(data.draw(RANDOM), method, World())
    body = messages[0].SerializeToString()[:4096] if messages else b""
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(body)))
        body = body[:at] + data.draw(st.binary(max_size=4)) + body[at + data.draw(st.integers(0, 4)) :]
    call_raw(connected, method, [body])
    assert [line for line in lines.bad if "deserializ" not in line] == []
