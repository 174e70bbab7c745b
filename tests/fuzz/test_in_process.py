"""A call in process is answered as one through a channel is."""

import time
from random import Random
from typing import Any

import grpc

from bots.v1.task_selection_pb2_grpc import TaskSelectionServiceStub
from tests.api.service import serving, trailing
from tests.fuzz.in_process import serving_in_process
from tests.fuzz.requests import VALID, requests
from tests.fuzz.session import Session, call

READING = sorted(name for name in VALID if name.startswith(("Get", "List", "Watch")) and name != "GetServer")
CALLS = 300
SECONDS = 30


def answer(stub: TaskSelectionServiceStub, method: str, messages: Any) -> Any:
    """Returns the response of a call, or its status, message and trailing metadata."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            return repr(call(stub, method, messages))
        except grpc.RpcError as error:
            # Through a channel, the server may not have seen yet that earlier streams were left.
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED or time.monotonic() > deadline:
                return error.code(), error.details(), trailing(error)


def test_call_in_process_is_answered_as_through_a_channel(redis_url: str) -> None:
    with serving(redis_url) as real, serving_in_process(redis_url) as (local, _):
        session, random = Session(real, local), Random(0)
        for _ in range(CALLS):
            method = random.choice(READING)
            messages = requests(random, method, session.world)
            assert answer(local.stub, method, messages) == answer(real.stub, method, messages), (method, messages)
