#!/usr/bin/env bash
# A client that closes its sending side after the request gets no answer from four of seven servers, and no error either.
#
# Needs: python3, node, go.
#
# Expected: closing the sending side after the last request is how TCP says "no more requests"; RFC 9112 9.6 describes the same from the
# server's side. A server has the whole request, so it answers and closes. Node.js even sets allowHalfOpen on its sockets.
#
# What happens, with one GET that takes the application 0.5 s, on a connection that the client has closed for sending:
#   gunicorn 27.0.1, hypercorn 0.18.0   answer
#   Go net/http                         answers, but the request's context is cancelled at once, so whatever the handler does with it
#                                       (a query, a call to another service) fails, and the answer says so
#   Node.js, aiohttp 3.14.5, granian 2.8.9, uvicorn 0.54.0   close without a byte
#
# Why it matters: a proxy that passes the client's half-close on to the backend, as one for plain TCP does and as a tunnel after CONNECT or
# 101 must, turns "printf ... | nc -N" from working into an empty answer that depends on the backend's language. For HTTP the sending side
# of a backend connection must stay open until the answer is complete. As for what the proxy itself does with a client's half-close: the
# servers that it replaces did not agree either, so its documentation should say whether it waits or gives up.
#
# Seen with CPython 3.11.7, Node.js 20.20.2, go1.26.8:
#   gunicorn   answer: done
#   hypercorn  answer: done
#   Go         answer: context canceled
#   Node.js    nothing
#   aiohttp    nothing
#   granian    nothing
#   uvicorn    nothing
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m pip -q --disable-pip-version-check install --root-user-action ignore --target lib \
  gunicorn==27.0.1 hypercorn==0.18.0 aiohttp==3.14.5 granian==2.8.9 uvicorn==0.54.0
export PYTHONPATH=lib

cat >app.py <<'PY'
import asyncio, time

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": kind + ".complete"})
            if kind == "lifespan.shutdown":
                return
    await asyncio.sleep(0.5)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"done"})

def wsgi(environ, start):
    time.sleep(0.5)
    start("200 OK", [("Content-Length", "4")])
    return [b"done"]
PY

cat >by_aiohttp.py <<'PY'
import asyncio, sys
from aiohttp import web

async def answer(request):
    await asyncio.sleep(0.5)
    return web.Response(text="done")

app = web.Application()
app.router.add_get("/", answer)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
PY

cat >server.mjs <<'JS'
import http from "node:http";
http.createServer((request, response) => setTimeout(() => response.end("done"), 500)).listen(process.argv[2], "127.0.0.1");
JS

cat >main.go <<'GO'
package main

import (
	"io"
	"net/http"
	"os"
	"time"
)

func main() {
	panic(http.ListenAndServe("127.0.0.1:"+os.Args[1], http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		select {
		case <-time.After(500 * time.Millisecond):
			io.WriteString(w, "done")
		case <-request.Context().Done():
			io.WriteString(w, request.Context().Err().Error())
		}
	})))
}
GO
go build -o server main.go

cat >client.py <<'PY'
import socket, sys, time

for line in open("ports"):
    name, port = line.rsplit(maxsplit=1)
    for half_close in [False, True]:
        for _ in range(300):
            try:
                connection = socket.create_connection(("127.0.0.1", int(port)))
                break
            except ConnectionRefusedError:
                time.sleep(0.1)
        connection.settimeout(5)
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        seen = b""
        while b"\r\n\r\n" not in seen or not seen.endswith((b"done", b"canceled", b"0\r\n\r\n")):
            data = connection.recv(65536)
            if not data:
                break
            seen += data
        connection.close()
        body = next((text for text in ["done", "context canceled"] if text in seen.decode()), None)
        if half_close:
            print(f"{name:10} {'answer: ' + body if body else 'nothing' if not seen else seen}")
        elif body != "done":
            sys.exit(f"{name} does not serve: {seen}")
PY

python3 -c '
import socket
servers = ["gunicorn", "hypercorn", "Go", "Node.js", "aiohttp", "granian", "uvicorn"]
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in servers]
for name, taken in zip(servers, sockets):
    print(name, taken.getsockname()[1])' >ports
port() { sed -n "s/^$1 //p" ports; }
python3 -m gunicorn -b "127.0.0.1:$(port gunicorn)" app:wsgi >log 2>&1 &
python3 -m hypercorn -b "127.0.0.1:$(port hypercorn)" app:asgi >log 2>&1 &
./server "$(port Go)" &
node server.mjs "$(port Node.js)" &
python3 by_aiohttp.py "$(port aiohttp)" 2>log &
python3 -m granian --host 127.0.0.1 --port "$(port granian)" --interface asgi app:asgi >log 2>&1 &
python3 -m uvicorn --port "$(port uvicorn)" app:asgi >log 2>&1 &
python3 client.py | tee seen

cat >expected <<'TEXT'
gunicorn   answer: done
hypercorn  answer: done
Go         answer: context canceled
Node.js    nothing
aiohttp    nothing
granian    nothing
uvicorn    nothing
TEXT
diff expected seen && echo "As described: $(python3 -V), Node.js $(node -v), $(go version)."
