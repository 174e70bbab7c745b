"""`python -m bots_server.process.health [ADDRESS]`: exit status 0 if the server there is SERVING, else 1.

For the health check of a container. ADDRESS defaults to localhost at the port of the settings. If the settings name the
server's certificate, that one is trusted, and ADDRESS must be one of its names.
"""

import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bots_server.process.settings import settings

TIMEOUT_SECONDS = 2.0


def complaint(address: str, certificate: Path | None = None) -> str | None:
    """Returns what is wrong with the server at `address`; None if it is SERVING."""
    if certificate is None:
        channel = grpc.insecure_channel(address)
    else:
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(certificate.read_bytes()))
    with channel:
        try:
            request = health_pb2.HealthCheckRequest()
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            return f"{address}: {error.code().name}: {error.details()}"
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        return f"{address}: {health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)}"
    return None


def main() -> None:
    chosen = settings([])
    address = sys.argv[1] if len(sys.argv) > 1 else f"localhost:{chosen.port}"
    sys.exit(complaint(address, chosen.tls_cert))


if __name__ == "__main__":
    main()
