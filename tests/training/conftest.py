"""Distributed training in the process of the tests: alone, and nothing of it left in the environment."""

import socket

import pytest

from anna.training import engine as engines


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process group of this process alone."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    names = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in names.items():
        monkeypatch.setenv(name, str(value))
    engines.init_distributed()
