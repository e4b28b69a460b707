#!/usr/bin/env bash
# wget sends a POST twenty times if the answer is 504, or if the connection closes without one.
#
# Needs: python3, wget 1.x (Debian package wget).
#
# Expected: wget retries a download that breaks off; for a POST it either does not, or only if the connection could not be made. An
# HTTP error is the end ("ERROR 503"), unless --retry-on-http-error lists it.
#
# What happens: the default of 20 tries counts for POST too. A connection that closes after the request was read, and 504, the one
# error status that wget takes for a broken connection, each lead to 20 POSTs, with pauses of 1 to 10 s. 408, 429, 502 and 503 lead to one,
# with or without Retry-After.
#
# Why it matters: "wget -q -O- --post-data= https://shop.example/cron" is how many cron jobs start their work. A job that runs longer than
# the proxy's time limit gets 504, and is started again every minute or so, 20 times, each while the ones before still run. The same URL
# behind a proxy that answers 502 or 503 is called once. For time-outs of long jobs the limit of the route must be raised; a different
# status would only move the problem to the next client.
#
# Seen with GNU Wget 1.21.3 (requests that the server got for one call; --waitretry=0 only makes the script faster):
#   408            POST   1  GET   1
#   429            POST   1  GET   1
#   502            POST   1  GET   1
#   503            POST   1  GET   1
#   504            POST  20  GET  20
#   close          POST  20  GET  20
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"

cat >server.py <<'PY'
import http.server

class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    counts = {}

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        if self.path.startswith("/count"):
            body = str(Server.counts.get(self.path.removeprefix("/count"), 0)).encode()
            self.send_response(200)
        else:
            where = f"/{self.command}{self.path}"
            Server.counts[where] = Server.counts.get(where, 0) + 1
            if self.path == "/close":
                self.close_connection = True
                return
            self.send_response(int(self.path[1:]))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
print(server.server_port, flush=True)
server.serve_forever()
PY
python3 server.py >port &
server=$!
while [ ! -s port ]; do sleep 0.1; done
origin=http://127.0.0.1:$(cat port)

for path in 408 429 502 503 504 close; do
  wget --no-config -q -O /dev/null --waitretry=0 --post-data=x=1 "$origin/$path" || true
  wget --no-config -q -O /dev/null --waitretry=0 "$origin/$path" || true
  printf '%-14s POST  %2s  GET  %2s\n' "$path" "$(wget --no-config -q -O- "$origin/count/POST/$path")" "$(wget --no-config -q -O- "$origin/count/GET/$path")"
done | tee seen

cat >expected <<'TEXT'
408            POST   1  GET   1
429            POST   1  GET   1
502            POST   1  GET   1
503            POST   1  GET   1
504            POST  20  GET  20
close          POST  20  GET  20
TEXT
diff expected seen && echo "As described: $(wget --version | head -n 1 | cut -d ' ' -f 1-3)."
