"""`python -m bots_server.process.health`: exit status 0 if the server of the same variables is SERVING, else 1.

For the health check of a container. It asks /healthz on the port of the metrics, over TLS if the server has it. It runs
every few seconds, so it imports no more than it needs: the settings would take five times as long.
"""

import os
import ssl
import sys
from http.client import HTTPConnection, HTTPException, HTTPSConnection

from bots_server.process.address import WILDCARDS, resolve

TIMEOUT_SECONDS = 3.0


def complaint(host: str, port: int, *, tls: bool) -> str | None:
    """Returns what is wrong with the server whose metrics are at `host`:`port`; None if it is SERVING."""
    address = resolve(host)[0]
    here = "127.0.0.1" if address in WILDCARDS else address
    connection = HTTPConnection(here, port, timeout=TIMEOUT_SECONDS)
    if tls:
        context = ssl.create_default_context()
        context.check_hostname = False  # this machine is asked by its address, which no certificate has to name
        context.verify_mode = ssl.CERT_NONE
        connection = HTTPSConnection(here, port, timeout=TIMEOUT_SECONDS, context=context)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse().read().decode().strip()
    except (OSError, HTTPException) as error:
        return f"{here}:{port}: {error!r}"
    finally:
        connection.close()
    return None if answer == "SERVING" else f"{here}:{port}: {answer}"


def main() -> None:
    port = os.environ.get("BOTS_METRICS_PORT")
    if not port:
        sys.exit("BOTS_METRICS_PORT: must be set, because /healthz is there")
    host = os.environ.get("BOTS_METRICS_HOST") or "127.0.0.1"
    sys.exit(complaint(host, int(port), tls=bool(os.environ.get("BOTS_TLS_CERT"))))


if __name__ == "__main__":
    main()
