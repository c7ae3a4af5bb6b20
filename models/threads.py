"""How torch's threads wait for work: imported before torch is, for they read it once, when they are loaded.

They wait awake for some microseconds, not milliseconds: those who sleep at once double the time of a net of
many small layers, those who never sleep take the processor from the socket and the browser.
"""
import os

os.environ.setdefault("GOMP_SPINCOUNT", "10000")
