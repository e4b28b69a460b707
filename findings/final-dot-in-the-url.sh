#!/usr/bin/env bash
# A final dot in the URL, which spares a pod its search domains, works with seven HTTP clients, and fails with three.
#
# Needs: python3, node, go, javac, curl, openssl, and unshare with user namespaces (for a name that resolves).
#
# Expected: "https://shop.example./" is an absolute DNS name, the usual advice against five lookups per call in Kubernetes. The dot is for the
# resolver; clients drop it for TLS (RFC 6066 3 wants the name in SNI without it) and verify the name without it. Host may keep it.
#
# What happens (certificate for shop.example):
#   Go net/http, curl, HttpsURLConnection   SNI without the dot, Host with it
#   requests 2.34.2, aiohttp 3.14.5         no dot in either
#   fetch and node:https of Node.js         SNI with the dot, Host with it
#   httpx 0.28.1, urllib of Python          refuse the certificate: "not valid for 'shop.example.'"
#   Java HttpClient 17                      IllegalArgumentException before anything is sent
#
# Why it matters: a proxy meets three combinations of SNI and Host for one name, and one that compares them, for 421 or to choose a client
# certificate's policy, must drop the dot from both first; the choice of a certificate by SNI must ignore it too. The advice for pods must
# name the clients; a lower ndots does the same for all of them.
#
# Seen with CPython 3.11.7, Node.js 20.20.2, go1.26.8, OpenJDK 17.0.15, curl 7.88.1:
#   Go                  SNI shop.example    Host shop.example.
#   curl                SNI shop.example    Host shop.example.
#   HttpsURLConnection  SNI shop.example    Host shop.example.
#   requests            SNI shop.example    Host shop.example
#   aiohttp             SNI shop.example    Host shop.example
#   fetch               SNI shop.example.   Host shop.example.
#   node:https          SNI shop.example.   Host shop.example.
#   httpx               ConnectError
#   urllib              URLError
#   HttpClient          IllegalArgumentException
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m pip -q --disable-pip-version-check install --root-user-action ignore --target lib requests==2.34.2 httpx==0.28.1 aiohttp==3.14.5
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=shop.example \
  -addext subjectAltName=DNS:shop.example 2>/dev/null
printf '127.0.0.1 localhost shop.example shop.example.\n' >hosts

cat >server.py <<'PY'
import http.server, ssl

names = {}

class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"SNI {names[self.connection]:15} Host {self.headers['Host']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

class Quiet(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):
        pass

server = Quiet(("127.0.0.1", 443), Server)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem", "key.pem")
context.sni_callback = lambda connection, name, _: names.update({connection: name})
# The handshake belongs to the connection's thread, so that a client that gives up doesn't end the server.
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
open("ready", "w").close()
server.serve_forever()
PY

cat >client.py <<'PY'
import asyncio, ssl, urllib.request
import aiohttp, httpx, requests

url, context = "https://shop.example./", ssl.create_default_context(cafile="cert.pem")

async def by_aiohttp():
    async with aiohttp.ClientSession() as session, session.get(url, ssl=context) as answer:
        return await answer.text()

for name, call in [
    ("requests", lambda: requests.get(url, verify="cert.pem").text),
    ("aiohttp", lambda: asyncio.run(by_aiohttp())),
    ("httpx", lambda: httpx.get(url, verify=context).text),
    ("urllib", lambda: urllib.request.urlopen(url, context=context).read().decode()),
]:
    try:
        seen = call()
    except Exception as error:
        seen = type(error).__name__
    print(f"{name:19} {seen}")
PY

cat >client.mjs <<'JS'
import https from "node:https";
const url = "https://shop.example./";
console.log("fetch              ", await (await fetch(url)).text());
https.get(url, (answer) => answer.on("data", (data) => console.log("node:https         ", String(data))));
JS

cat >main.go <<'GO'
package main

import (
	"fmt"
	"io"
	"net/http"
)

func main() {
	answer, err := http.Get("https://shop.example./")
	if err != nil {
		panic(err)
	}
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%-19s %s\n", "Go", body)
}
GO
go build -o client main.go

cat >Client.java <<'JAVA'
import java.net.*;
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
        var connection = (HttpsURLConnection) new URL("https://shop.example./").openConnection();
        connection.setSSLSocketFactory(context.getSocketFactory());
        System.out.printf("%-19s %s%n", "HttpsURLConnection", new String(connection.getInputStream().readAllBytes()));
        String seen;
        try {
            var request = HttpRequest.newBuilder(URI.create("https://shop.example./")).build();
            seen = HttpClient.newBuilder().sslContext(context).build().send(request, HttpResponse.BodyHandlers.ofString()).body();
        } catch (IllegalArgumentException error) {
            seen = "IllegalArgumentException";
        }
        System.out.printf("%-19s %s%n", "HttpClient", seen);
        System.exit(0);
    }
}
JAVA
javac Client.java

cat >run.sh <<'SH'
set -euo pipefail
ip link set lo up
mount --bind hosts /etc/hosts
python3 server.py &
trap "kill $!" EXIT
while [ ! -e ready ]; do sleep 0.1; done
SSL_CERT_FILE=cert.pem ./client
echo "curl                $(curl -s --cacert cert.pem https://shop.example./)"
java Client
PYTHONPATH=lib python3 client.py
NODE_EXTRA_CA_CERTS=cert.pem node client.mjs
SH
unshare -rnm bash run.sh | tee seen

cat >expected <<'TEXT'
Go                  SNI shop.example    Host shop.example.
curl                SNI shop.example    Host shop.example.
HttpsURLConnection  SNI shop.example    Host shop.example.
HttpClient          IllegalArgumentException
requests            SNI shop.example    Host shop.example
aiohttp             SNI shop.example    Host shop.example
httpx               ConnectError
urllib              URLError
fetch               SNI shop.example.   Host shop.example.
node:https          SNI shop.example.   Host shop.example.
TEXT
diff expected seen && echo "As described: $(python3 -V), Node.js $(node -v), $(go version), $(javac -version), $(curl -V | head -n 1 | cut -d ' ' -f 1-2)."
