"""The certificate of --lan: for whom it is made, when it is made anew, who can read it, and TLS over it."""
from __future__ import annotations

import os
import socket
import ssl
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from models.info import BadInput
from serving import tls
from serving.certificate import DAYS, certificate, fingerprint

NAMES = ["lab", "lab.local", "192.168.7.20"]
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def test_it_is_for_the_names_and_addresses_and_nobody_else_reads_the_key(tmp_path: Path) -> None:
    from cryptography import x509

    file = certificate(tmp_path / "lan", NAMES)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and list(file.parent.iterdir()) == [file]
    made = x509.load_pem_x509_certificate(file.read_bytes())
    has = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(has.get_values_for_type(x509.DNSName)) == {"lab", "lab.local", "localhost"}
    assert set(map(str, has.get_values_for_type(x509.IPAddress))) == {"192.168.7.20", "127.0.0.1", "::1"}
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert made.not_valid_after_utc - made.not_valid_before_utc <= timedelta(days=398), "what browsers take"
    assert fingerprint(file).count(":") == 31


def test_it_is_kept_until_names_change_or_it_ends(tmp_path: Path) -> None:
    first = certificate(tmp_path, NAMES, NOW).read_bytes()
    assert certificate(tmp_path, NAMES[::-1], NOW + timedelta(days=DAYS - 10)).read_bytes() == first
    near_its_end = certificate(tmp_path, NAMES, NOW + timedelta(days=DAYS - 5)).read_bytes()
    assert near_its_end != first
    elsewhere = certificate(tmp_path, [*NAMES[:2], "10.0.0.7"], NOW + timedelta(days=DAYS - 5)).read_bytes()
    assert elsewhere != near_its_end


@pytest.mark.parametrize("harm", [lambda file: file.write_bytes(b"nonsense"), lambda file: file.chmod(0o644),
                                  lambda file: file.write_bytes(file.read_bytes()[:300]),
                                  lambda file: file.write_bytes(b"")],
                         ids=["nonsense", "readable by all", "half", "empty"])
def test_what_is_not_good_any_more_is_made_anew(tmp_path: Path, harm: Any) -> None:
    file = certificate(tmp_path, NAMES)
    before = fingerprint(file)
    harm(file)
    file = certificate(tmp_path, NAMES)
    assert fingerprint(file) != before and stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_folder_that_cannot_be_written_to_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="SEEWHY_CACHE"):
        certificate(tmp_path / "file" / "lan", NAMES)


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[ssl.SSLSocket, ssl.SSLSocket]]:
    """The two ends of one secured connection: the server's and the client's."""
    file = certificate(tmp_path, NAMES)
    near, far = socket.socketpair()
    trusting = ssl.create_default_context(cafile=file)
    found: list[ssl.SSLSocket] = []
    there = threading.Thread(target=lambda: found.append(trusting.wrap_socket(far, server_hostname="lab")))
    there.start()
    line = tls.secured(near, tls.context(file), 5)
    there.join(5)
    assert line is not None and found
    yield line, found[0]
    line.close()
    found[0].close()


def test_one_thread_reads_while_another_writes(both: tuple[ssl.SSLSocket, ssl.SSLSocket]) -> None:
    """Megabytes in both directions at once, and every byte arrives as it was sent."""
    server, client = both
    data = os.urandom(3_000_000)
    heard: dict[str, bytearray] = {"server": bytearray(), "client": bytearray()}

    def read(name: str, line: ssl.SSLSocket) -> None:
        while len(heard[name]) < len(data):
            heard[name] += line.recv(65536)

    server.settimeout(20)
    jobs = [threading.Thread(target=read, args=("server", server)),
            threading.Thread(target=server.sendall, args=(data,)),
            # The client's side is Python's own, where only one thread at a time is safe.
            threading.Thread(target=lambda: (_exchange(client, data, heard["client"])))]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(30)
    assert heard["server"] == heard["client"] == data


def _exchange(line: ssl.SSLSocket, data: bytes, heard: bytearray) -> None:
    line.settimeout(0)
    rest = memoryview(data)
    while rest or len(heard) < len(data):
        with suppress(ssl.SSLWantWriteError):
            rest = rest[line.send(rest[:65536]):] if rest else rest
        with suppress(ssl.SSLWantReadError):
            heard += line.recv(65536)


def test_waiting_has_an_end_and_is_ended_by_hanging_up(both: tuple[ssl.SSLSocket, ssl.SSLSocket]) -> None:
    server, _ = both
    server.settimeout(0.05)
    with pytest.raises(TimeoutError):
        server.recv(1)
    server.settimeout(None)
    waiting = threading.Thread(target=lambda: ended.append(_heard(server)))
    ended: list[bytes | str] = []
    waiting.start()
    server.shutdown(socket.SHUT_RDWR)
    waiting.join(5)
    assert ended and ended[0] in (b"", "OSError")


def _heard(line: ssl.SSLSocket) -> bytes | str:
    try:
        return line.recv(1)
    except OSError:
        return "OSError"


def test_plain_http_is_told_to_come_by_https(tmp_path: Path) -> None:
    how = tls.context(certificate(tmp_path, NAMES))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port), timeout=5)
        client.sendall(b"GET /enter?token=secret HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n")
        assert tls.secured(listening.accept()[0], how, 5) is None
        answer = client.recv(4096).decode()
        client.close()
    assert answer.startswith("HTTP/1.1 308") and f"Location: https://127.0.0.1:{port}/\r\n" in answer
    assert "secret" not in answer and "elsewhere" not in answer
