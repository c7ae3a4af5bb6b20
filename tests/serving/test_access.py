"""Who may come in: the token, its cookie, roles, guesses; foreign names, origins and machines stay out."""
from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask import Flask, request
from processes import HERE, ROOT, Visitor, free_port
from raw import Raw
from served import put_online
from stand_in import Client, colour, jpeg, until
from test_wire import UPGRADE, asked

import app
from cli import lan
from models.info import BadInput
from serving import access
from serving.certificate import certificate
from serving.events import Live
from serving.keeper import AT_ONCE, Guesses, Keeper, TooMany, is_loopback, is_near, is_own
from serving.metrics import Meter
from serving.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
Online = tuple[Live, str]
TOKEN = "a-token-for-tests"
SOCKET = "/socket.io/?EIO=4&transport=websocket"
PAGES = ("/", "/health", "/health/ready", "/presets/cat", "/static/js/main.js", "/not-there", SOCKET)


@pytest.fixture(autouse=True)
def kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def locked(toys: None) -> Iterator[Online]:
    """A server that asks for a token; what it says of a caller's role is at /role."""
    for live, url in put_online(token=TOKEN):
        live.app.add_url_rule("/role", "role", lambda: str(access.role(request.environ)))
        live.app.add_url_rule("/join/<code>", view_func=joined)
        yield live, url


def joined(code: str) -> Any:
    """As a room does it."""
    cookie = access.let_in(request.environ)
    return "welcome", 200, {"Set-Cookie": cookie} if cookie else {}


def enter(url: str, token: str = TOKEN, **headers: str) -> HTTPResponse:
    return asked(url, f"/enter?token={token}", **headers)


def cookie_of(reply: HTTPResponse) -> str:
    return (reply.getheader("Set-Cookie") or "").partition(";")[0]


# -- the token


def test_without_the_token_nothing_is_shown(locked: Online) -> None:
    for path in PAGES:
        reply = asked(locked[1], path, **(UPGRADE if path == SOCKET else {}))
        said = reply.read().decode()
        assert reply.status == 401 and "link" in said and TOKEN not in said, path
        assert reply.getheader("Set-Cookie") is None and reply.getheader("Cache-Control") == "no-store"
        assert "default-src 'self'" in reply.getheader("Content-Security-Policy", "")
    page = asked(locked[1], "/", Accept="text/html")
    assert page.status == 401 and "<p>This page is opened by a link" in page.read().decode()


def test_whether_it_lives_everybody_may_know(toys: None) -> None:
    settings = Settings(token=TOKEN, port=4200)
    made = app._pages(settings)
    answered: list[str] = []
    gate = access.gate(made.wsgi_app, settings, Meter())
    for path in ("/health/live", "/health/ready", "/health"):
        gate({"PATH_INFO": path, "REQUEST_METHOD": "GET", "HTTP_HOST": "localhost", "REMOTE_ADDR": "10.0.0.9",
              "wsgi.url_scheme": "http", "SERVER_NAME": "localhost", "SERVER_PORT": "4200"},
             lambda status, headers, *more: answered.append(status[:3]))
    assert answered == ["200", "401", "401"]


def test_the_link_is_exchanged_for_a_cookie_and_left_at_once(locked: Online,
                                                             caplog: pytest.LogCaptureFixture) -> None:
    live, url = locked
    reply = enter(url)
    given = reply.getheader("Set-Cookie") or ""
    assert reply.status == 303 and reply.getheader("Location") == "/"
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(given.split("; ")) and "Secure" not in given
    assert TOKEN not in f"{reply.getheaders()} {reply.read()!r} {caplog.text} {live.settings}"
    assert reply.getheader("Referrer-Policy") == "no-referrer"
    assert reply.getheader("Cache-Control") == "no-store"
    cookie = cookie_of(reply)
    assert asked(url, "/", Cookie=cookie).status == 200
    assert asked(url, "/role", Cookie=f"other=1; {cookie}; more=2").read() == b"presenter"
    assert asked(url, "/role", Cookie=cookie[:-1] + "0").status == 401 or cookie.endswith("0")
    caller = Visitor(url, Cookie=cookie)
    assert caller.frame(1, jpeg(colour("red")))["classes"][0]["label"] == "red"
    caller.io.disconnect()


def test_a_link_in_somebody_elses_page_leads_in_too(locked: Online) -> None:
    """A browser would not send a strict cookie along with where that page led."""
    reply = enter(locked[1], Sec_Fetch_Site="cross-site", **{"Sec-Fetch-Site": "cross-site"})
    assert reply.status == 200 and cookie_of(reply)
    assert '<meta http-equiv="refresh" content="0; url=/">' in reply.read().decode()


def test_programs_name_the_token_in_a_header(locked: Online) -> None:
    right = {"Authorization": f"Bearer {TOKEN}"}
    assert asked(locked[1], "/role", **right).read() == b"presenter"
    assert asked(locked[1], "/role", Authorization="Bearer no-token-of-ours").status == 401
    assert asked(locked[1], "/role", Authorization=f"Basic {TOKEN}").status == 401
    caller = Visitor(locked[1], **right)
    assert caller.frame(1, jpeg(colour("blue")))["classes"]
    caller.io.disconnect()


def test_guessing_is_slow_for_each_address(locked: Online) -> None:
    live, url = locked
    inside = cookie_of(enter(url))
    for n in range(AT_ONCE):
        assert enter(url, f"wrong-token-{n}").status == 403
    late = enter(url)
    assert late.status == 429 and late.getheader("Retry-After"), "not even the right one is looked at now"
    assert asked(url, "/", Authorization=f"Bearer {TOKEN}").status == 429, "nor at another door"
    assert asked(url, "/", Cookie=inside).status == 200, "who is in stays in"
    line = HTTPConnection(urlsplit(url).netloc, timeout=5, source_address=("127.0.0.2", 0))
    line.request("GET", f"/enter?token={TOKEN}")
    assert line.getresponse().status == 303, "others are not to suffer for it"
    assert live.app.extensions["meter"].counts["refused", "wrong token"] == AT_ONCE


def test_an_ipv6_network_has_as_many_guesses_as_an_address() -> None:
    now = [0.0]
    guesses = Guesses(lambda: now[0])
    for n in range(AT_ONCE):
        assert not guesses.right(f"fe80::{n:x}%eth0", lambda: False)
    with pytest.raises(TooMany):
        guesses.right("fe80::ffff", lambda: True)
    now[0] = 60.0
    assert guesses.right("fe80::ffff", lambda: True)


def test_cookies_outlive_a_restart_with_the_same_token_alone(tmp_path: Path) -> None:
    def cookie(token: str) -> dict[str, str]:
        return {"HTTP_COOKIE": Keeper(Settings(token=token)).header("presenter", {}).partition(";")[0]}

    before = cookie(TOKEN)
    assert Keeper(Settings(token=TOKEN)).role(before) == "presenter"
    assert Keeper(Settings(token="another-token")).role(before) is None
    secret = tmp_path / "cache" / "access" / "secret"
    assert secret.stat().st_mode & 0o077 == 0
    secret.unlink()
    assert Keeper(Settings(token=TOKEN)).role(before) is None


@pytest.mark.parametrize("cookies", ["", "seewhy-4200", "seewhy-4200=", "seewhy-4200=é", "seewhy-4200=\x00;",
                                     "seewhy-4200=" + "a" * 5000, 'seewhy-4200="', ";;=;"])
def test_nonsense_in_a_cookie_is_no_role(cookies: str) -> None:
    assert Keeper(Settings(token=TOKEN)).role({"HTTP_COOKIE": cookies}) is None


# -- roles


def test_who_has_a_rooms_link_is_a_viewer(locked: Online) -> None:
    url = locked[1]
    reply = asked(url, "/join/red-green-blue-owl")
    cookie = cookie_of(reply)
    assert reply.status == 200 and cookie
    assert asked(url, "/role", Cookie=cookie).read() == b"viewer"
    assert asked(url, "/", Cookie=cookie).status == 200
    presenter = cookie_of(enter(url))
    assert cookie_of(asked(url, "/join/red-green-blue-owl", Cookie=presenter)) == "", "nobody is degraded"
    assert asked(url, "/join/../role").status == 401 and asked(url, "/join/").status == 401


def test_here_everybody_may_do_everything(online: Online) -> None:
    live, url = online
    live.app.add_url_rule("/role", "role", lambda: str(access.role(request.environ)))
    assert asked(url, "/role").read() == b"presenter"
    assert enter(url, "whatever").getheader("Location") == "/"
    assert access.role({}) == "presenter" and Client(live).here().frame(colour("red"))["classes"]


# -- other machines, names and origins


@pytest.mark.parametrize(("address", "more", "status"), [
    ("127.0.0.1", {}, "200"), ("::1", {}, "200"), ("::ffff:127.0.0.1", {}, "200"), ("", {}, "200"),
    ("192.168.1.7", {}, "403"), ("::ffff:192.168.1.7", {}, "403"), ("nonsense", {}, "403"),
    ("192.168.1.7", {"HTTP_X_FORWARDED_FOR": "127.0.0.1"}, "403")])
def test_without_a_token_other_machines_stay_out(address: str, more: dict[str, str], status: str) -> None:
    said: list[str] = []
    gate = access.gate(lambda environ, start: start("200 OK", []) or [], Settings(), Meter())
    gate({"REMOTE_ADDR": address, "PATH_INFO": "/", **more}, lambda given, headers: said.append(given[:3]))
    assert said == [status]


def test_a_proxy_does_not_make_others_this_machine() -> None:
    own = {"REMOTE_ADDR": "127.0.0.1"}
    assert is_near(own) and is_own(own)
    assert is_near({**own, "HTTP_X_FORWARDED_FOR": "10.0.0.1"})
    assert not is_own({**own, "HTTP_X_FORWARDED_FOR": "10.0.0.1"})
    assert is_own({**own, "HTTP_HOST": "[::1]:4200"}) and is_own({**own, "HTTP_HOST": "localhost:1"})
    assert not is_own({**own, "HTTP_HOST": "class.example"}) and not is_own({**own, "HTTP_HOST": "[x"})
    assert is_loopback("localhost") and is_loopback("[::1]") and not is_loopback("localhost.example.org")


def test_foreign_pages_and_names_are_refused_with_the_token_too(locked: Online) -> None:
    url, port = locked[1], urlsplit(locked[1]).port
    right = {"Authorization": f"Bearer {TOKEN}"}
    assert asked(url, SOCKET, Origin="http://evil.example", **right, **UPGRADE).status == 400
    evil = f"evil.example:{port}"
    assert asked(url, SOCKET, Host=evil, Origin=f"http://{evil}", **right, **UPGRADE).status == 400
    assert asked(url, "/", Host=evil, **right).status == 400
    assert asked(url, "/enter?token=" + TOKEN, Host=evil).getheader("Set-Cookie") is None
    assert asked(url, SOCKET, Origin="null", **right, **UPGRADE).status == 400
    assert asked(url, SOCKET, **UPGRADE).status == 401, "no origin and no token"
    assert asked(url, SOCKET, Origin=url, **UPGRADE).status == 401
    assert asked(url, SOCKET, Origin=url, **right, **UPGRADE).status == 101


def test_nobody_speaks_before_joining(locked: Online) -> None:
    live, url = locked
    line = Raw(url, join=False, Authorization=f"Bearer {TOKEN}")
    for _ in range(5):
        line.text('42["configure",{"task":"detect"}]')
    assert line.is_hung_up() and b'42["' not in line.heard and not live.sessions


def test_a_page_may_connect_to_where_it_came_from_whatever_port_leads_there() -> None:
    def status(host: str, origin: str, scheme: str = "http") -> str:
        said: list[str] = []
        access.gate(lambda environ, start: start("200 OK", []) or [], Settings(), Meter())(
            {"PATH_INFO": "/socket.io/", "HTTP_HOST": host, "HTTP_ORIGIN": origin, "wsgi.url_scheme": scheme},
            lambda given, headers: said.append(given[:3]))
        return said[0]

    assert status("localhost:8000", "http://localhost:8000") == "200"
    assert status("localhost:8000", "http://localhost:9000") == "400"
    assert status("localhost:8000", "https://localhost:8000") == "400"
    assert status("evil.example", "http://evil.example") == "400"


# -- how it is started


def started(*words: str, **more: Any) -> argparse.Namespace:
    return app.parser("").parse_args(words)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "class.example"])
def test_an_open_address_without_a_token_is_refused(host: str, capsys: pytest.CaptureFixture[str],
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEEWHY_TOKEN", raising=False)
    assert app.main(["--host", host, "--port", str(free_port())]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and host in said and "--lan" in said and "--token" in said


@pytest.mark.parametrize("token", ["short", "with a space", "mit-ümlaut-nein", ""])
def test_a_token_that_is_none_is_a_sentence(token: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["--token", token]) == 2
    said = capsys.readouterr().err
    assert "at least 8" in said and (not token or token not in said)


def test_this_machine_alone_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEEWHY_TOKEN", raising=False)
    found = lan.network(started())
    assert found == {"host": "127.0.0.1", "token": None, "certificate": None, "origins": ()}
    assert lan.network(started("--host", "localhost"))["host"] == "localhost"
    monkeypatch.setenv("SEEWHY_TOKEN", TOKEN)
    opened = lan.network(started("--host", "0.0.0.0"))
    assert opened["token"] == TOKEN and opened["host"] == "0.0.0.0"


def test_lan_makes_a_token_a_certificate_and_says_where(monkeypatch: pytest.MonkeyPatch,
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("SEEWHY_TOKEN", raising=False)
    monkeypatch.setattr(lan, "addresses", lambda: ["192.168.7.20", "10.1.1.1"])
    monkeypatch.setattr(socket, "gethostname", lambda: "Lab")
    found = lan.network(started("--lan", "--port", "4300"))
    other = lan.network(started("--lan", "--port", "4300"))
    assert found["host"] == "0.0.0.0" and found["token"] != other["token"] and len(found["token"]) >= 20
    assert found["certificate"] == other["certificate"]
    assert found["origins"] == tuple(f"https://{name}:4300" for name in
                                     ("192.168.7.20", "10.1.1.1", "lab", "lab.local"))
    settings = Settings(port=4300, **found)
    assert settings.address == "https://192.168.7.20:4300"
    assert "https://localhost:4300" in settings.allowed_origins
    assert "wss://192.168.7.20:4300" in access.content_policy(settings)
    assert {"lab.local", "10.1.1.1", "localhost"} <= settings.allowed_hosts
    lan.announce(settings)
    said = capsys.readouterr().out
    assert f"https://192.168.7.20:4300/enter?token={found['token']}" in said
    assert "\u2584" in said and "Advanced" in said and "https://lab.local:4300" in said
    assert lan.link(settings, here=True).startswith("https://localhost:4300/enter?token=")


# -- https


@pytest.fixture
def secure(toys: None, tmp_path: Path) -> Iterator[tuple[Live, str, Path]]:
    file = certificate(tmp_path / "lan", ["127.0.0.1"])
    for live, url in put_online(token=TOKEN, certificate=file):
        yield live, url.replace("http:", "https:"), file


def test_https_serves_the_page_and_the_socket(secure: tuple[Live, str, Path]) -> None:
    live, url, file = secure
    trusting = ssl.create_default_context(cafile=file)
    line = HTTPSConnection(urlsplit(url).netloc, timeout=5, context=trusting)
    line.request("GET", f"/enter?token={TOKEN}")
    reply = line.getresponse()
    assert reply.status == 303 and "; Secure" in (reply.getheader("Set-Cookie") or "")
    caller = Visitor(url, Cookie=cookie_of(reply))
    caller.io.emit("configure", {"method": "toy_odd"})
    for seq, name in enumerate(["red", "green", "blue"] * 5, 1):
        assert caller.frame(seq, jpeg(colour(name)))["classes"][0]["label"] == name
        assert caller.one("explanation", seq=seq)["live"]
    caller.io.disconnect()
    until(lambda: not live.sessions, "the server to notice")
    until(lambda: live.app.extensions["http"].connections() == 0, "every connection to be closed")


def test_by_http_nothing_is_served_there_and_nobody_is_kept(secure: tuple[Live, str, Path],
                                                            caplog: pytest.LogCaptureFixture) -> None:
    live, url, _ = secure
    plain = asked(url.replace("https", "http"), f"/enter?token={TOKEN}")
    assert plain.status == 308 and plain.getheader("Location") == f"{url}/"
    silent = [socket.create_connection(("127.0.0.1", urlsplit(url).port or 0)) for _ in range(5)]
    doubtful = ssl.create_default_context()
    with pytest.raises(ssl.SSLError):
        doubtful.wrap_socket(socket.create_connection(("127.0.0.1", urlsplit(url).port or 0)),
                             server_hostname="127.0.0.1")
    assert Visitor(url, Authorization=f"Bearer {TOKEN}").frame(1, jpeg(colour("red")))["classes"]
    for line in silent:
        line.close()
    assert caplog.text == ""


def namespace() -> bool:
    """Whether a network of its own can be made for a test."""
    return (sys.platform == "linux" and os.geteuid() == 0 and all(map(shutil.which, ("unshare", "ip")))
            and subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode == 0)


@pytest.mark.skipif(not namespace(), reason="only root can make a network for a test")
def test_lan_from_another_address_of_a_network_made_for_it(tmp_path: Path) -> None:
    """The whole program binds all addresses; a visitor comes by one of a network where nobody else is."""
    script = """set -e
ip link set lo up
ip addr add 10.77.1.5/24 dev lo
exec "$@"
"""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{HERE}", "SEEWHY_CACHE": str(tmp_path / "cache")}
    command = ["unshare", "-n", "sh", "-c", script, "sh", sys.executable, str(HERE / "visit_lan.py")]
    done = subprocess.run(command, env=environment, cwd=ROOT, text=True, capture_output=True, timeout=120,
                          check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"https://10\.77\.1\.5:\d+/enter\?token=", done.stdout) and "looked: red" in done.stdout


def test_the_app_of_these_tests_is_an_app(locked: Online) -> None:
    assert isinstance(locked[0].app, Flask) and issubclass(TooMany, Exception)
    with pytest.raises(BadInput):
        Keeper(Settings(token="short"))


@pytest.mark.parametrize("port", ["0", "65536", "99999", "-1", "x", "²"])
def test_a_port_that_is_none_is_a_sentence(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        app.main([f"--port={port}"])
    assert "expected a port from 1 to 65535" in capsys.readouterr().err
