"""What each method asks of a call: the caller's role and the length of a request, from the options of the proto."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection_pb2

from bots.v1 import task_selection_pb2 as pb
from bots_server.errors import Described, InvalidField

SERVICE = pb.DESCRIPTOR.services_by_name["TaskSelectionService"]
REFLECTION = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]

MAX_REQUEST_BYTES = 65_536  # of a method without the option
MAX_MESSAGE_BYTES = 4 * 2**20  # of any: gRPC itself refuses more


LOGGED = "dataset", "name", "job", "request_id"  # fields of requests


@dataclass(frozen=True, eq=False)
class Method:
    """A method that callers with a role may call."""

    name: str
    role: pb.Role.ValueType
    max_request_bytes: int
    request: str  # full name of its message
    logged: Sequence[str]  # fields of the request that its access line shows

    def decode(self, data: bytes | None, deserialize: Callable[[bytes], Any] | None) -> Any:
        """Returns a request. Raises InvalidField for none, one that is too long, before it is decoded, or cannot be."""
        if data is None:
            raise InvalidField("request", Described("no message"), f"must be a {self.request}")
        length = Described(f"{len(data)} bytes")
        if len(data) > self.max_request_bytes:
            raise InvalidField("request", length, f"must be at most {self.max_request_bytes} bytes")
        assert deserialize is not None
        try:
            return deserialize(data)
        except DecodeError:
            raise InvalidField("request", length, f"must be a {self.request}") from None


def method(descriptor: MethodDescriptor, role: pb.Role.ValueType) -> Method:
    """Returns what a method asks of a call. A method whose role is not stated is for admins."""
    options = descriptor.GetOptions()
    limit = options.Extensions[pb.max_request_bytes] or MAX_REQUEST_BYTES
    logged = tuple(name for name in LOGGED if name in descriptor.input_type.fields_by_name)
    return Method(descriptor.name, role or pb.ROLE_ADMIN, limit, descriptor.input_type.full_name, logged)


# By path. A service that is not here cannot be called.
METHODS = {
    f"/{SERVICE.full_name}/{one.name}": method(one, one.GetOptions().Extensions[pb.role]) for one in SERVICE.methods
} | {f"/{REFLECTION.full_name}/{one.name}": method(one, pb.ROLE_READ) for one in REFLECTION.methods}
