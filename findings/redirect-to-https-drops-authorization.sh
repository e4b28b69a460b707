#!/usr/bin/env bash
# The redirect to https makes curl, fetch, axios, aiohttp and urllib3 forget the credentials that they have already sent in the clear.
#
# Needs: python3, node, go, curl, openssl, and unshare with user namespaces (the ports have to be 80 and 443).
#
# Expected: clients drop Authorization when a redirect leads to another host. http://shop.example to https://shop.example is the same
# host and the safer scheme, so they keep it; a proxy that answers 308 to everything unencrypted costs a round trip, no more.
#
# What happens: half of them compare the whole origin, where the scheme and with it the port differ.
#   fetch of Node.js, axios 1.21.1, aiohttp 3.14.5 (both the header and auth=), urllib3 2.8.0, and curl with -u as well as
#   with -H "Authorization: ..."  drop it, and the call ends with the application's 401
#   requests 2.34.2 and httpx 0.28.1 (an exception for the default ports), got 14.6.6, Go net/http  keep it
# A Cookie field given to curl with -b is kept. All of them repeat the body of the POST; only urllib of Python refuses to.
#
# Why it matters: "it works in Go and fails in Node with 401" makes people search the authentication, not for a URL that begins with http:.
# Either way, the secret and the whole body went unencrypted first. For clients other than browsers, a plain port that refuses is clearer
# than one that redirects.
#
# Seen with CPython 3.11.7, Node.js 20.20.2, go1.26.8, curl 7.88.1 (what the https server got after a 308):
#   requests      POST  Authorization kept     body kept
#   httpx         POST  Authorization kept     body kept
#   urllib3       POST  Authorization dropped  body kept
#   aiohttp       POST  Authorization dropped  body kept
#   aiohttp auth= POST  Authorization dropped  body kept
#   urllib        POST  HTTPError
#   fetch         POST  Authorization dropped  body kept
#   axios         POST  Authorization dropped  body kept
#   got           POST  Authorization kept     body kept
#   Go net/http   POST  Authorization kept     body kept
#   curl -u       POST  Authorization dropped  body kept
#   curl -H       POST  Authorization dropped  body kept
#   curl -b       POST  Cookie        kept     body kept
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m pip -q --disable-pip-version-check install --root-user-action ignore --target lib \
  requests==2.34.2 httpx==0.28.1 aiohttp==3.14.5 urllib3==2.8.0
npm init -y >/dev/null
npm install --silent --no-audit --no-fund axios@1.21.1 got@14.6.6 >/dev/null
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=shop.example \
  -addext subjectAltName=DNS:shop.example 2>/dev/null
printf '127.0.0.1 localhost shop.example\n' >hosts

# Port 80 redirects to port 443, which answers with what it was sent.
cat >server.py <<'PY'
import http.server, ssl, threading

class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        if isinstance(self.connection, ssl.SSLSocket):
            name = self.path.strip("/") or "Authorization"
            body = f"{name:13} {'kept' if self.headers[name] else 'dropped':8} body {'kept' if sent == b'hello' else 'dropped'}".encode()
            self.send_response(200)
        else:
            self.send_response(308)
            self.send_header("Location", "https://shop.example" + self.path)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

plain = http.server.ThreadingHTTPServer(("127.0.0.1", 80), Server)
secure = http.server.ThreadingHTTPServer(("127.0.0.1", 443), Server)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem", "key.pem")
secure.socket = context.wrap_socket(secure.socket, server_side=True)
threading.Thread(target=plain.serve_forever, daemon=True).start()
open("ready", "w").close()
secure.serve_forever()
PY

cat >client.py <<'PY'
import asyncio, ssl, urllib.request, warnings
import aiohttp, httpx, requests, urllib3

warnings.simplefilter("ignore")
url, fields, body = "http://shop.example/", {"Authorization": "Bearer token"}, b"hello"
context = ssl.create_default_context(cafile="cert.pem")

async def by_aiohttp(**more):
    async with aiohttp.ClientSession() as session, session.post(url, data=body, ssl=context, **more) as answer:
        return await answer.text()

for name, call in [
    ("requests", lambda: requests.post(url, headers=fields, data=body, verify="cert.pem").text),
    ("httpx", lambda: httpx.post(url, headers=fields, content=body, verify=context, follow_redirects=True).text),
    ("urllib3", lambda: urllib3.PoolManager(ca_certs="cert.pem").request("POST", url, headers=fields, body=body).data.decode()),
    ("aiohttp", lambda: asyncio.run(by_aiohttp(headers=fields))),
    ("aiohttp auth=", lambda: asyncio.run(by_aiohttp(auth=aiohttp.BasicAuth("user", "password")))),
    ("urllib", lambda: urllib.request.urlopen(urllib.request.Request(url, headers=fields, data=body), context=context).read().decode()),
]:
    try:
        seen = call()
    except Exception as error:
        seen = type(error).__name__
    print(f"{name:13} POST  {seen}")
PY

cat >client.mjs <<'JS'
import axios from "axios";
import got from "got";
const url = "http://shop.example/", headers = { Authorization: "Bearer token" }, body = "hello", method = "POST";
for (const [name, call] of [
  ["fetch", async () => (await fetch(url, { method, headers, body })).text()],
  ["axios", async () => (await axios.post(url, body, { headers })).data],
  ["got", async () => (await got.post(url, { headers, body })).body],
]) {
  console.log(`${name.padEnd(13)} POST  ${await call()}`);
}
JS

cat >main.go <<'GO'
package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
)

func main() {
	request, err := http.NewRequest("POST", "http://shop.example/", strings.NewReader("hello"))
	if err != nil {
		panic(err)
	}
	request.Header.Set("Authorization", "Bearer token")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		panic(err)
	}
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%-13s POST  %s\n", "Go net/http", body)
}
GO
go build -o client main.go

cat >run.sh <<'SH'
set -euo pipefail
ip link set lo up
mount --bind hosts /etc/hosts
python3 server.py &
trap "kill $!" EXIT
while [ ! -e ready ]; do sleep 0.1; done
PYTHONPATH=lib python3 client.py
NODE_EXTRA_CA_CERTS=cert.pem node client.mjs
SSL_CERT_FILE=cert.pem ./client
by_curl() { printf 'curl %-8s POST  %s\n' "$1" "$(curl -sL --cacert cert.pem -d hello "$@")"; }
by_curl -u user:password http://shop.example/
by_curl -H 'Authorization: Bearer token' http://shop.example/
by_curl -b route=17 http://shop.example/Cookie
SH
unshare -rnm bash run.sh | tee seen

cat >expected <<'TEXT'
requests      POST  Authorization kept     body kept
httpx         POST  Authorization kept     body kept
urllib3       POST  Authorization dropped  body kept
aiohttp       POST  Authorization dropped  body kept
aiohttp auth= POST  Authorization dropped  body kept
urllib        POST  HTTPError
fetch         POST  Authorization dropped  body kept
axios         POST  Authorization dropped  body kept
got           POST  Authorization kept     body kept
Go net/http   POST  Authorization kept     body kept
curl -u       POST  Authorization dropped  body kept
curl -H       POST  Authorization dropped  body kept
curl -b       POST  Cookie        kept     body kept
TEXT
diff expected seen && echo "As described: $(python3 -V), Node.js $(node -v), $(go version), $(curl -V | head -n 1 | cut -d ' ' -f 1-2)."
