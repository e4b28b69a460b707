#!/usr/bin/env bash
# requests, urllib3, niquests and got follow a 308 with an empty body if the upload is a stream, and report the 200 of the empty one.
#
# Needs: python3, node, curl.
#
# Expected: 308 means the same method and the same body again. A client that cannot produce the body a second time says so,
# as a client that has to repeat a request after a lost connection does.
#
# What happens, with a body from a generator, a pipe or a Node.js stream, and a 308 on the way:
#   requests 2.34.2, niquests 3.21.2 and urllib3 2.8.0 (generator) and got 14.6.6 (stream)
#                    send the POST again with the consumed stream: an upload of 0 bytes, which the application stores and answers with 200
#   urllib3          does so even with an io.BytesIO, which could be rewound; requests, which is built on it, rewinds that one
#   httpx 0.28.1, aiohttp 3.14.5, fetch of Node.js, node-fetch 3.3.2, curl -T -
#                    fail with an error, each with a different one
#   axios 1.21.1     keeps all it sends in memory and sends it again
#
# Why it matters: a redirect to https is what most ingresses answer on the plain port. A backup job that pipes its data to a URL with http:
# works, exits with 0 and stores nothing. The proxy cannot tell the second, empty upload from one that was meant, so the only cure is a URL
# with https: in the client, or a plain port that serves or refuses instead of redirecting.
#
# Seen with CPython 3.11.7, Node.js 20.20.2, curl 7.88.1 (bytes of the bodies that arrived, of 10):
#   requests generator  10 0   200
#   requests BytesIO    10 10  200
#   requests pipe       10     error
#   niquests generator  10 0   200
#   urllib3 generator   10 0   200
#   urllib3 BytesIO     10 0   200
#   httpx generator     10     error
#   aiohttp generator   10     error
#   aiohttp BytesIO     10 10  200
#   got stream          10 0   200
#   axios stream        10 10  200
#   fetch stream        10     error
#   node-fetch stream   10     error
#   curl -T -           10     error
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m pip -q --disable-pip-version-check install --root-user-action ignore --target lib \
  requests==2.34.2 niquests==3.21.2 httpx==0.28.1 aiohttp==3.14.5 urllib3==2.8.0
npm init -y >/dev/null
npm install --silent --no-audit --no-fund got@14.6.6 axios@1.21.1 node-fetch@3.3.2 >/dev/null

# Reads the whole body, then redirects from /308 to /done. /seen returns the sizes of the bodies since the last question.
cat >server.py <<'PY'
import http.server

class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    sizes = []

    def body(self):
        if "Transfer-Encoding" not in self.headers:
            return len(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        total = 0
        while size := int(self.rfile.readline(), 16):
            total += len(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return total

    def do_GET(self):
        self.reply(200, " ".join(map(str, Server.sizes)).encode())
        Server.sizes.clear()

    def do_POST(self):
        Server.sizes.append(self.body())
        self.reply(308 if self.path == "/308" else 200, b"")

    do_PUT = do_POST

    def reply(self, status, body):
        self.send_response(status)
        if status == 308:
            self.send_header("Location", "/done")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle(self):
        try:
            super().handle()
        except (ConnectionError, ValueError):
            pass

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
print(server.server_port, flush=True)
server.serve_forever()
PY

cat >clients.py <<'PY'
import asyncio, io, sys
import aiohttp, httpx, niquests, requests, urllib3
url = sys.argv[1]

def generator():
    yield b"hello"
    yield b"world"

async def agenerator():
    for part in generator():
        yield part

class Pipe(io.RawIOBase):
    def __init__(self):
        self.rest = io.BytesIO(b"helloworld")

    def readable(self):
        return True

    def read(self, size=-1):
        return self.rest.read(size)

    def tell(self):
        raise OSError("a pipe has no position")

async def post(data):
    async with aiohttp.ClientSession() as session, session.post(url + "/308", data=data) as answer:
        return answer.status

for name, call in [
    ("requests generator", lambda: requests.post(url + "/308", data=generator()).status_code),
    ("requests BytesIO", lambda: requests.post(url + "/308", data=io.BytesIO(b"helloworld")).status_code),
    ("requests pipe", lambda: requests.post(url + "/308", data=Pipe()).status_code),
    ("niquests generator", lambda: niquests.post(url + "/308", data=generator()).status_code),
    ("urllib3 generator", lambda: urllib3.request("POST", url + "/308", body=generator()).status),
    ("urllib3 BytesIO", lambda: urllib3.request("POST", url + "/308", body=io.BytesIO(b"helloworld")).status),
    ("httpx generator", lambda: httpx.post(url + "/308", content=generator(), follow_redirects=True).status_code),
    ("aiohttp generator", lambda: asyncio.run(post(agenerator()))),
    ("aiohttp BytesIO", lambda: asyncio.run(post(io.BytesIO(b"helloworld")))),
]:
    try:
        result = call()
    except Exception:
        result = "error"
    sizes = requests.get(url + "/seen").text
    print(f"{name:18}  {sizes:5}  {result}")
PY

cat >clients.mjs <<'JS'
import { Readable } from "node:stream";
import axios from "axios";
import got from "got";
import nodeFetch from "node-fetch";
const url = process.argv[2];
const stream = () => Readable.from([Buffer.from("hello"), Buffer.from("world")]);
for (const [name, call] of [
  ["got stream", async () => (await got.post(`${url}/308`, { body: stream() })).statusCode],
  ["axios stream", async () => (await axios.post(`${url}/308`, stream())).status],
  ["fetch stream", async () => (await fetch(`${url}/308`, { method: "POST", body: Readable.toWeb(stream()), duplex: "half" })).status],
  ["node-fetch stream", async () => (await nodeFetch(`${url}/308`, { method: "POST", body: stream() })).status],
]) {
  const result = await call().catch(() => "error");
  const sizes = await (await fetch(`${url}/seen`)).text();
  console.log(`${name.padEnd(18)}  ${sizes.padEnd(5)}  ${result}`);
}
process.exit(0);
JS

: >port
python3 server.py >port &
server=$!
while [ ! -s port ]; do sleep 0.1; done
url="http://127.0.0.1:$(cat port)"
{
  PYTHONPATH=lib python3 clients.py "$url"
  node clients.mjs "$url"
  result=$(printf helloworld | curl -sL -o /dev/null -w '%{http_code}' -X POST -T - "$url/308") || result=error
  printf '%-18s  %-5s  %s\n' "curl -T -" "$(curl -s "$url/seen")" "$result"
} | tee seen

cat >expected <<'TEXT'
requests generator  10 0   200
requests BytesIO    10 10  200
requests pipe       10     error
niquests generator  10 0   200
urllib3 generator   10 0   200
urllib3 BytesIO     10 0   200
httpx generator     10     error
aiohttp generator   10     error
aiohttp BytesIO     10 10  200
got stream          10 0   200
axios stream        10 10  200
fetch stream        10     error
node-fetch stream   10     error
curl -T -           10     error
TEXT
diff expected seen && echo "As described: CPython $(python3 -c 'import platform; print(platform.python_version())'), Node.js $(node -v)."
