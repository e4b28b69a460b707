"""A client of httpx for `cargo xtask matrix`: `python3 client.py URL h1|h2`. A line for each case."""
import sys

import httpx

url, version = sys.argv[1:]
client = httpx.Client(http1=version == "h1", http2=version == "h2", verify=False, trust_env=False, timeout=60)


def attempt(what, body=None):
    try:
        response = client.post(url + what, content=body) if body else client.get(url + what)
        return (response.content, "") if response.status_code == 200 else (b"", f"status {response.status_code}")
    except httpx.HTTPError as error:
        return b"", repr(error)


def say(what, good, error):
    print(what, "ok" if good else f"bad {error}", flush=True)


body, error = attempt("down")
say("down", len(body) == 1000000, error)
body, error = attempt("up", bytes(1000000))
say("up", body == b"1000000", error)
body, error = attempt("reset")
say("reset", error, "no error")
body, error = attempt("goaway")
say("goaway", len(body) == 1000000, error)
