#!/usr/bin/env bash
# fetch of Node.js gives up a connection after 4 s without the old Keep-Alive field, keeps it for longer with it, and with "timeout=2" not at all.
#
# Needs: python3, node.
#
# Expected: "Keep-Alive: timeout=N" is a relic of HTTP/1.0 that no client reads; each side has its own time limit, and the lower one wins. A
# proxy that leaves the field out and keeps idle connections for 75 s serves a caller that calls every 5 s on one connection.
#
# What happens, in undici 7.30.2 and the fetch that is built into Node.js 20:
#   no field                  idle connections are closed after 4 s, whatever the server would allow
#   timeout=20                kept for 18 s (2 s less, so as not to meet the server's close): the field makes it longer
#   timeout=2 and timeout=1   every request gets a new connection, even 50 ms later, since nothing is left after those 2 s
# node:http, with its default agent, has 5 s, which the field (less 1 s) can shorten, but not lengthen.
#
# Why it matters: services that call every few seconds make a new connection, with a TLS handshake, for each call, and the idle time that
# was set at the proxy changes nothing. One field does: "Keep-Alive: timeout=" with the proxy's own idle time. The client then
# also closes before the proxy does, so requests no longer meet a connection that is being closed. A drain that announces the
# end by a short time-out gets the opposite of keeping: a connection per request; "Connection: close" is the clear form.
#
# Seen with Node.js 20.20.2 (connections made for three requests):
#   Keep-Alive   pause    undici  fetch  node:http
#   none         0.05 s        1      1          1
#   none         6 s           3      3          3
#   timeout=20   6 s           1      1          3
#   timeout=3    0.05 s        1      1          1
#   timeout=2    0.05 s        3      3          1
#   timeout=1    0.05 s        3      3          3
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund undici@7.30.2 >/dev/null

# Never closes a connection, and answers with the number of connections to the port so far.
cat >server.py <<'PY'
import http.server, threading, time

def serve(field):
    class Server(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        connections = 0

        def setup(self):
            super().setup()
            Server.connections += 1

        def do_GET(self):
            body = str(Server.connections).encode()
            self.send_response(200)
            if field != "none":
                self.send_header("Keep-Alive", field)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port

for field, pause in [("none", 0.05), ("none", 6), ("timeout=20", 6), ("timeout=3", 0.05), ("timeout=2", 0.05), ("timeout=1", 0.05)]:
    print(field, pause, *(serve(field) for _ in range(3)), flush=True)
while True:
    time.sleep(1)
PY

cat >client.mjs <<'JS'
import fs from "node:fs";
import http from "node:http";
import * as undici from "undici";
const clients = [
  async (url) => (await undici.fetch(url)).text(),
  async (url) => (await fetch(url)).text(),
  (url) => new Promise((resolve, reject) => {
    http.get(url, (answer) => {
      let body = "";
      answer.on("data", (data) => (body += data)).on("end", () => resolve(body));
    }).on("error", reject);
  }),
];
async function connections(call, port, pause) {
  const url = `http://127.0.0.1:${port}/`;
  await call(url);
  for (let i = 0; i < 2; i++) {
    await new Promise((resolve) => setTimeout(resolve, pause * 1000));
    var seen = await call(url);
  }
  return seen;
}
const lines = fs.readFileSync("ports", "utf8").trim().split("\n").map(async (line) => {
  const [field, pause, ...ports] = line.split(" ");
  const seen = await Promise.all(clients.map((call, i) => connections(call, ports[i], Number(pause))));
  return `${field.padEnd(11)}  ${(pause + " s").padEnd(6)}  ${seen[0].padStart(7)}  ${seen[1].padStart(5)}  ${seen[2].padStart(9)}`;
});
console.log("Keep-Alive   pause    undici  fetch  node:http");
for (const line of await Promise.all(lines)) console.log(line);
process.exit(0);
JS

: >ports
python3 server.py >ports &
server=$!
while [ "$(wc -l <ports)" -lt 6 ]; do sleep 0.1; done
node client.mjs | tee seen

cat >expected <<'TEXT'
Keep-Alive   pause    undici  fetch  node:http
none         0.05 s        1      1          1
none         6 s           3      3          3
timeout=20   6 s           1      1          3
timeout=3    0.05 s        1      1          1
timeout=2    0.05 s        3      3          1
timeout=1    0.05 s        3      3          3
TEXT
diff expected seen && echo "As described: Node.js $(node -v), undici 7.30.2."
