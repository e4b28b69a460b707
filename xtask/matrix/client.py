"""A client of httpx for `cargo xtask matrix`: `python3 client.py URL h1|h2 TYPE CASE...`. A line for each case."""
import sys

import httpx

url, version, kind = sys.argv[1:4]
client = httpx.Client(http1=version == "h1", http2=version == "h2", verify=False, trust_env=False, timeout=60)
# A gRPC message as long as the body; other servers ignore its content.
upload = (999995).to_bytes(5, "big") + bytes(999995)


def attempt(case):
    body = upload if case == "up" else bytes(5) if kind == "application/grpc" else None
    try:
        response = client.post(url + case, content=body, headers={"content-type": kind}) if body else client.get(url + case)
        return (response.content, "") if response.status_code == 200 else (b"", f"status {response.status_code}")
    except httpx.HTTPError as error:
        return b"", repr(error)


for case in sys.argv[4:]:
    body, error = attempt(case)
    if case in ("reset", "cut"):
        good, error = bool(error), "no error"
    else:
        good = body.endswith(b"1000000") if case == "up" else len(body) == 1000000
    print(case, "ok" if good else f"bad {error}", flush=True)
