#!/usr/bin/env bash
# Apache HttpClient 4 accepts a cookie with Expires only if the date has the dashes that the cookie specification dropped.
#
# Needs: javac 17, mvn.
#
# Expected: RFC 6265 4.1.1 tells servers to write Expires like every other date of HTTP, "Thu, 01 Jan 2037 00:00:00 GMT", and clients to be
# lenient. A proxy that uses its Date formatter for the cookie is correct, and every client understands it.
#
# What happens: with default settings 4.5.14 logs a warning, "Invalid 'expires' attribute", and does not store the cookie, even if Max-Age
# accompanies Expires. Netscape's old form, "Thu, 01-Jan-37 00:00:00 GMT", is accepted, with a year of two or four digits. Its successor 5.5
# and java.net.CookieManager accept all three.
#
# Why it matters: the client is in countless Java services, and the loss of a sticky session is silent except for that log line on their
# side. The old form is the only one that all of these accept; implementations of RFC 6265 must accept it as well. (Max-Age without Expires
# fails with another Java client, see java-cookie-max-age.sh.)
#
# Seen with OpenJDK 17.0.15 (cookie sent back at the second request):
#   attributes                                                   HttpClient 4  HttpClient 5  CookieManager
#   Path=/                                                       yes           yes           yes
#   Expires=Thu, 01 Jan 2037 00:00:00 GMT; Path=/                no            yes           yes
#   Expires=Thu, 01 Jan 2037 00:00:00 GMT; Max-Age=9; Path=/     no            yes           yes
#   Expires=Thu, 01-Jan-37 00:00:00 GMT; Path=/                  yes           yes           yes
#   Expires=Thu, 01-Jan-2037 00:00:00 GMT; Path=/                yes           yes           yes
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat >pom.xml <<'XML'
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>finding</groupId>
  <artifactId>finding</artifactId>
  <version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.httpcomponents.client5</groupId><artifactId>httpclient5</artifactId><version>5.5</version></dependency>
    <dependency><groupId>org.apache.httpcomponents</groupId><artifactId>httpclient</artifactId><version>4.5.14</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-nop</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
XML
mvn -q -B dependency:copy-dependencies -DoutputDirectory=lib

cat >Client.java <<'JAVA'
import com.sun.net.httpserver.HttpServer;
import java.net.*;
import java.net.http.*;
import java.util.concurrent.atomic.AtomicReference;

public class Client {
    interface Calls {
        void twice(URI uri) throws Exception;
    }

    static void apache4(URI uri) throws Exception {
        try (var client = org.apache.http.impl.client.HttpClients.createDefault()) {
            for (int i = 0; i < 2; i++) {
                client.execute(new org.apache.http.client.methods.HttpGet(uri)).close();
            }
        }
    }

    static void apache5(URI uri) throws Exception {
        try (var client = org.apache.hc.client5.http.impl.classic.HttpClients.createDefault()) {
            for (int i = 0; i < 2; i++) {
                client.execute(new org.apache.hc.client5.http.classic.methods.HttpGet(uri), answer -> answer.getCode());
            }
        }
    }

    static void jdk(URI uri) throws Exception {
        var client = HttpClient.newBuilder().cookieHandler(new CookieManager()).build();
        for (int i = 0; i < 2; i++) {
            client.send(HttpRequest.newBuilder(uri).build(), java.net.http.HttpResponse.BodyHandlers.discarding());
        }
    }

    public static void main(String[] arguments) throws Exception {
        var format = "%-59s  %-12s  %-12s  %s%n";
        System.out.printf(format, "attributes", "HttpClient 4", "HttpClient 5", "CookieManager");
        for (var attributes : new String[] {
            "Path=/",
            "Expires=Thu, 01 Jan 2037 00:00:00 GMT; Path=/",
            "Expires=Thu, 01 Jan 2037 00:00:00 GMT; Max-Age=9; Path=/",
            "Expires=Thu, 01-Jan-37 00:00:00 GMT; Path=/",
            "Expires=Thu, 01-Jan-2037 00:00:00 GMT; Path=/",
        }) {
            var last = new AtomicReference<String>();
            var server = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
            server.createContext("/", exchange -> {
                last.set(exchange.getRequestHeaders().getFirst("Cookie"));
                exchange.getResponseHeaders().set("Set-Cookie", "route=17; " + attributes);
                exchange.sendResponseHeaders(204, -1);
                exchange.close();
            });
            server.start();
            var uri = URI.create("http://127.0.0.1:" + server.getAddress().getPort() + "/");
            var seen = new String[3];
            Calls[] clients = {Client::apache4, Client::apache5, Client::jdk};
            for (int i = 0; i < 3; i++) {
                last.set(null);
                clients[i].twice(uri);
                seen[i] = "route=17".equals(last.get()) ? "yes" : last.get() == null ? "no" : last.get();
            }
            System.out.printf(format, attributes, seen[0], seen[1], seen[2]);
            server.stop(0);
        }
        System.exit(0);
    }
}
JAVA
javac -cp 'lib/*' Client.java
java -cp 'lib/*:.' Client 2>log | tee seen
grep -m1 -o "Invalid 'expires' attribute" log

cat >expected <<'TEXT'
attributes                                                   HttpClient 4  HttpClient 5  CookieManager
Path=/                                                       yes           yes           yes
Expires=Thu, 01 Jan 2037 00:00:00 GMT; Path=/                no            yes           yes
Expires=Thu, 01 Jan 2037 00:00:00 GMT; Max-Age=9; Path=/     no            yes           yes
Expires=Thu, 01-Jan-37 00:00:00 GMT; Path=/                  yes           yes           yes
Expires=Thu, 01-Jan-2037 00:00:00 GMT; Path=/                yes           yes           yes
TEXT
diff expected seen && echo "As described: $(javac -version), httpclient 4.5.14, httpclient5 5.5."
