#!/usr/bin/env bash
# No redirect of a WebSocket handshake suits two Python clients at once: one wants ws: in Location, the other http:.
#
# Needs: python3, node.
#
# Expected: the handshake is a GET, so a 308 to https, with which a proxy answers every unencrypted request, either works for all WebSocket
# clients that follow redirects or for none; and wss: in Location would do the same.
#
# What happens with a 308 to the same server's handshake:
#   aiohttp 3.14.5       follows Location: http://..., and refuses ws://... (NonHttpUrlRedirectClientError)
#   websockets 17.4      follows Location: ws://..., and refuses http://... (InvalidURI)
#   ws 8.23.0            follows neither; with followRedirects: true both
#   undici 7.30.2        follows neither
#
# Why it matters: a redirect to https works for pages and breaks WebSocket clients in a way that depends on the library, so
# the usual "just redirect" is no migration path for them, and writing wss: does not help more than https:. For Upgrade: websocket
# on a plain port the choice is to serve it or to refuse it clearly; the log line should say that a handshake was redirected.
#
# Seen with CPython 3.11.7, Node.js 20.20.2:
#   aiohttp             http: hello                          ws: NonHttpUrlRedirectClientError
#   websockets          http: InvalidURI                     ws: hello
#   ws                  http: error                          ws: error
#   ws, followRedirects http: hello                          ws: hello
#   undici              http: error                          ws: error
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m pip -q --disable-pip-version-check install --root-user-action ignore --target lib aiohttp==3.14.5 websockets==17.4
npm init -y >/dev/null
npm install --silent --no-audit --no-fund ws@8.23.0 undici@7.30.2 >/dev/null

cat >server.mjs <<'JS'
import http from "node:http";
import { WebSocketServer } from "ws";
const listen = (server) => new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server.address().port)));
const target = http.createServer();
new WebSocketServer({ server: target }).on("connection", (socket) => socket.send("hello"));
const port = await listen(target);
for (const scheme of ["http", "ws"]) {
  const server = http.createServer();
  server.on("upgrade", (request, socket) => {
    socket.end(`HTTP/1.1 308 Permanent Redirect\r\nLocation: ${scheme}://127.0.0.1:${port}/\r\nContent-Length: 0\r\n\r\n`);
  });
  console.log(await listen(server));
}
JS

cat >client.py <<'PY'
import asyncio, sys
import aiohttp, websockets

async def by_aiohttp(url):
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        return (await socket.receive()).data

async def by_websockets(url):
    async with websockets.connect(url) as socket:
        return await socket.recv()

async def main():
    for name, connect in [("aiohttp", by_aiohttp), ("websockets", by_websockets)]:
        seen = []
        for port in sys.argv[1:]:
            try:
                seen.append(await connect(f"ws://127.0.0.1:{port}/"))
            except Exception as error:
                seen.append(type(error).__name__)
        print(f"{name:19} http: {seen[0]:30} ws: {seen[1]}")

asyncio.run(main())
PY

cat >client.mjs <<'JS'
import WebSocket from "ws";
import { WebSocket as Undici } from "undici";
for (const [name, connect] of [
  ["ws", (url) => new WebSocket(url)],
  ["ws, followRedirects", (url) => new WebSocket(url, { followRedirects: true })],
  ["undici", (url) => new Undici(url)],
]) {
  const seen = [];
  for (const port of process.argv.slice(2)) {
    const socket = connect(`ws://127.0.0.1:${port}/`);
    seen.push(await new Promise((resolve) => {
      socket.onmessage = ({ data }) => resolve(data);
      socket.onerror = () => resolve("error");
    }));
  }
  console.log(`${name.padEnd(19)} http: ${seen[0].padEnd(30)} ws: ${seen[1]}`);
}
process.exit(0);
JS

node server.mjs >ports &
server=$!
while [ "$(wc -l <ports)" -lt 2 ]; do sleep 0.1; done
{
  PYTHONPATH=lib python3 client.py $(cat ports)
  node --no-warnings client.mjs $(cat ports)
} | tee seen

cat >expected <<'TEXT'
aiohttp             http: hello                          ws: NonHttpUrlRedirectClientError
websockets          http: InvalidURI                     ws: hello
ws                  http: error                          ws: error
ws, followRedirects http: hello                          ws: hello
undici              http: error                          ws: error
TEXT
diff expected seen && echo "As described: $(python3 -V), Node.js $(node -v)."
