"""The server's certificate, for gRPC and for /metrics. Files that are replaced are used from the next connection on."""

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

log = logging.getLogger(__name__)


@dataclass
class Certificates:
    """PEM files. client_ca: the authorities whose certificates clients must have; None: clients need none."""

    cert: Path
    key: Path
    client_ca: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Returns the context of a TLS server. It asks for a client's certificate if there is a `client_ca`.

        Raises OSError or ValueError with the setting, the file and the cause.
        """
        _check("tls_cert", self.cert, "CERTIFICATE-----")
        _check("tls_key", self.key, "PRIVATE KEY-----")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self.cert, self.key, password=lambda: "")  # else OpenSSL asks at the terminal
        except (OSError, ValueError) as error:  # an SSLError is an OSError
            fits = getattr(error, "reason", "") != "KEY_VALUES_MISMATCH"
            cause = str(error) if fits else "the key does not belong to the certificate"
            raise ValueError(f"tls_cert = '{self.cert}', tls_key = '{self.key}': {cause}") from error
        if self.client_ca is not None:
            _check("tls_client_ca", self.client_ca, "CERTIFICATE-----")
            try:
                context.load_verify_locations(self.client_ca)
            except OSError as error:
                raise ValueError(f"tls_client_ca = '{self.client_ca}': {error}") from error
            context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def credentials(self) -> grpc.ServerCredentials:
        """Returns the credentials of a gRPC server. Raises OSError or ValueError as `context` does."""
        first, used = self._configuration(), self._content()

        def newer() -> Any:
            """Returns the certificate for a new connection; None: the one before."""
            nonlocal used
            try:
                if (content := self._content()) == used:
                    return None
                used = content
                configuration = self._configuration()
            except (OSError, ValueError) as error:  # as when only one of the files is replaced yet
                log.warning("the certificate before stays in use: %s", error)
                return None
            log.info("certificate read again from %s", self.cert)
            return configuration

        return grpc.dynamic_ssl_server_credentials(
            first, newer, require_client_authentication=self.client_ca is not None
        )

    def _configuration(self) -> Any:
        self.context()  # gRPC itself does not say what is wrong
        key, cert, authorities = self._content()
        return grpc.ssl_server_certificate_configuration([(key, cert)], authorities)

    def _content(self) -> tuple[bytes, bytes, bytes | None]:
        authorities = None if self.client_ca is None else self.client_ca.read_bytes()
        return self.key.read_bytes(), self.cert.read_bytes(), authorities


def _check(setting: str, path: Path, mark: str) -> None:
    """Raises OSError or ValueError if a file cannot be read or is not of the kind that the setting names."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise OSError(f"{setting} = '{path}': {error.strerror}") from error
    if mark.encode() not in content:
        raise ValueError(f"{setting} = '{path}': must have a PEM block that ends with {mark}")
