#!/usr/bin/env bash
# fetch of Node.js repeats every request that gets a 421, POST and DELETE too, on a new connection, even if the first one was new as well.
#
# Needs: python3, node.
#
# Expected: a client repeats a request after a 421 if it sent it on a connection that was made for another name (HTTP/2 coalescing),
# the only case in which another connection changes the answer. fetch of Node.js speaks HTTP/1.1 and shares no connection between names.
#
# What happens, with the fetch of Node.js 20 and undici 7.30.2: each 421 is followed by the same request on another connection, once, for
# every method and every body but a stream. The caller sees the second answer. axios 1.21.1, got 14.6.6 and undici.request return the first
# one. fetch turns a 407 into "fetch failed", with an empty cause: neither status nor body reaches the caller.
#
# Why it matters: a server or proxy that answers 421 after it has done the work (a name that no site has, a policy that does not fit)
# gets everything twice; the log has two lines for one call. 421 must be decided from the head alone. And 407, which
# some gateways use for "log in first", cannot be told from an unreachable server.
#
# Seen with Node.js 20.20.2 (method, connections, bytes of each body):
#   fetch GET          421  2 requests  2 connections  0 0
#   fetch POST         421  2 requests  2 connections  5 5
#   fetch DELETE       421  2 requests  2 connections  0 0
#   fetch POST stream  421  1 requests  1 connections  5
#   undici POST        421  2 requests  2 connections  5 5
#   undici.request     421  1 requests  1 connections  5
#   axios POST         421  1 requests  1 connections  5
#   got POST           421  1 requests  1 connections  5
#   fetch GET 407      fetch failed  1 requests  1 connections  0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund undici@7.30.2 axios@1.21.1 got@14.6.6 >/dev/null

cat >run.mjs <<'JS'
import http from "node:http";
import axios from "axios";
import got from "got";
import * as undici from "undici";
let bodies = [];
let sockets = new Set();
const server = http.createServer((request, response) => {
  sockets.add(request.socket);
  let size = 0;
  request.on("data", (data) => (size += data.length)).on("end", () => {
    bodies.push(size);
    response.writeHead(Number(request.url.slice(1)), { "Proxy-Authenticate": "Basic" }).end("not here");
  });
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const url = `http://127.0.0.1:${server.address().port}`;
const post = { method: "POST", body: "hello" };
const stream = () => new ReadableStream({ start: (to) => (to.enqueue(new TextEncoder().encode("hello")), to.close()) });
const any = () => true;
for (const [name, call] of [
  ["fetch GET", () => fetch(`${url}/421`)],
  ["fetch POST", () => fetch(`${url}/421`, post)],
  ["fetch DELETE", () => fetch(`${url}/421`, { method: "DELETE" })],
  ["fetch POST stream", () => fetch(`${url}/421`, { method: "POST", body: stream(), duplex: "half" })],
  ["undici POST", () => undici.fetch(`${url}/421`, post)],
  ["undici.request", () => undici.request(`${url}/421`, post)],
  ["axios POST", () => axios.post(`${url}/421`, "hello", { validateStatus: any })],
  ["got POST", () => got.post(`${url}/421`, { body: "hello", throwHttpErrors: false })],
  ["fetch GET 407", () => fetch(`${url}/407`)],
]) {
  bodies = [];
  sockets = new Set();
  const result = await call().then((answer) => answer.statusCode ?? answer.status, (error) => error.message);
  console.log(`${name.padEnd(17)}  ${result}  ${bodies.length} requests  ${sockets.size} connections  ${bodies.join(" ")}`);
}
process.exit(0);
JS

node run.mjs | tee seen
cat >expected <<'TEXT'
fetch GET          421  2 requests  2 connections  0 0
fetch POST         421  2 requests  2 connections  5 5
fetch DELETE       421  2 requests  2 connections  0 0
fetch POST stream  421  1 requests  1 connections  5
undici POST        421  2 requests  2 connections  5 5
undici.request     421  1 requests  1 connections  5
axios POST         421  1 requests  1 connections  5
got POST           421  1 requests  1 connections  5
fetch GET 407      fetch failed  1 requests  1 connections  0
TEXT
diff expected seen && echo "As described: Node.js $(node -v), undici 7.30.2."
