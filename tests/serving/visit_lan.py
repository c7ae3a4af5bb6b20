"""Starts the application with --lan in this network, and visits it by the address and token it prints."""
from __future__ import annotations

import http.client
import re
import ssl
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from processes import Visitor
from stand_in import colour, jpeg

from models.store import cache_folder
from serving.certificate import FILE

server = subprocess.Popen([sys.executable, Path(__file__).parent / "whole.py", "{}", "--lan"],
                          stdout=subprocess.PIPE, text=True)
try:
    assert server.stdout
    said = ""
    while "SHA-256" not in said:
        line = server.stdout.readline()
        assert line, said
        said += line
    print(said)
    found = re.search(r"https://(\S+)/enter\?token=(\S+)", said)
    assert found
    trusting = ssl.create_default_context(cafile=cache_folder() / "lan" / FILE)
    visit = http.client.HTTPSConnection(found[1], timeout=20, context=trusting)
    visit.request("GET", urlsplit(found[0]).path + "?token=" + found[2])
    reply = visit.getresponse()
    assert reply.status == 303, reply.status
    cookie = (reply.getheader("Set-Cookie") or "").partition(";")[0]
    caller = Visitor(f"https://{found[1]}", Cookie=cookie)
    print("looked:", caller.frame(1, jpeg(colour("red")))["classes"][0]["label"])
    server.terminate()
    assert server.wait(20) == 0
finally:
    server.kill()
