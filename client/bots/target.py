"""Where the service is and how to connect to it: addresses, encryption, token, gRPC's options."""

from __future__ import annotations

import ipaddress
import json
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from bots.errors import invalid
from bots.token import Token

# A generator of its own: the program's seeds and draws are none of the client's.
_random = random.Random()  # noqa: S311

# pick_first: a trainer stays with one server, which then has its run in memory, and moves on when that server dies; the
# shuffled order spreads trainers over the servers. `bots.calls` repeats calls: it knows the service's reasons.
SERVICE_CONFIG = {"loadBalancingConfig": [{"pick_first": {"shuffleAddressList": True}}]}

OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    ("grpc.max_receive_message_length", 64 << 20),
    # A server that is back is found within two seconds; gRPC's own default is up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # A name that leads to a new address is looked up again within a second; gRPC's own default is 30.
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    # A connection that a host, a NAT or a balancer dropped without a word is noticed between the steps of a trainer, or
    # early enough for a call that meets it to go on over another (the second also sets TCP_USER_TIMEOUT).
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)

PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")


@dataclass(frozen=True)
class TLS:
    """How to encrypt: paths of PEM files.

    ca_file              authorities to trust; None: those that gRPC comes with.
    cert_file, key_file  this client's certificate and key, if the server asks for one. Both or neither.

    The certificate of a server must name its address; with several addresses, each certificate must name the first one.
    """

    ca_file: str | os.PathLike[str] | None = None
    cert_file: str | os.PathLike[str] | None = None
    key_file: str | os.PathLike[str] | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Returns the credentials for gRPC. OSError: a file cannot be read. InvalidArgumentError: it is no PEM file."""
        return grpc.ssl_channel_credentials(
            _read("ca_file", self.ca_file), _read("key_file", self.key_file), _read("cert_file", self.cert_file)
        )


@dataclass(frozen=True)
class Target:
    """Where the service is. addresses: one gRPC name, or several "IP address:port" of one IP version."""

    addresses: tuple[str, ...]
    token: Token = field(default_factory=lambda: Token(None))
    tls: TLS | None = None
    proxy: bool = False

    @classmethod
    def of(cls, target: str | Sequence[str], token: Token, tls: TLS | None, proxy: bool) -> Target:
        """Returns the target. InvalidArgumentError: several addresses, and one of them is a name."""
        if isinstance(target, str) and target.partition("://")[0] in ("http", "https", "grpc", "grpcs"):
            raise invalid("target", repr(target), "must be host:port without a scheme; `tls` encrypts")
        addresses = target.split(",") if isinstance(target, str) and "/" not in target else target
        if isinstance(addresses, str):
            return cls((addresses,), token, tls, proxy)
        addresses = [address.strip() for address in addresses]
        if len(addresses) > 1:
            versions = {_host_and_port(address)[0].version for address in addresses}
            if len(versions) > 1:
                raise invalid("target", repr(target), "must be addresses of one IP version")
        if not addresses or not all(addresses):
            raise invalid("target", repr(target), "must be host:port")
        return cls(tuple(addresses), token, tls, proxy)

    def address(self) -> str:
        """Returns the name that gRPC connects to; several addresses in a random order."""
        if len(self.addresses) == 1:
            return self.addresses[0]
        hosts = [_host_and_port(address) for address in self.addresses]
        _random.shuffle(hosts)
        if hosts[0][0].version == 4:
            return "ipv4:" + ",".join(f"{host}:{port}" for host, port in hosts)
        return "ipv6:" + ",".join(f"[{host}]:{port}" for host, port in hosts)

    def options(self) -> tuple[tuple[str, Any], ...]:
        """Returns the options of a gRPC channel."""
        # gRPC checks the certificates of several addresses against one name: by default their list, which none has.
        name = [("grpc.default_authority", self.addresses[0])] if len(self.addresses) > 1 else []
        return (*OPTIONS, ("grpc.enable_http_proxy", int(self.proxy)), *name)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Returns the metadata of a call."""
        return self.token.metadata()

    def cause(self, details: str) -> str:
        """Returns why there is no connection, from gRPC's words."""
        causes = {
            "WRONG_VERSION_NUMBER": "the server does not use TLS",
            "CERTIFICATE_VERIFY_FAILED": "the server's certificate is not of an authority that this client trusts",
            "Socket closed": "the server may ask for a client certificate" if self.tls else "the server may use TLS",
        }
        cause = next((cause for sign, cause in causes.items() if sign in details), None)
        return f"{cause}: {details}" if cause else details

    def tried(self) -> str:
        """Returns how the service is sought, for an error."""
        how = ["TLS" if self.tls else "no TLS"]
        if name := next((name for name in PROXIES if os.environ.get(name)), None):
            how.append(f"through {name}={os.environ[name]}" if self.proxy else f"{name} is set and ignored")
        return f"{','.join(self.addresses)} ({', '.join(how)})"


def _host_and_port(address: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]:
    host, _, port = address.rpartition(":")
    try:
        return ipaddress.ip_address("127.0.0.1" if host == "localhost" else host.strip("[]")), int(port)
    except ValueError:
        # Looking up several names takes time that no deadline bounds.
        raise invalid(
            "target", repr(address), "must be IP address:port if there are several (or one dns:///name:port)"
        ) from None


def _read(field: str, path: str | os.PathLike[str] | None) -> bytes | None:
    if path is None:
        return None
    with open(path, "rb") as file:
        content = file.read()
    if b"-----BEGIN " not in content:  # gRPC would say so only after the timeout of the first call, without the file
        raise invalid(field, repr(os.fspath(path)), "must be a PEM file")
    return content
