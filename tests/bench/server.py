"""`bots-server` with one call more: an empty one that asks Redis for a PING. It is what every call costs at least.

    python -m tests.bench.server --redis unix:///tmp/redis.sock --port 0

The call is one of the same server: the same threads, the same interceptor with its access line and metrics, the same
client of Redis. Nothing else differs, and the public API has no such call.
"""

import grpc

from bots.v1 import task_selection_pb2 as pb
from bots_server.api.methods import MAX_REQUEST_BYTES, METHODS, Method
from bots_server.process import main as program
from bots_server.process.server import Server, make_server
from bots_server.process.settings import Settings
from bots_server.store import Store
from bots_server.telemetry.metrics import Metrics

EMPTY_CALL = "/bots.bench.Bench/Ping"


def with_empty_call(store: Store, settings: Settings, metrics: Metrics) -> Server:
    """Returns a server that has the empty call."""

    def ping(request: pb.ListDatasetsRequest, context: grpc.ServicerContext) -> pb.DeleteRunResponse:
        store.ping()
        return pb.DeleteRunResponse()

    handler = grpc.unary_unary_rpc_method_handler(
        ping, pb.ListDatasetsRequest.FromString, pb.DeleteRunResponse.SerializeToString
    )
    _, service, method = EMPTY_CALL.split("/")
    METHODS[EMPTY_CALL] = Method(method, pb.ROLE_READ, MAX_REQUEST_BYTES, "bots.v1.ListDatasetsRequest", ())
    server = make_server(store, settings, metrics)
    server._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    return server


if __name__ == "__main__":
    program.make_server = with_empty_call  # type: ignore[attr-defined]  # which program.main calls
    program.main()
