"""Addresses to listen on: names, IPv4, IPv6 with or without brackets, and `unix:/path/to/socket`.

`0.0.0.0` and `::` mean every address of both IP versions, for the gRPC port and for /metrics alike.
"""

import ipaddress
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

WILDCARDS = ("0.0.0.0", "::")  # noqa: S104


def is_local(host: str) -> bool:
    """Returns whether only this machine reaches a host: a loopback address, `localhost`, or a unix socket."""
    if is_unix(host) or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(_bare(host)).is_loopback
    except ValueError:
        return False


def is_unix(host: str) -> bool:
    return host.startswith("unix:")


def shown(host: str, port: int) -> str:
    """Returns the address as clients write it."""
    bare = _bare(host)
    return host if is_unix(host) else f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"


def resolve(host: str) -> list[str]:
    """Returns every address of a host, numeric, that this machine can listen on. Raises OSError if there is none."""
    if is_unix(host):
        return [host]
    bare = _bare(host)
    with suppress(ValueError):
        return [str(ipaddress.ip_address(bare))]
    try:
        found = socket.getaddrinfo(bare, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise OSError(f"cannot listen on {host}: {error.strerror}") from error
    addresses = sorted({str(entry[4][0]) for entry in found}, key=lambda address: (":" in address, address))
    return [address for address in addresses if _exists(address)] or addresses


def bind(host: str, port: int, setting: str, *, shared: bool = False) -> socket.socket:
    """Returns a socket that is bound to a numeric address and does not listen yet; port 0 picks a free one.

    shared: other sockets of this user may bind the address afterwards (SO_REUSEPORT), but none has it now.

    Raises OSError, which names the address, the cause, and the setting to change.
    """
    if shared and port:
        bind(host, port, setting).close()  # fails if another server has the port, also one that shares it
    both = host in WILDCARDS and socket.has_dualstack_ipv6()
    bound = socket.socket(socket.AF_INET6 if both or ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if both:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(("::" if both else host, port))
    except OSError as error:
        bound.close()
        raise OSError(f"cannot listen on {shown(host, port)} ({setting}): {error.strerror}") from error
    return bound


@contextmanager
def reserved(host: str, port: int, setting: str) -> Iterator[int]:
    """Yields a port that is bound at every address of a host, for others to share. Raises OSError as `bind` does."""
    with ExitStack() as stack:
        for one in resolve(host):
            port = stack.enter_context(bind(one, port, setting, shared=True)).getsockname()[1]
        yield port


def check_socket(path: str) -> None:
    """Raises OSError if a server listens on a unix socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        if connection.connect_ex(path) == 0:
            raise OSError(f"cannot listen on {path} (--host): another server does")


def _exists(address: str) -> bool:
    """Returns whether this machine has an address."""
    with suppress(OSError), bind(address, 0, ""):
        return True
    return False


def _bare(host: str) -> str:
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host
