#!/usr/bin/env bash
# socket.io-client in Node.js never returns a sticky cookie, not even to its own upgrade to WebSocket; the Python client of the same protocol does.
#
# Needs: python3, node.
#
# Expected: cookie affinity is what real-time libraries ask of a proxy, since a session begins with polling and goes on as WebSocket.
# Their clients outside of browsers return the cookie, or the advice would not work with them.
#
# What happens: socket.io-client 4.8.4 in Node.js drops Set-Cookie unless it is made with withCredentials: true, an option that is known
# from browsers, where same-origin cookies go without it. python-socketio 5.18.1 (both clients) and SignalR 10.0.11 in Node.js keep the
# cookie and send it with the upgrade. With two replicas behind affinity by cookie, each further request of a Node.js session goes to a
# random one, and the replica that does not know the session refuses it with 400 "Session ID unknown".
#
# Why it matters: affinity works in the browser and in Python and fails for one half of the calls between services. The proxy's cookie is
# not at fault: hashing by client address (upstream-hash-by: $remote_addr), transports: ["websocket"], or the option helps.
#
# Seen with Node.js 20.20.2, CPython 3.11.7 (requests of one session, "cookie" where it came back):
#   socket.io-client                  GET polling, POST polling, GET websocket, GET polling
#   socket.io-client withCredentials  GET polling, POST polling cookie, GET websocket cookie, GET polling cookie
#   python-socketio Client            GET polling, GET websocket cookie
#   python-socketio AsyncClient       GET polling, GET websocket cookie
#   SignalR                           POST negotiate, GET websocket cookie
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m pip -q --disable-pip-version-check install --root-user-action ignore --target lib \
  python-socketio==5.18.1 python-engineio==4.15.1 requests==2.34.2 websocket-client==1.9.2 aiohttp==3.14.5
npm init -y >/dev/null
npm install --silent --no-audit --no-fund socket.io@4.8.4 socket.io-client@4.8.4 @microsoft/signalr@10.0.11 >/dev/null

cat >client.py <<'PY'
import asyncio, sys
import socketio
kind, url = sys.argv[1:]

def main():
    client = socketio.Client()
    client.connect(url)
    while client.transport() != "websocket":
        client.sleep(0.05)
    client.disconnect()

async def amain():
    client = socketio.AsyncClient()
    await client.connect(url)
    while client.transport() != "websocket":
        await asyncio.sleep(0.05)
    await client.disconnect()

main() if kind == "Client" else asyncio.run(amain())
PY

cat >run.mjs <<'JS'
import { spawn } from "node:child_process";
import { once } from "node:events";
import http from "node:http";
import * as signalR from "@microsoft/signalr";
import { Server } from "socket.io";
import { io } from "socket.io-client";

let seen = [];
const note = (request, what) => {
  const line = `${request.method} ${what}${request.headers.cookie ? " cookie" : ""}`;
  if (seen.at(-1) !== line) seen.push(line); // a poll that is asked twice in a row counts once
};
const sticky = "route=a; Path=/; HttpOnly";

// What a proxy with affinity does: a cookie with the first answer of a session.
const polling = http.createServer();
const server = new Server(polling);
server.engine.on("initial_headers", (headers) => (headers["set-cookie"] = sticky));
server.engine.on("headers", (_, request) => note(request, new URL(request.url, "http://a").searchParams.get("transport")));
const hub = http.createServer((request, response) => {
  note(request, "negotiate");
  response.setHeader("Set-Cookie", sticky);
  response.end(JSON.stringify({
    negotiateVersion: 1,
    connectionId: "a",
    connectionToken: "b",
    availableTransports: [{ transport: "WebSockets", transferFormats: ["Text"] }],
  }));
});
hub.on("upgrade", (request, socket) => {
  note(request, "websocket");
  socket.destroy();
});
const listen = async (server) => {
  server.listen(0, "localhost");
  await once(server, "listening");
  return `http://localhost:${server.address().port}`;
};
const url = await listen(polling);
const hubUrl = await listen(hub);

const node = async (options) => {
  const client = io(url, options);
  await once(client, "connect");
  if (client.io.engine.transport.name !== "websocket") await once(client.io.engine, "upgrade");
  client.close();
};
const python = (kind) => once(spawn("python3", ["client.py", kind, url], { stdio: "inherit" }), "exit");
for (const [name, call] of [
  ["socket.io-client", () => node({})],
  ["socket.io-client withCredentials", () => node({ withCredentials: true })],
  ["python-socketio Client", () => python("Client")],
  ["python-socketio AsyncClient", () => python("AsyncClient")],
  ["SignalR", () => new signalR.HubConnectionBuilder().withUrl(`${hubUrl}/hub`).configureLogging("none").build().start().catch(() => {})],
]) {
  seen = [];
  await call();
  console.log(`${name.padEnd(32)}  ${seen.join(", ")}`);
}
process.exit(0);
JS

PYTHONPATH=lib node run.mjs | tee seen
cat >expected <<'TEXT'
socket.io-client                  GET polling, POST polling, GET websocket, GET polling
socket.io-client withCredentials  GET polling, POST polling cookie, GET websocket cookie, GET polling cookie
python-socketio Client            GET polling, GET websocket cookie
python-socketio AsyncClient       GET polling, GET websocket cookie
SignalR                           POST negotiate, GET websocket cookie
TEXT
diff expected seen && echo "As described: Node.js $(node -v), $(python3 -V)."
