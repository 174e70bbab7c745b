"""Starts that cannot succeed end once, with one line; starts that can wait; and stops that always end."""

import contextlib
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import redis
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import SecretStr

from bots.v1 import task_selection_pb2 as pb
from bots.v1.task_selection_pb2_grpc import TaskSelectionServiceStub
from bots_server.process import address, main, server, workers
from bots_server.process.settings import Settings
from bots_server.process.tls import Certificates
from bots_server.process.workers import WorkerFailed, supervise
from bots_server.store import Level, Refused
from tests.api import works
from tests.api.service import SECONDS, dataset_parts, serving
from tests.api.test_process import started, tasks_policy, wait_until, wait_until_gone
from tests.valkey import HOST, free_port, valkey

ROOT = Path(__file__).parents[2]
SIGNED = ROOT / "tests/client/tls"  # a certificate of localhost, signed by itself
OTHER = ROOT / "deploy/secrets"  # a certificate of localhost and others, and its authority


@contextlib.contextmanager
def listening(shared: bool = False) -> Iterator[int]:
    """Yields a port that is taken."""
    with address.bind(HOST, 0, "", shared=shared) as taken:
        taken.listen()
        yield taken.getsockname()[1]


def said(*runs: list[str]) -> list[str]:
    """Returns what the server says to each of these flags; each run must end by itself with status 1."""
    # One interpreter, because a fresh one for each run would take seconds. On stdout, where no line of the log can come
    # between the parts that are printed.
    program = f"""
import sys
from bots_server.process.main import main
for flags in {list(runs)!r}:
    sys.argv[1:] = flags
    try:
        main()
    except SystemExit as error:
        print("\\0", error)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    texts = ended.stdout.split("\0 ")
    assert (ended.returncode, len(texts)) == (0, len(runs) + 1), ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    return texts[1:]


@pytest.mark.parametrize("processes", ["1", "2"])
def test_start_that_cannot_succeed_ends_once_with_one_line(processes: str, tmp_path: Path, redis_url: str) -> None:
    """A missing or empty file, and a port that another server has, end the start with a line that names it."""
    (tmp_path / "empty").touch()
    (tmp_path / "url").write_text("http://not-redis\n")
    common = ["--processes", processes, "--port", "0", "--redis", redis_url]
    pair = ["--tls-cert", str(SIGNED / "certificate.pem"), "--tls-key"]
    with listening() as single, listening(shared=True) as shared:
        texts = said(
            [*common, "--tokens-file", str(tmp_path / "nothing")],
            [*common, "--tokens-file", str(tmp_path / "empty")],
            [*common, *pair, str(OTHER / "key.pem")],
            [*common, "--port", str(single)],
            [*common, "--port", str(shared)],
            [*common, "--metrics-port", str(single)],
            ["--port", "0", "--processes", processes, "--redis-file", str(tmp_path / "url")],
            [*common, "--host", "no-such-host.invalid", "--insecure"],
        )
    for text, words in zip(
        texts,
        (
            ["nothing", "No such file"],
            ["empty"],
            ["tls_key", "does not belong to the certificate"],
            [str(single), "--port", "Address already in use"],
            [str(shared), "--port", "Address already in use"],
            [str(single), "--metrics-port", "Address already in use"],
            ["redis", "must be redis://"],
            ["cannot listen on no-such-host.invalid"],
        ),
        strict=True,
    ):
        line = text.splitlines()[0]
        assert line.startswith("bots-server: ")
        assert all(word in line for word in words), line


def test_localhost_is_every_address_that_clients_try(redis_url: str) -> None:
    """A name is bound at each of its addresses; if another server has one of them, the start ends."""
    with serving(redis_url, host="localhost") as service:
        for host in address.resolve("localhost"):
            assert is_serving(address.shown(host, service.server.port))
    port = free_port()
    taken = address.resolve("localhost")[-1]
    with address.bind(taken, port, "") as other:
        other.listen()
        with (
            pytest.raises(OSError, match=r"--host, --port\): Address already in use"),
            serving(redis_url, host="localhost", port=port),
        ):
            pass


def is_serving(target: str) -> bool:
    with grpc.insecure_channel(target) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def test_ipv6_and_unix_sockets_are_addresses(redis_url: str, tmp_path: Path) -> None:
    """IPv6 works with brackets and without; a unix socket is refused while another server listens on it."""
    for host in ("::1", "[::1]"):
        with serving(redis_url, host=host) as service:
            assert is_serving(f"[::1]:{service.server.port}")
    path = f"unix:{tmp_path}/bots.sock"
    with serving(redis_url, host=path):
        assert is_serving(path)
        with pytest.raises(OSError, match="another server does"), serving(redis_url, host=path):
            pass
    with serving(redis_url, host=path):  # the file that was left is no hindrance
        assert is_serving(path)


def settings(url: str, **others: object) -> Settings:
    return Settings.model_validate({"redis": SecretStr(url), "redis_timeout_seconds": 1.0, **others})


def test_start_waits_for_redis_and_ends_if_it_refuses(caplog: pytest.LogCaptureFixture) -> None:
    """Redis that is not there yet is waited for, said once; a wrong login or database ends the start."""
    port = free_port()
    stopping, found = threading.Event(), []
    chosen = settings(f"redis://{HOST}:{port}")
    waiting = threading.Thread(target=lambda: found.append(main.wait_for_redis(chosen, stopping)))
    waiting.start()
    wait_until(lambda: "waiting for Redis" in caplog.text)
    with valkey(port=port):
        waiting.join(SECONDS)
        assert found[0] is not None
        assert found[0].level is Level.MEMORY
        with pytest.raises(Refused, match="has no database"):
            main.wait_for_redis(settings(f"redis://{HOST}:{port}/99999"), stopping)
    assert caplog.text.count("waiting for Redis: Redis cannot be reached") == 1
    with valkey("--requirepass", "s3cret", port=port):
        for login in ("", ":wrong@"):
            with pytest.raises(Refused, match="refuses the login of the URL"):
                main.wait_for_redis(settings(f"redis://{login}{HOST}:{port}"), stopping)
    stopping.set()
    assert main.wait_for_redis(chosen, stopping) is None


def test_node_of_a_cluster_is_refused_as_a_single_server() -> None:
    """It would serve, and then fail for the keys of other nodes: the start says which URL is meant."""
    meant = pytest.raises(ValueError, match=r"must be a redis\+cluster:// URL")
    with valkey("--cluster-enabled", "yes") as node, meant:
        main.wait_for_redis(settings(node.url), threading.Event())


def test_eviction_policy_is_looked_at_again(caplog: pytest.LogCaptureFixture) -> None:
    """A policy that was changed under a running server is warned of, once."""
    stopping = threading.Event()
    with valkey("--appendonly", "yes") as server, server.client() as admin:
        watching = threading.Thread(target=main.watch_risks, args=(settings(server.url), stopping, 0.02))
        watching.start()
        try:
            admin.config_set("maxmemory-policy", "allkeys-lru")
            wait_until(lambda: "maxmemory-policy is allkeys-lru" in caplog.text)
            before = admin.info("stats")["total_commands_processed"]
            wait_until(lambda: admin.info("stats")["total_commands_processed"] > before + 20)
        finally:
            stopping.set()
            watching.join()
    assert caplog.text.count("maxmemory-policy is allkeys-lru") == 1


@pytest.mark.parametrize(
    ("cert", "key", "cause"),
    [
        (SIGNED / "certificate.pem", OTHER / "key.pem", "the key does not belong to the certificate"),
        (SIGNED / "key.pem", SIGNED / "certificate.pem", "tls_cert = .*key.pem.*must have a PEM block"),
        (SIGNED / "nothing", SIGNED / "key.pem", "tls_cert = .*nothing.*No such file"),
        (SIGNED / "certificate.pem", ROOT / "README.md", "tls_key = .*README.md.*must have a PEM block"),
    ],
)
def test_certificate_that_does_not_fit_is_named(cert: Path, key: Path, cause: str) -> None:
    """A key that does not fit, files that were swapped, missing or no PEM are told by setting and file."""
    with pytest.raises((OSError, ValueError), match=cause):
        Certificates(cert, key).credentials()


def test_certificate_is_read_again_when_it_changes(
    redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """New connections get the certificate that was put in place; half of a pair changes nothing and is said."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"

    def put(source: Path, target: Path) -> None:
        (tmp_path / "new").write_bytes(source.read_bytes())
        (tmp_path / "new").replace(target)

    put(SIGNED / "certificate.pem", cert)
    put(SIGNED / "key.pem", key)
    with serving(redis_url, host="localhost", tls_cert=cert, tls_key=key) as service:
        port = service.server.port
        assert trusted(port, SIGNED / "certificate.pem")
        put(OTHER / "cert.pem", cert)
        assert trusted(port, SIGNED / "certificate.pem")
        assert "the certificate before stays in use" in caplog.text
        put(OTHER / "key.pem", key)
        assert trusted(port, OTHER / "ca.pem")
        assert not trusted(port, SIGNED / "certificate.pem")


def trusted(port: int, authority: Path, client: bool = False) -> bool:
    """Returns whether a new connection of a client that trusts an authority is answered."""
    pair = ((SIGNED / "key.pem").read_bytes(), (SIGNED / "certificate.pem").read_bytes()) if client else (None, None)
    credentials = grpc.ssl_channel_credentials(authority.read_bytes(), *pair)
    options = (("grpc.use_local_subchannel_pool", 1),)
    with grpc.secure_channel(f"localhost:{port}", credentials, options) as channel:
        try:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        except grpc.RpcError:
            return False
    return True


def test_client_certificate_is_asked_for(redis_url: str) -> None:
    """With `tls_client_ca` a client without a certificate of that authority gets no connection."""
    certificate = SIGNED / "certificate.pem"
    files = {"tls_cert": certificate, "tls_key": SIGNED / "key.pem", "tls_client_ca": certificate}
    with serving(redis_url, host="localhost", **files) as service:
        assert trusted(service.server.port, certificate, client=True)
        assert not trusted(service.server.port, certificate)


def test_threads_that_the_system_refuses_stop_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of threads that a server would meet under load ends its start; no thread is left waiting."""
    threads, start = iter(range(3)), threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if next(threads, None) is None:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    with pytest.raises(OSError, match=r"cannot start 5 threads \(--threads, --max-long-calls\): can't start"):
        server.started_pool(5)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_second_interrupt_ends_the_server_at_once(processes: str, tmp_path: Path) -> None:
    """A call in progress holds the first Ctrl-C for the time of the drain; the second ends all processes."""
    with (
        started("--data-dir", str(tmp_path), "--processes", processes) as (process, target),
        grpc.insecure_channel(target) as channel,
    ):
        held = threading.Event()
        stub = TaskSelectionServiceStub(channel)

        def parts() -> Iterator[pb.CreateDatasetRequest]:
            yield pb.CreateDatasetRequest(header=dataset_parts("tasks", 100)[0])
            held.wait(SECONDS)

        upload = stub.CreateDataset.future(parts(), timeout=SECONDS)
        stub.ListDatasets(pb.ListDatasetsRequest(), timeout=SECONDS)  # on the same connection: the upload is there
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert any("draining" in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 1
        held.set()
        assert upload.exception(SECONDS) is not None
    wait_until_gone(tmp_path)


def test_worker_that_ends_before_it_served_ends_the_parent() -> None:
    """Nothing is started again if the first start fails."""
    with pytest.raises(WorkerFailed, match="worker 0 ended with status 7 before it served"):
        supervise(1, works.fail, {}, threading.Event(), pytest.fail)


def test_silent_worker_is_killed_and_started_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that hangs is replaced while the parent runs, and killed when it ends."""
    for name, seconds in (("SILENT_SECONDS", 0.2), ("RESTART_SECONDS", 0.0), ("END_SECONDS", 0.2)):
        monkeypatch.setattr(workers, name, seconds)
    stopping, served = threading.Event(), threading.Event()
    running: dict[str, workers.Worker] = {}
    supervising = threading.Thread(target=supervise, args=(1, works.hang, running, stopping, served.set))
    supervising.start()
    try:
        assert served.wait(60)
        first = running["0"].process.pid
        wait_until(lambda: running["0"].process.pid != first)
    finally:
        stopping.set()
        supervising.join(60)
    assert not supervising.is_alive()
    assert "worker 0 was silent" in caplog.text
    assert not running["0"].process.is_alive()


def test_upload_that_the_stop_cuts_is_not_blamed_on_the_client(redis_url: str) -> None:
    """An upload under way when the grace is over counts as CANCELLED, and leaves nothing behind."""
    with serving(redis_url) as service:
        held, sent = threading.Event(), threading.Event()

        def parts() -> Iterator[pb.CreateDatasetRequest]:
            header, chunk = dataset_parts("tasks", 100)
            header.size = 200
            yield pb.CreateDatasetRequest(header=header)
            yield pb.CreateDatasetRequest(chunk=chunk)
            sent.set()
            held.wait(SECONDS)

        upload = service.stub.CreateDataset.future(parts(), timeout=SECONDS)
        assert sent.wait(SECONDS)
        service.wait_until(lambda: any(b"columns" in key for key in service.state()))
        service.server.stop(0.1)
        held.set()
        assert upload.exception(SECONDS) is not None
        service.wait_until(lambda: service.sample("bots_rpcs_total", method="other", code="CANCELLED") == 1)
        assert not service.sample("bots_rpcs_total", method="other", code="INVALID_ARGUMENT")


def test_stop_is_bounded_after_a_broken_reflection_call(redis_url: str) -> None:
    """A reflection call whose first message cannot be decoded does not hold up the stop."""
    with serving(redis_url) as service, grpc.insecure_channel(service.address) as channel:
        reflect: Any = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        with pytest.raises(grpc.RpcError):
            next(reflect(iter([b"\xff\xff"]), timeout=SECONDS))
        stopped = threading.Thread(target=service.server.stop, args=(0.1,), daemon=True)
        stopped.start()
        stopped.join(SECONDS / 2)
        assert not stopped.is_alive()


def test_private_data_is_readable_by_its_user_only(tmp_path: Path) -> None:
    """The directory of the private Valkey has mode 0700, its files 0600."""
    data = tmp_path / "data"
    with started("--data-dir", str(data)):
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in data.rglob("*") if path.is_file()}
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
        assert any(name.endswith(".aof") for name in modes)
        assert {mode for name, mode in modes.items() if name not in ("lock", "valkey.pid", "valkey.version")} == {0o600}


def test_a_redis_url_is_read_from_a_file(tmp_path: Path, redis_url: str) -> None:
    """`--redis-file` has the URL, with a line break at its end; nothing of it is in the command line."""
    (tmp_path / "url").write_text(f"{redis_url}\n")
    with started("--redis-file", str(tmp_path / "url")) as (process, target), tasks_policy(target) as run:
        assert run.report([1], [1]).version == 1
        assert redis_url not in Path(f"/proc/{process.pid}/cmdline").read_text()


def test_fsck_reads_the_redis_and_the_prefix_of_the_server(tmp_path: Path, redis_url: str) -> None:
    """`bots-server fsck` looks at the keys that a server with the same flags uses, and starts no private Valkey."""
    (tmp_path / "url").write_text(f"{redis_url}\n")
    flags = ["--redis-file", str(tmp_path / "url"), "--key-prefix", "team:"]
    with started(*flags) as (_, target), tasks_policy(target) as run:
        run.report([1], [1])
    with contextlib.closing(redis.Redis.from_url(redis_url)) as client:
        client.delete("team:bots:datasets")
        (strata,) = client.keys("team:bots:{tasks}:*:strata")
        client.delete(strata)
    command = [sys.executable, "-m", "bots_server", "fsck", *flags, "--data-dir", str(tmp_path / "data")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, "dataset tasks" in ended.stdout) == (1, True), ended.stdout + ended.stderr
    assert not (tmp_path / "data").exists()


def test_commands_have_their_own_help() -> None:
    """`--help` names the other commands, and `fsck --help` is about fsck."""
    command = [sys.executable, "-m", "bots_server"]
    for arguments, words in (
        (["--help"], ["fsck", "token create"]),
        (["fsck", "--help"], ["--repair", "--key-prefix"]),
    ):
        ended = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60)
        assert ended.returncode == 0
        assert all(word in ended.stdout for word in words), ended.stdout
    assert "--threads" not in ended.stdout


def test_addresses_are_shown_as_clients_write_them() -> None:
    """Addresses are shown as clients write them."""
    assert address.shown("[::1]", 1) == address.shown("::1", 1) == "[::1]:1"
    assert address.shown("unix:/x", 1) == "unix:/x"
    assert address.shown("localhost", 1) == "localhost:1"
