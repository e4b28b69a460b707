#!/usr/bin/env bash
# A Retry-After field makes urllib3 send each refused GET and PUT four times.
#
# Needs: python3.
#
# Expected: urllib3 retries on a status only if the caller lists it in status_forcelist, which is empty by default. Retry-After then
# says how long to wait, and its purpose is to lower the load.
#
# What happens: 413, 429 and 503 with Retry-After are retried up to three times by plain urllib3, despite the empty list, and without the
# field not at all. Bodies are sent again too, so a PUT that was too large is uploaded four times. POST is sent once. requests, which sits
# on urllib3, switches this off.
#
# Why it matters: a proxy that adds "Retry-After: 1" to its 429 or 503, to be kind to clients, quadruples the requests of these clients
# while it is overloaded, and counts four refusals for one call. On 413 the field is useless.
#
# Seen with CPython 3.11.7, urllib3 2.8.0, requests 2.34.2 (requests that the server got for one call):
#   503                    GET  1   PUT  1   POST  1   GET by requests  1
#   503 + Retry-After: 0   GET  4   PUT  4   POST  1   GET by requests  1
#   429 + Retry-After: 0   GET  4   PUT  4   POST  1   GET by requests  1
#   413 + Retry-After: 0   GET  4   PUT  4   POST  1   GET by requests  1
#   500 + Retry-After: 0   GET  1   PUT  1   POST  1   GET by requests  1
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m pip -q --disable-pip-version-check install --root-user-action ignore --target lib urllib3==2.8.0 requests==2.34.2

# Retry-After is 0 so that the script need not wait; other values behave alike, with the wait.
cat >call.py <<'PY'
import http.server, threading
import requests, urllib3

class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    requests = 0

    def answer(self):
        Server.requests += 1
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(int(self.path[1:4]))
        if "wait" in self.path:
            self.send_header("Retry-After", "0")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_PUT = do_POST = answer

    def log_message(self, *_):
        pass

def count(call, *arguments, **more):
    Server.requests = 0
    call(*arguments, **more)
    return Server.requests

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
pool = urllib3.PoolManager()
for path in ["503", "503wait", "429wait", "413wait", "500wait"]:
    url = f"http://127.0.0.1:{server.server_port}/{path}"
    line = path.replace("wait", " + Retry-After: 0").ljust(20)
    for method, body in [("GET", None), ("PUT", b"x" * 1000), ("POST", b"x" * 1000)]:
        line += f"   {method}  {count(pool.request, method, url, body=body)}"
    print(line + f"   GET by requests  {count(requests.get, url)}")
PY
PYTHONPATH=lib python3 call.py | tee seen

cat >expected <<'TEXT'
503                    GET  1   PUT  1   POST  1   GET by requests  1
503 + Retry-After: 0   GET  4   PUT  4   POST  1   GET by requests  1
429 + Retry-After: 0   GET  4   PUT  4   POST  1   GET by requests  1
413 + Retry-After: 0   GET  4   PUT  4   POST  1   GET by requests  1
500 + Retry-After: 0   GET  1   PUT  1   POST  1   GET by requests  1
TEXT
diff expected seen && echo "As described: $(python3 -V), urllib3 2.8.0, requests 2.34.2."
