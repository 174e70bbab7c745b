"""Who may do what: tokens, roles, names, and where an identity stands."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from bots.v1 import task_selection_pb2 as pb
from bots.v1.task_selection_pb2_grpc import TaskSelectionServiceStub
from bots_server.api.callers import Caller, Callers, hashed, parse
from bots_server.api.methods import METHODS, SERVICE
from bots_server.errors import BadToken
from bots_server.telemetry.logs import JsonFormatter
from tests.api.callers import bearer, caller, write
from tests.api.service import SECONDS, Service, reason_of, serving

TLS = Path(__file__).parents[1] / "client/tls"  # a certificate of localhost, signed by itself
WHO = {
    "root": "ops admin *",
    "alice": "alice train team-a-*,shared",
    "bob": "bob train team-b-*",
    "carol": "carol admin team-a-*",
    "grafana": "grafana read *",
}


EVENT_KINDS = [field.name for field in pb.Event.DESCRIPTOR.oneofs_by_name["kind"].fields]


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """The server's tokens file."""
    return write(tmp_path / "tokens", WHO)


@pytest.fixture
def guarded(redis_url: str, tokens: Path) -> Iterator[Service]:
    """A server with a tokens file."""
    with serving(redis_url, tokens_file=tokens) as service:
        yield service


@pytest.fixture
def admin(guarded: Service) -> Iterator[Service]:
    """The same as an admin meets it: datasets of both teams, each with a run `policy`."""
    with caller(guarded, "root") as service:
        for name in ("team-a-maths", "team-b-code", "shared"):
            service.dataset(name, 20)
            service.create(name, "policy")
        yield service


def refused(service: Service, method: MethodDescriptor, request: Any = None) -> grpc.RpcError:
    """Returns the error of a call."""
    request = GetMessageClass(method.input_type)() if request is None else request
    answer: Any = getattr(service.stub, method.name)

    def call() -> None:
        if method.client_streaming:
            answer(iter([request]), timeout=SECONDS)
        elif method.server_streaming:
            list(answer(request, timeout=SECONDS))
        else:
            answer(request, timeout=SECONDS)

    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value


# ---------------------------------------------------------------------------------------------------- roles


def test_every_method_has_a_role() -> None:
    """The option is stated for each method of the descriptor, and the methods are those that the server knows."""
    roles = {method.name: method.GetOptions().Extensions[pb.role] for method in SERVICE.methods}
    assert pb.ROLE_UNSPECIFIED not in roles.values()
    assert {method.name for path, method in METHODS.items() if SERVICE.full_name in path} == set(roles)
    assert {name for name, role in roles.items() if role == pb.ROLE_ADMIN} >= {"DeleteDataset", "DeleteRun"}


@pytest.mark.parametrize("method", list(SERVICE.methods), ids=lambda method: method.name)
def test_a_role_below_the_methods_is_refused(guarded: Service, tokens: Path, method: MethodDescriptor) -> None:
    """A caller with the role below is refused before its request is read; below read is a caller without a token."""
    below = {pb.ROLE_READ: "nobody", pb.ROLE_TRAIN: "grafana", pb.ROLE_ADMIN: "alice"}
    role = method.GetOptions().Extensions[pb.role]
    with caller(guarded, below[role]) as service:
        error = refused(service, method)
    assert isinstance(error, grpc.Call)
    if role == pb.ROLE_READ:
        assert (error.code(), reason_of(error)) == (grpc.StatusCode.UNAUTHENTICATED, "BAD_TOKEN")
    else:
        assert (error.code(), reason_of(error)) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_TOO_LOW")
        had, needed = ("read", "train") if role == pb.ROLE_TRAIN else ("train", "admin")
        assert (error.details() or "").startswith(f"role: got '{had}', which ")
        assert (error.details() or "").endswith(f"must be '{needed}' or higher")


def test_each_role_may_do_its_work(admin: Service, guarded: Service) -> None:
    """A trainer creates, selects, reports and takes that back; a dashboard reads; an admin deletes."""
    with caller(guarded, "alice") as alice:
        alice.dataset("team-a-more", 10)
        run = alice.create("team-a-more", "policy")
        run.report(run.select(4).tasks, [1, 2, 3, 4])
        run.undo(1)
        run.restore(version=1)
    with caller(guarded, "grafana") as grafana:
        assert grafana.run("team-a-more", "policy").summary().updates == 1
    admin.run("team-a-more", "policy").delete()


# ---------------------------------------------------------------------------------------------------- names


def naming(method: MethodDescriptor, dataset: str) -> Any:
    """Returns a request about a dataset; None: the method is about none that exists."""
    request: Any = GetMessageClass(method.input_type)()
    if "run" in method.input_type.fields_by_name:
        request.run.dataset, request.run.name = dataset, "policy"
    elif "dataset" in method.input_type.fields_by_name:
        request.dataset = dataset
        if method.name == "CreateRun":
            request.name = "new"
    elif method.name in ("GetDataset", "DeleteDataset"):
        request.name = dataset
    else:
        assert method.name in ("ListDatasets", "CreateDataset", "GetServer"), "names no dataset"
        return None
    return request


@pytest.mark.parametrize("method", list(SERVICE.methods), ids=lambda method: method.name)
def test_what_one_may_not_see_does_not_exist(admin: Service, guarded: Service, method: MethodDescriptor) -> None:
    """The answer about another team's dataset is the answer about a dataset that does not exist."""
    if naming(method, "x") is None:
        return
    with caller(guarded, "carol") as service:
        hidden, absent = (refused(service, method, naming(method, name)) for name in ("team-b-code", "team-a-none"))
    for error in (hidden, absent):
        assert isinstance(error, grpc.Call)
        assert (error.code(), reason_of(error)) == (grpc.StatusCode.NOT_FOUND, "DATASET_NOT_FOUND")
    assert str(hidden.details()).replace("team-b-code", "team-a-none") == absent.details()


def test_fork_from_a_dataset_that_one_may_not_see(admin: Service, guarded: Service) -> None:
    """It does not exist either."""
    fork = pb.ForkPoint(dataset="team-b-code", run="policy")
    with caller(guarded, "alice") as alice, pytest.raises(grpc.RpcError) as error:
        alice.create("team-a-maths", "copy", fork_from=fork)
    assert reason_of(error.value) == "DATASET_NOT_FOUND"


def test_lists_show_what_one_may_see(admin: Service, guarded: Service) -> None:
    """Also page by page, and no page token names a dataset that one may not see."""

    def listed(service: Service) -> list[str]:
        names, token = [], ""
        while True:
            request = pb.ListDatasetsRequest(page_size=1, page_token=token)
            page = service.stub.ListDatasets(request, timeout=SECONDS)
            names += [dataset.name for dataset in page.datasets]
            token = page.next_page_token
            if not token:
                return names
            assert token.endswith(names[-1])  # no name that one may not see

    with caller(guarded, "alice") as alice, caller(guarded, "bob") as bob:
        assert listed(alice) == ["shared", "team-a-maths"]
        assert listed(bob) == ["team-b-code"]
    assert listed(admin) == ["shared", "team-a-maths", "team-b-code"]


def test_a_new_dataset_must_match_a_pattern(admin: Service, guarded: Service) -> None:
    """Whether the name is taken makes no difference."""
    with caller(guarded, "alice") as alice:
        for name in ("team-b-code", "team-b-new"):
            with pytest.raises(grpc.RpcError) as error:
                alice.dataset(name, 20)
            assert isinstance(error.value, grpc.Call)
            assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert reason_of(error.value) == "NAME_NOT_ALLOWED"
            rule = f"header.name: got {name!r}, must match team-a-*,shared, which 'alice' may use"
            assert error.value.details() == rule


# ---------------------------------------------------------------------------------------------------- tokens


def known(service: Service, token: str) -> bool:
    """Returns whether a token is valid."""
    try:
        service.stub.GetServer(pb.GetServerRequest(), timeout=SECONDS, metadata=bearer(token))
    except grpc.RpcError as error:
        return reason_of(error) != "BAD_TOKEN"
    return True


def test_tokens_are_read_again_when_the_file_changes(
    guarded: Service, tokens: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two tokens of one identity are valid at once; content that is wrong keeps the callers and is logged."""
    assert known(guarded, "alice")
    assert not known(guarded, "new")
    write(tokens, WHO | {"new": WHO["alice"]})
    guarded.wait_until(lambda: known(guarded, "new"))
    assert known(guarded, "alice")

    tokens.write_text("alice trainer * nonsense\n")
    guarded.wait_until(lambda: "role: got 'trainer', must be read, train, admin" in caplog.text)
    assert f"{tokens}: line 1: role" in caplog.text
    assert known(guarded, "new")
    tokens.unlink()
    guarded.wait_until(lambda: "No such file" in caplog.text)
    assert known(guarded, "new")

    write(tokens, {"new": WHO["alice"]})
    guarded.wait_until(lambda: not known(guarded, "alice"))
    assert known(guarded, "new")


def test_a_stream_ends_when_its_token_is_taken_back(admin: Service, guarded: Service, tokens: Path) -> None:
    """In place of its next answer."""
    with caller(guarded, "grafana") as grafana:
        request = pb.WatchRunRequest(run=pb.RunRef(dataset="shared", name="policy"), interval_seconds=0.1)
        watch = grafana.stub.WatchRun(request, timeout=SECONDS)
        next(watch)
        write(tokens, {token: words for token, words in WHO.items() if token != "grafana"})
        guarded.wait_until(lambda: not known(guarded, "grafana"))
        admin.run("shared", "policy").report([1], [2])
        with pytest.raises(grpc.RpcError) as error:
            next(watch)
        assert reason_of(error.value) == "BAD_TOKEN"


@pytest.mark.parametrize(
    ("metadata", "valid"),
    [
        ((), False),
        (bearer(""), False),
        (bearer("alice "), False),
        (bearer("Alice"), False),
        (bearer(hashed("alice")), False),
        ((("authorization", "alice"),), False),
        ((("authorization", "Basic alice"),), False),
        (bearer("alice") + bearer("alice"), False),
        (bearer("alice"), True),
        ((("authorization", "bearer alice"),), True),
    ],
)
def test_a_token_is_a_bearer_token(tokens: Path, metadata: tuple[tuple[str, str], ...], valid: bool) -> None:
    """The scheme's case does not matter; two headers are refused, and so is the hash that the file has."""
    callers = Callers(tokens)
    if valid:
        assert callers.by_token(metadata) == Caller("alice", pb.ROLE_TRAIN, ("team-a-*", "shared"))
    else:
        with pytest.raises(BadToken):
            callers.by_token(metadata)


LINE = f"alice train team-a-* {hashed('x')}"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "must have a line"),
        ("# nothing\n\n", "must have a line"),
        ("s3cret\n", "line 1: line: got 1 words, must be `identity role datasets credential`"),
        (f"{LINE}\n# more\nbob train\n", "line 3: line: got 2 words"),
        (f"alice writer * {hashed('x')}", "line 1: role: got 'writer', must be read, train, admin"),
        (f"alice train A* {hashed('x')}", "line 1: datasets: got 'A*', must be patterns of names"),
        (f"alice train a,,b {hashed('x')}", "line 1: datasets: got 'a,,b', must be patterns of names"),
        (f"älice train * {hashed('x')}", "line 1: identity: must be at most 64 printable ASCII"),
        ("alice train * s3cret", "line 1: credential: must be sha256:<64 hexadecimal digits> or cert:<name>"),
        (f"{LINE}\n{LINE}", "line 2: credential: must differ from that of an earlier line"),
    ],
)
def test_a_wrong_tokens_file_stops_the_start(tmp_path: Path, text: str, complaint: str) -> None:
    """The error has file, line and rule, and never what stands in place of a credential."""
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(ValueError, match="BOTS_TOKENS_FILE") as error:
        Callers(path)
    assert str(error.value).startswith(f"BOTS_TOKENS_FILE: {path}: {complaint}")
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("content", [b"\xff\xfea\x00", None], ids=["UTF-16", "missing"])
def test_an_unreadable_tokens_file_stops_the_start(tmp_path: Path, content: bytes | None) -> None:
    """The error names the file."""
    path = tmp_path / "tokens"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=f"BOTS_TOKENS_FILE: {path}: (must be UTF-8|No such file or directory)"):
        Callers(path)


def test_comments_blanks_and_a_byte_order_mark_are_no_content(tmp_path: Path) -> None:
    """As editors and people leave them."""
    path = tmp_path / "tokens"
    path.write_bytes(f"\ufeff# callers\r\n\r\n  alice\ttrain  *  {hashed('x')}  # laptop\r\n".encode())
    assert Callers(path).by_token(bearer("x")) == Caller("alice", pb.ROLE_TRAIN)


class Connection:
    """A call's context, over a connection with a verified certificate."""

    def __init__(self, **properties: list[bytes]) -> None:
        self._properties = properties

    def auth_context(self) -> dict[str, list[bytes]]:
        return self._properties


def test_a_certificate_names_its_caller() -> None:
    """By its common name or by one of its alternative names; only calls without a token are asked for it."""
    callers = Callers(None)
    callers._path, callers._by_credential = Path("x"), parse(f"a train * cert:a.svc\nb read * cert:b.svc\n{LINE}")
    assert callers.by_token(()) is None
    assert callers.by_token(bearer("x")) is not None
    one: Any = Connection(x509_common_name=[b"a.svc"])
    assert callers.by_certificate(one).identity == "a"
    other: Any = Connection(x509_common_name=[b"node"], x509_subject_alternative_name=[b"node", b"b.svc"])
    assert callers.by_certificate(other).identity == "b"
    for unknown in (Connection(x509_common_name=[b"c.svc"]), Connection()):
        with pytest.raises(BadToken):
            callers.by_certificate(unknown)  # type: ignore[arg-type]


def test_a_certificate_admits_its_holder(redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Over mutual TLS, without a token; a name that is not in the file is refused."""
    certificate, key = TLS / "certificate.pem", TLS / "key.pem"
    tokens = tmp_path / "tokens"
    tokens.write_text("nodes read * cert:localhost\n")
    files = {"tls_cert": certificate, "tls_key": key, "tls_client_ca": certificate, "tokens_file": tokens}
    with serving(redis_url, host="localhost", **files) as service, caplog.at_level(logging.INFO):
        authority, private, chain = certificate.read_bytes(), key.read_bytes(), certificate.read_bytes()
        credentials = grpc.ssl_channel_credentials(authority, private, chain)
        with grpc.secure_channel(f"localhost:{service.server.port}", credentials) as channel:
            stub = TaskSelectionServiceStub(channel)
            stub.GetServer(pb.GetServerRequest(), timeout=SECONDS)
            with pytest.raises(grpc.RpcError) as low:
                stub.DeleteRun(pb.DeleteRunRequest(), timeout=SECONDS)
            assert reason_of(low.value) == "ROLE_TOO_LOW"
            tokens.write_text("nodes read * cert:other\n")
            service.wait_until(lambda: "read again" in caplog.text)
            with pytest.raises(grpc.RpcError) as unknown:
                stub.GetServer(pb.GetServerRequest(), timeout=SECONDS)
            assert reason_of(unknown.value) == "BAD_TOKEN"
    identities = [record.fields.get("identity") for record in caplog.records if hasattr(record, "fields")]
    assert identities == ["nodes", "nodes", None]


def test_metrics_are_for_callers_of_every_dataset(tokens: Path) -> None:
    """They name all datasets."""
    callers = Callers(tokens)
    headers = ["Bearer grafana", "Bearer root", "Bearer alice", "Bearer nobody", None]
    assert [callers.may_scrape(header) for header in headers] == [True, True, False, False, False]
    assert Callers(None).may_scrape(None)


# ---------------------------------------------------------------------------------------------------- identity


def test_the_identity_stands_in_the_history_and_in_the_log(
    admin: Service, guarded: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the job claims to be. The line names the peer, and no line has a token."""
    with caller(guarded, "alice") as alice, caplog.at_level(logging.INFO, "bots_server"):
        run = alice.run("shared", "policy")
        run.report([1], [2], job="bob")
        run.update(target=0.4)
        run.restore(version=0)
        run.stub.RetireTasks(pb.RetireTasksRequest(run=run.ref, tasks=[1]), timeout=SECONDS)
        run.report([2], [1])
        undone = pb.UndoReportRequest(run=run.ref, version=5)
        admin.stub.UndoReport(undone, timeout=SECONDS)
        events = run.events().events
        assert {event.WhichOneof("kind") for event in events} == set(EVENT_KINDS)
        assert [event.identity for event in events] == ["alice"] * 5 + ["ops"]
        with pytest.raises(grpc.RpcError):
            alice.run("team-b-code", "policy").select(1)
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    reported = next(line for line in lines if line.get("method") == "ReportOutcomes")
    assert (reported["identity"], reported["job"]) == ("alice", "bob")
    assert reported["peer"].startswith("ipv4:127.0.0.1:")
    assert not any(token in caplog.text for token in ("Bearer", hashed("alice")))


def test_leases_belong_to_a_job_of_an_identity(admin: Service, guarded: Service) -> None:
    """Another identity's job of the same name ends none of them; an admin sees and ends those of both."""
    with caller(guarded, "alice") as alice, caller(guarded, "root") as ops:
        for service, start in ((alice, "first"), (ops, "first"), (ops, "second")):
            service.run("shared", "policy").select(3, job="train", incarnation=start, lease_seconds=600)
    ref = admin.run("shared", "policy").ref
    leases = admin.stub.ListLeases(pb.ListLeasesRequest(run=ref), timeout=SECONDS).leases
    held = sorted((lease.identity, lease.job, lease.tasks) for lease in leases)
    assert held == [("alice", "train", 3), ("ops", "train", 3)]
    assert admin.stub.EndLeases(pb.EndLeasesRequest(run=ref, job="other"), timeout=SECONDS).ended == 0
    assert admin.stub.EndLeases(pb.EndLeasesRequest(run=ref, job="train"), timeout=SECONDS).ended == 6


def test_without_a_tokens_file_there_is_no_identity(service: Service) -> None:
    """And everybody may do everything."""
    service.dataset("letters", 26)
    run = service.create("letters", "policy")
    run.report([1], [2], job="me")
    (event,) = run.events().events
    assert (event.identity, event.job) == ("", "me")
    run.delete()
