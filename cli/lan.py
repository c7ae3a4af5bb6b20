"""Letting others in: this machine's names and addresses, the token, the certificate, and what is said."""
from __future__ import annotations

import argparse
import ipaddress
import os
import socket
import sys
from pathlib import Path
from typing import Any

from models import store
from models.info import BadInput
from serving.keeper import checked_token, is_loopback, new_token
from serving.settings import Settings

EVERYBODY = ("", "0.0.0.0", "::")
# Networks that lead to no other machine in the room: of containers, virtual machines and tunnels.
APART = ("docker", "br-", "veth", "virbr", "vmnet", "vboxnet", "cni", "podman", "lxc", "utun", "tun", "tap",
         "wg", "tailscale", "zt", "vEthernet")


def network(args: argparse.Namespace) -> dict[str, Any]:
    """Of the settings what concerns the network; a sentence when others could come in without a token."""
    host = args.host or ("0.0.0.0" if args.lan else "127.0.0.1")
    token = args.token if args.token is not None else os.environ.get("SEEWHY_TOKEN") or None
    if token is not None:
        checked_token(token)
    if args.lan:
        token = token or new_token()
    elif not is_loopback(host) and not token:
        raise BadInput(f"--host {host} would let everybody on the network do everything, and there is no "
                       "token; use --lan, which makes one, or set --token TEXT (or SEEWHY_TOKEN)")
    names = reached_by(host)
    scheme = "https" if args.lan else "http"
    own = tuple(f"{scheme}://{name}:{args.port}" for name in names)
    return {"host": host, "token": token,
            "certificate": _certificate(names) if args.lan else None,
            "origins": (*(args.origin or Settings().origins), *own)}


def reached_by(host: str) -> list[str]:
    """The names under which others reach a server that is bound there, the likeliest first."""
    if host not in EVERYBODY:
        return [] if is_loopback(host) else [host]
    name = socket.gethostname().lower()
    named = [name, f"{name}.local"] if name and "." not in name else [name] if name else []
    return list(dict.fromkeys([*addresses(), *(n for n in named if not is_loopback(n))]))


def addresses() -> list[str]:
    """This machine's IPv4 addresses in its networks, those of a room's network first; nobody is asked."""
    import psutil

    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    found = []
    for name, held in psutil.net_if_addrs().items():
        for one in held:
            if one.family == socket.AF_INET and name in up:
                address = ipaddress.ip_address(one.address)
                if not (address.is_loopback or address.is_link_local):
                    found.append((name.startswith(APART), not address.is_private, str(address)))
    return [address for *_, address in sorted(found, key=lambda f: f[:2])]


def link(settings: Settings, here: bool = False) -> str:
    """The address to open, with the token in it where one is asked for; `here`: on this machine."""
    shown = settings.address
    if here:
        shown = f"{settings.scheme}://localhost:{settings.port}"
    return f"{shown}/enter?token={settings.token}" if settings.token else shown


def announce(settings: Settings) -> None:
    """Say where the page is, and whom that concerns."""
    own = is_loopback(settings.host)
    print(f"Seewhy is at {link(settings, here=own)}  (Ctrl+C ends it)", flush=True)
    if settings.certificate:
        from serving.certificate import fingerprint

        _draw(link(settings))
        print("That link is the presenter's and may do everything: keep it. Others get a room's link, from "
              "'To a class' on the page.")
        print("A browser warns of the certificate, which this machine made itself: choose Advanced (or Show "
              f"details), then go on. Its SHA-256 is {fingerprint(settings.certificate)}", flush=True)
    for origin in settings.origins:
        if own or origin != settings.address:
            only = "" if origin.startswith("https") else \
                " (a browser gives its camera only to localhost or https)"
            print(f"also allowed: {origin}{only}", flush=True)


def _certificate(names: list[str]) -> Path:
    from serving.certificate import certificate

    return certificate(store.cache_folder() / "lan", names)


def _draw(text: str) -> None:
    """The text as a QR code, where the terminal has the signs for it."""
    import segno

    try:
        "\u2580".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return
    segno.make_qr(text, error="l").terminal(compact=True, border=2)
