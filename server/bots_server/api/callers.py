"""Who calls: the tokens file, and the caller of the call in progress.

A line of the file is `identity role datasets credential`, separated by blanks; `#` begins a comment:

    alice    train  team-a-*,shared  sha256:9f86d081...   a token, by its SHA-256 (`bots-server token create`)
    grafana  read   *                sha256:60303ae2...
    ops      admin  *                cert:ops.example.org  a name in the client's certificate (mutual TLS)

`datasets` is a list of patterns of dataset names. An identity may have several lines, so that a new token is valid
beside the old one. A token has 256 random bits and cannot be guessed, so its hash needs no salt and no slow function,
whose cost every call would pay.
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc

from bots.v1 import task_selection_pb2 as pb
from bots_server.errors import BadToken, RoleTooLow

ROLES = {"read": pb.ROLE_READ, "train": pb.ROLE_TRAIN, "admin": pb.ROLE_ADMIN}
CERTIFICATE_NAMES = ("x509_common_name", "x509_subject_alternative_name")  # properties of gRPC's authentication context

_IDENTITY = re.compile(r'[!"$-~]{1,64}')  # printable ASCII without #
_PATTERNS = re.compile(r"[a-z0-9._*?\[\]!,-]+")
_CREDENTIAL = re.compile(r'sha256:[0-9a-f]{64}|cert:[!"$-~]+')

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Caller:
    """A caller that is known.

    identity:  empty if the server has no tokens file
    role:      a value of `bots.v1.Role`; it includes the ones below
    datasets:  patterns of the names of the datasets that exist for the caller
    """

    identity: str = ""
    role: pb.Role.ValueType = pb.ROLE_ADMIN
    datasets: tuple[str, ...] = ("*",)

    def may_see(self, dataset: str) -> bool:
        """Returns whether a dataset of this name may exist for the caller."""
        return any(fnmatchcase(dataset, pattern) for pattern in self.datasets)

    def require(self, role: pb.Role.ValueType) -> None:
        """Raises RoleTooLow if the caller's role does not include the one given."""
        if self.role < role:
            names = {number: name for name, number in ROLES.items()}
            raise RoleTooLow(self.identity, names[self.role], names[role])


ANYBODY = Caller()

_caller: ContextVar[Caller] = ContextVar("caller")


def caller() -> Caller:
    """Returns the caller of the call in progress. Raises LookupError outside of a call."""
    return _caller.get()


@contextmanager
def calling(one: Caller) -> Iterator[None]:
    """Makes `one` the caller for the duration of the block."""
    token = _caller.set(one)
    try:
        yield
    finally:
        _caller.reset(token)


def hashed(token: str) -> str:
    """Returns the credential of a token."""
    return f"sha256:{sha256(token.encode()).hexdigest()}"


def parse_line(words: Sequence[str]) -> tuple[str, Caller]:
    """Returns the credential and the caller of a line. Raises ValueError with the field and the rule.

    The credential is never shown: somebody may have written a token in its place.
    """
    if len(words) != 4:
        raise ValueError(f"line: got {len(words)} words, must be `identity role datasets credential`")
    identity, role, datasets, credential = words
    if not _IDENTITY.fullmatch(identity):
        raise ValueError("identity: must be at most 64 printable ASCII characters without blanks and #")
    if role not in ROLES:
        raise ValueError(f"role: got {role!r}, must be {', '.join(ROLES)}")
    if not _PATTERNS.fullmatch(datasets) or "" in (patterns := datasets.split(",")):
        raise ValueError(f"datasets: got {datasets!r}, must be patterns of names with commas between them")
    if not _CREDENTIAL.fullmatch(credential):
        raise ValueError("credential: must be sha256:<64 hexadecimal digits> or cert:<name>")
    return credential, Caller(identity, ROLES[role], tuple(patterns))


def parse(text: str) -> dict[str, Caller]:
    """Returns the callers of a file by their credentials. Raises ValueError with the number of the line."""
    callers: dict[str, Caller] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not (words := line.partition("#")[0].split()):
            continue
        try:
            credential, one = parse_line(words)
            if credential in callers:
                raise ValueError("credential: must differ from that of an earlier line")
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        callers[credential] = one
    if not callers:
        raise ValueError("must have a line; see bots-server token create")
    return callers


class Callers:
    """The callers of a tokens file. Without a file everybody may do everything.

    Raises ValueError with the file, the line and the rule if the file is wrong.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._content: bytes | None = None
        self._by_credential: dict[str, Caller] = {}
        self._complaint = ""
        if path is not None:
            self._read(path)

    def reload(self) -> None:
        """Reads the file again. A file that is wrong changes nothing and is logged once."""
        if self._path is None:
            return
        try:
            if self._read(self._path):
                log.info("%s: read again, %d credentials", self._path, len(self._by_credential))
            self._complaint = ""
        except ValueError as error:
            if str(error) != self._complaint:
                log.error("%s; the callers stay as they were", error)
            self._complaint = str(error)

    def _read(self, path: Path) -> bool:
        """Reads the file. Returns whether it changed."""
        try:
            content = path.read_bytes()
            if content == self._content:
                return False
            self._by_credential = parse(content.decode("utf-8-sig"))
        except UnicodeDecodeError:
            raise ValueError(f"BOTS_TOKENS_FILE: {path}: must be UTF-8") from None
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise ValueError(f"BOTS_TOKENS_FILE: {path}: {why}") from None
        self._content = content
        return True

    def by_token(self, metadata: Sequence[tuple[str, str | bytes]] | None) -> Caller | None:
        """Returns the caller of a call by its metadata; None: it has no token, so its certificate decides.

        Raises BadToken.
        """
        given = [str(value) for key, value in metadata or () if key == "authorization"]
        if not given and any(credential.startswith("cert:") for credential in self._by_credential):
            return None
        return self._by_header(given)

    def may_scrape(self, authorization: str | None) -> bool:
        """Returns whether the sender of a header may read the metrics, which name every dataset."""
        self.reload()
        try:
            known = self._by_header([] if authorization is None else [authorization])
        except BadToken:
            return False
        return "*" in known.datasets

    def _by_header(self, authorizations: Sequence[str]) -> Caller:
        """Returns the caller of a request by its `authorization` headers. Raises BadToken."""
        if self._path is None:
            return ANYBODY
        scheme, _, token = authorizations[0].partition(" ") if len(authorizations) == 1 else ("", "", "")
        known = self._by_credential.get(hashed(token))
        if scheme.lower() != "bearer" or known is None:
            raise BadToken
        return known

    def by_certificate(self, context: grpc.ServicerContext) -> Caller:
        """Returns the caller of a call by the names in its certificate, which TLS has verified. Raises BadToken."""
        verified: Mapping[str, Sequence[Any]] = context.auth_context()
        names = (name.decode(errors="replace") for key in CERTIFICATE_NAMES for name in verified.get(key, ()))
        known = next(filter(None, (self._by_credential.get(f"cert:{name}") for name in names)), None)
        if known is None:
            raise BadToken
        return known
