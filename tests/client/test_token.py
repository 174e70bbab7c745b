"""The token of a client: checked at the start, read again from its file, and replaced while a trainer runs."""

import asyncio
import logging
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

import bots
from bots import aio
from bots.token import Token
from tests.api.callers import caller, write
from tests.api.service import Service, serving
from tests.client.recorder import Recorder


@pytest.mark.parametrize("text", ["s3cret", "s3cret\n", " s3cret\r\n"])
def test_blanks_around_a_token_are_no_part_of_it(recorder: Recorder, address: str, text: str) -> None:
    """Files end with a line break, and people read them as they are."""
    with bots.Client(address, token=text) as client:
        client.get_dataset("d")
    assert recorder.calls[0].metadata["authorization"] == "Bearer s3cret"


@pytest.mark.parametrize("text", ["", "\n", "two words", "a\nb", "schlüssel", "a\0", "x" * 7169])
def test_a_token_that_grpc_refuses_is_refused_at_once(tmp_path: Path, text: str) -> None:
    """By the constructor, with the rule and without the token; so is what a file holds."""
    rule = rf"got {len(text.strip())} characters, must be printable ASCII characters without blanks, between 1 and 7168"
    with pytest.raises(ValueError, match=f"^token: {rule}$"):
        bots.Client(token=text)
    path = tmp_path / "token"
    path.write_text(text)
    with pytest.raises(bots.InvalidArgumentError, match=f"^token_file '{path}': {rule}$"):
        bots.Client(token_file=path)


def test_a_token_has_one_source(tmp_path: Path) -> None:
    """A text or a file, which must be readable."""
    with pytest.raises(ValueError, match="got both token and token_file, must be one of them"):
        bots.Client(token="a", token_file=tmp_path / "token")
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "token")):
        bots.Client(token_file=tmp_path / "token")


def test_a_token_file_is_read_at_each_call(recorder: Recorder, address: str, tmp_path: Path) -> None:
    """While it is missing or damaged, the last token is sent. A pickle has the path alone."""
    path = tmp_path / "token"
    path.write_text("first\n")
    with bots.Client(address, token_file=path) as client:
        client.get_dataset("d")
        path.write_text("second\n")
        client.get_dataset("d")
        path.write_text("")
        client.get_dataset("d")
        path.unlink()
        client.get_dataset("d")
        path.write_text("third")
        packed = pickle.dumps(client)
        assert not any(text in packed for text in (b"first", b"second", b"third"))
        with pickle.loads(packed) as copy:
            copy.get_dataset("d")
        assert "third" not in repr(client) + repr(vars(client.session.channel.target)) + str(vars(client))
    sent = [call.metadata["authorization"].removeprefix("Bearer ") for call in recorder.calls]
    assert sent == ["first", "second", "second", "second", "third"]


def test_asyncio_reads_the_file_too(recorder: Recorder, address: str, tmp_path: Path) -> None:
    """With the same argument."""
    path = tmp_path / "token"
    path.write_text("first")

    async def call() -> None:
        async with aio.Client(address, token_file=path) as client:
            await client.get_dataset("d")

    asyncio.run(call())
    assert recorder.calls[0].metadata["authorization"] == "Bearer first"


# ---------------------------------------------------------------------------------------------------- a real service


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """The server's tokens file."""
    return write(tmp_path / "tokens", {"old": "alice train *", "viewer": "grafana read *"})


@pytest.fixture
def guarded(redis_url: str, tokens: Path) -> Iterator[Service]:
    """A server with a tokens file, and the dataset `d` with its run `r`."""
    with serving(redis_url, tokens_file=tokens) as service:
        with caller(service, "old") as alice:
            alice.dataset("d", 100)
            alice.create("d", "r")
        yield service


def admits(service: Service, token: str) -> bool:
    """Returns whether a token is valid."""
    with bots.Client(service.address, token=token, strict=True) as client:
        try:
            client.get_dataset("d")
        except bots.UnauthenticatedError:
            return False
        return True


def test_an_invalid_token_is_an_error_at_the_start(guarded: Service) -> None:
    """The training does not begin on tasks drawn uniformly; an operation above the role is an error at any time."""
    for token in (None, "wrong", "x" * 7168):
        with bots.Client(guarded.address, token=token) as client:
            with pytest.raises(bots.UnauthenticatedError, match="authorization: must be a valid bearer token") as error:
                client.run("d", "r").select(4)
            assert (error.value.code, error.value.reason) == ("UNAUTHENTICATED", "BAD_TOKEN")
    with bots.Client(guarded.address, token="viewer") as client:
        client.get_dataset("d")
        with pytest.raises(bots.PermissionDeniedError, match="got 'read', which 'grafana' has") as denied:
            client.run("d", "r").select(4)
        assert denied.value.reason == "ROLE_TOO_LOW"


def test_a_token_is_replaced_without_a_restart(guarded: Service, tokens: Path, tmp_path: Path) -> None:
    """As the runbook says: the new line beside the old one, the trainer's file, then the old line goes."""
    path = tmp_path / "token"
    path.write_text("old\n")
    with bots.Client(guarded.address, token_file=path) as client:
        run = client.run("d", "r")

        def step() -> None:
            batch = run.select(4)
            assert not batch.fallback
            assert batch.report(1, 4) is not None

        step()
        write(tokens, {"old": "alice train *", "new": "alice train *"})
        guarded.wait_until(lambda: admits(guarded, "new"))
        step()
        path.write_text("new\n")
        step()
        write(tokens, {"new": "alice train *"})
        guarded.wait_until(lambda: not admits(guarded, "old"))
        step()
        assert run.summary().updates == 4


def test_a_running_trainer_goes_on_while_its_token_is_not_valid(
    guarded: Service, tokens: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It draws uniformly, keeps its reports, says why once, and delivers when it has a valid token."""
    path = tmp_path / "token"
    path.write_text("old\n")
    with bots.Client(guarded.address, token_file=path) as client, caplog.at_level(logging.WARNING, "bots"):
        run = client.run("d", "r")
        run.select(4).report(1, 4)
        guarded.wait_until(lambda: client.session.known("d") is not None)
        write(tokens, {"new": "alice train *"})
        guarded.wait_until(lambda: not admits(guarded, "old"))
        for _ in range(3):
            batch = run.select(4)
            assert batch.fallback
            assert batch.report(1, 4) is None
        (warning,) = [record.getMessage() for record in caplog.records]
        assert "the token is no longer valid: " in warning
        path.write_text("new\n")
        guarded.wait_until(lambda: not client.session.waiting)
        assert not run.select(4).fallback
        assert run.summary().updates == 4


def test_a_strict_client_is_told_that_its_token_is_not_valid(guarded: Service, tokens: Path) -> None:
    """At any time."""
    with bots.Client(guarded.address, token="old", strict=True) as client:
        client.get_dataset("d")
        write(tokens, {"new": "alice train *"})
        guarded.wait_until(lambda: not admits(guarded, "old"))
        with pytest.raises(bots.UnauthenticatedError):
            client.get_dataset("d")


def test_a_request_that_is_too_long_is_refused_before_it_is_sent(recorder: Recorder, client: bots.Client) -> None:
    """With the length and the rule, and not as an error that repeating could mend."""
    rule = "^request: got [0-9]+ bytes, must be at most 4194304 bytes$"
    with pytest.raises(bots.InvalidArgumentError, match=rule):
        client.run("d", "r").report([f"{task:0255}" for task in range(17_000)], 1, 1, rows=False)
    assert not recorder.of("ReportOutcomes")
    assert not client.session.outbox.pending()


def test_a_token_in_an_argument_stands_in_no_repr() -> None:
    """Neither in that of its holder."""
    token = Token("s3cret")
    assert "s3cret" not in repr(token)
    assert pickle.loads(pickle.dumps(token)).metadata() == (("authorization", "Bearer s3cret"),)
