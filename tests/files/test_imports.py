"""bots.files stands alone."""

from tests.test_architecture import CLIENT, modules, offences


def test_the_file_readers_know_nothing_of_the_service() -> None:
    assert offences(modules(CLIENT / "files"), ("numpy", "pyarrow", "bots.files")) == []
