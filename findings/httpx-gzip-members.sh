#!/usr/bin/env bash
# httpx returns the first part of a gzip body that has two, and says nothing about the rest.
#
# Needs: python3, node.
#
# Expected: a gzip body may be a series of members (RFC 1952 2.2), as "cat a.gz b.gz" makes it, and every client joins them:
# curl, browsers, urllib3 and Node do.
#
# What happens: httpx 0.28.1 ends at the end of the first member. Status 200, no exception, no warning, half of the body.
#
# Why it matters: what a proxy adds to a compressed stream (a trailing fragment, a body put together from cached or partial pieces, a fresh
# member after each flush of an event stream) arrives everywhere in a test with curl, and is missing in Python services. A proxy's
# compressor must keep one member from start to end and use a sync flush between parts.
#
# Seen with CPython 3.11.7, Node.js 20.20.2:
#   httpx   0.28.1   two members  "first "        one member, two flushes  "first second"
#   urllib3 2.8.0    two members  "first second"  one member, two flushes  "first second"
#   aiohttp 3.14.5   two members  "first second"  one member, two flushes  "first second"
#   undici  7.30.2   two members  "first second"  one member, two flushes  "first second"
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m pip -q --disable-pip-version-check install --root-user-action ignore --target lib httpx==0.28.1 urllib3==2.8.0 aiohttp==3.14.5
npm init -y >/dev/null
npm install --silent --no-audit --no-fund undici@7.30.2 >/dev/null

cat >server.py <<'PY'
import gzip, http.server, zlib

class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/two":
            body = gzip.compress(b"first ") + gzip.compress(b"second")
        else:
            one = zlib.compressobj(wbits=31)
            body = one.compress(b"first ") + one.flush(zlib.Z_SYNC_FLUSH) + one.compress(b"second") + one.flush()
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
print(server.server_port, flush=True)
server.serve_forever()
PY
cat >client.py <<'PY'
import asyncio, sys
import aiohttp, httpx, urllib3

async def by_aiohttp(url):
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return await answer.text()

base = f"http://127.0.0.1:{sys.argv[1]}"
for name, version, get in [
    ("httpx", httpx.__version__, lambda url: httpx.get(url).text),
    ("urllib3", urllib3.__version__, lambda url: urllib3.request("GET", url).data.decode()),
    ("aiohttp", aiohttp.__version__, lambda url: asyncio.run(by_aiohttp(url))),
]:
    two, one = (f'"{get(base + path)}"' for path in ["/two", "/one"])
    print(f"{name:7} {version:8} two members  {two:14}  one member, two flushes  {one}")
PY
cat >client.mjs <<'JS'
import { fetch } from "undici";
const [two, one] = await Promise.all(
  ["/two", "/one"].map(async (path) => `"${await (await fetch(`http://127.0.0.1:${process.argv[2]}${path}`)).text()}"`),
);
console.log(`undici  7.30.2   two members  ${two.padEnd(14)}  one member, two flushes  ${one}`);
JS

python3 server.py >port &
server=$!
while [ ! -s port ]; do sleep 0.1; done
{
  PYTHONPATH=lib python3 client.py "$(cat port)"
  node client.mjs "$(cat port)"
} | tee seen

cat >expected <<'TEXT'
httpx   0.28.1   two members  "first "        one member, two flushes  "first second"
urllib3 2.8.0    two members  "first second"  one member, two flushes  "first second"
aiohttp 3.14.5   two members  "first second"  one member, two flushes  "first second"
undici  7.30.2   two members  "first second"  one member, two flushes  "first second"
TEXT
diff expected seen && echo "As described: $(python3 -V), Node.js $(node -v)."
