#!/usr/bin/env bash
# Go and Java hold their client certificate back if the server's list of authorities does not name its issuer; the others send it.
#
# Needs: python3, node, go, javac, curl, openssl.
#
# Expected: a client that was given a certificate sends it when it is asked for one. If the server does not know the authority, that is for
# the server to find out; it then refuses with an alert or, if it accepts any certificate, continues.
#
# What happens: the request for a certificate carries the names of the authorities that the server trusts. For a certificate of another one
#   Go 1.26 (tls.Config.Certificates) and Java 17 (KeyManagerFactory)   finish the handshake without a certificate
#   curl, requests 2.34.2, httpx 0.28.1, Node.js                        send it
# If the server's list is empty, as TLS allows, all of them send it.
#
# Why it matters: "optional_no_ca" is for backends that check the certificate on their own, for example by fingerprint, so self-signed ones
# and those of other authorities must arrive. With a list of names they arrive from curl, which the setup was tested with, but from Go and
# Java services the backend gets "no certificate". The same happens when the authority is replaced: clients with a new certificate are
# refused as if they had none, not as untrusted. A proxy that accepts any certificate should send an empty list, and its message for "no
# certificate" should say that the client may have one but not offer it.
#
# Seen with CPython 3.11.7, Node.js 20.20.2, go1.26.8, OpenJDK 17.0.15, curl 7.88.1 (what the server was sent):
#   client     list with another authority  empty list
#   Go         none                         client
#   Java       none                         client
#   curl       client                       client
#   requests   client                       client
#   httpx      client                       client
#   Node.js    client                       client
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m pip -q --disable-pip-version-check install --root-user-action ignore --target lib requests==2.34.2 httpx==0.28.1
for name in localhost client; do
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$name.key" -out "$name.pem" -days 2 -subj "/CN=$name" \
    -addext "subjectAltName=DNS:$name" 2>/dev/null
done
openssl pkcs12 -export -in client.pem -inkey client.key -out client.p12 -passout pass:secret

# Accepts any certificate, and answers with its name. The first port names one authority, which is not the issuer of the client's.
cat >server.mjs <<'JS'
import fs from "node:fs";
import https from "node:https";
const [cert, key] = ["pem", "key"].map((kind) => fs.readFileSync(`localhost.${kind}`));
for (const ca of [cert, []]) {
  const server = https.createServer({ cert, key, ca, requestCert: true, rejectUnauthorized: false }, (request, response) => {
    response.end(request.socket.getPeerCertificate().subject?.CN ?? "none");
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  console.log(`https://localhost:${server.address().port}/`);
}
JS

cat >client.py <<'PY'
import ssl, sys
import httpx, requests

context = ssl.create_default_context(cafile="localhost.pem")
context.load_cert_chain("client.pem", "client.key")
print("requests", *(requests.get(url, cert=("client.pem", "client.key"), verify="localhost.pem").text for url in sys.argv[1:]))
print("httpx", *(httpx.get(url, verify=context).text for url in sys.argv[1:]))
PY

cat >client.mjs <<'JS'
import fs from "node:fs";
import https from "node:https";
const [ca, cert, key] = ["localhost.pem", "client.pem", "client.key"].map((name) => fs.readFileSync(name));
const seen = [];
for (const url of process.argv.slice(2)) {
  seen.push(await new Promise((resolve) => https.get(url, { ca, cert, key, agent: false }, (answer) => answer.on("data", (data) => resolve(data)))));
}
console.log("Node.js", ...seen.map(String));
process.exit(0);
JS

cat >main.go <<'GO'
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func main() {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(must(os.ReadFile("localhost.pem")))
	certificate := must(tls.LoadX509KeyPair("client.pem", "client.key"))
	config := &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{certificate}}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
	fmt.Print("Go")
	for _, url := range os.Args[1:] {
		fmt.Printf(" %s", must(io.ReadAll(must(client.Get(url)).Body)))
	}
	fmt.Println()
}
GO
go build -o client main.go

cat >Client.java <<'JAVA'
import java.net.URI;
import java.net.http.*;
import java.nio.file.*;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import javax.net.ssl.*;

public class Client {
    public static void main(String[] urls) throws Exception {
        var trusted = KeyStore.getInstance("PKCS12");
        trusted.load(null, null);
        try (var pem = Files.newInputStream(Path.of("localhost.pem"))) {
            trusted.setCertificateEntry("server", CertificateFactory.getInstance("X.509").generateCertificate(pem));
        }
        var trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(trusted);
        var own = KeyStore.getInstance("PKCS12");
        try (var file = Files.newInputStream(Path.of("client.p12"))) {
            own.load(file, "secret".toCharArray());
        }
        var keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        keys.init(own, "secret".toCharArray());
        var context = SSLContext.getInstance("TLS");
        context.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
        var client = HttpClient.newBuilder().sslContext(context).build();
        System.out.print("Java");
        for (var url : urls) {
            System.out.print(" " + client.send(HttpRequest.newBuilder(URI.create(url)).build(), HttpResponse.BodyHandlers.ofString()).body());
        }
        System.out.println();
        System.exit(0);
    }
}
JAVA
javac Client.java

: >urls
node server.mjs >urls &
server=$!
while [ "$(wc -l <urls)" -lt 2 ]; do sleep 0.1; done
mapfile -t urls <urls
by_curl() { curl -s --cacert localhost.pem --cert client.pem --key client.key "$1"; }
{
  ./client "${urls[@]}"
  java Client "${urls[@]}"
  echo "curl $(by_curl "${urls[0]}") $(by_curl "${urls[1]}")"
  PYTHONPATH=lib python3 client.py "${urls[@]}"
  node client.mjs "${urls[@]}"
} | while read -r name other empty; do printf '%-9s  %-27s  %s\n' "$name" "$other" "$empty"; done | tee seen

cat >expected <<'TEXT'
Go         none                         client
Java       none                         client
curl       client                       client
requests   client                       client
httpx      client                       client
Node.js    client                       client
TEXT
diff expected seen && echo "As described: $(python3 -V), Node.js $(node -v), $(go version), $(javac -version), $(curl -V | head -n 1 | cut -d ' ' -f 1-2)."
