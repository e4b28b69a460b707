#!/usr/bin/env bash
# With a WebSocket server attached, a Node.js application answers 400 to every plain GET of Java's HttpClient.
#
# Needs: node, javac.
#
# Expected: Upgrade is an offer that a server may ignore (RFC 9110 7.8). Java's HttpClient makes the offer "h2c" with its first request
# on each cleartext connection, and Node.js, which has no h2c, answers over HTTP/1.1 with 200.
#
# What happens: that is so until the application listens for upgrades. Then Node.js gives every request with an Upgrade field, for
# whatever protocol and path, to the listener and never to the application. ws 8.23.0 refuses all but "websocket" with 400
# "Invalid Upgrade header", even on paths that are not its own ("path: '/socket'").
#
# Why it matters: a proxy that passes every Upgrade field on to the backend breaks ordinary GETs between two healthy parties; curl without
# --http2 and browsers never show it. The offer of h2c must end at the proxy, together with HTTP2-Settings, and the request must continue as
# a normal one.
#
# Seen with Node.js 20.20.2, ws 8.23.0, OpenJDK 17.0.15:
#   without ws              GET / offers h2c  200 page
#   ws on /socket           GET / offers h2c  400 Invalid Upgrade header
#   ws on /socket           GET / no offer    200 page
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund ws@8.23.0 >/dev/null

cat >server.mjs <<'JS'
import http from "node:http";
import { WebSocketServer } from "ws";
const server = http.createServer((request, response) => response.end("page"));
if (process.argv[2]) new WebSocketServer({ server, path: process.argv[2] });
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
JS

cat >Client.java <<'JAVA'
import java.net.URI;
import java.net.http.*;

public class Client {
    public static void main(String[] arguments) throws Exception {
        var client = HttpClient.newBuilder().version(HttpClient.Version.valueOf(arguments[1])).build();
        var request = HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + arguments[0] + "/")).build();
        var answer = client.send(request, HttpResponse.BodyHandlers.ofString());
        System.out.println(answer.statusCode() + " " + answer.body());
        System.exit(0);
    }
}
JAVA
javac Client.java

node server.mjs >plain &
node server.mjs /socket >websocket &
while [ ! -s plain ] || [ ! -s websocket ]; do sleep 0.1; done
{
  # HTTP_2 is the client's default.
  echo "without ws              GET / offers h2c  $(java Client "$(cat plain)" HTTP_2)"
  echo "ws on /socket           GET / offers h2c  $(java Client "$(cat websocket)" HTTP_2)"
  echo "ws on /socket           GET / no offer    $(java Client "$(cat websocket)" HTTP_1_1)"
} | tee seen

cat >expected <<'TEXT'
without ws              GET / offers h2c  200 page
ws on /socket           GET / offers h2c  400 Invalid Upgrade header
ws on /socket           GET / no offer    200 page
TEXT
diff expected seen && echo "As described: Node.js $(node -v), ws 8.23.0, $(javac -version)."
