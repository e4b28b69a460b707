#!/usr/bin/env bash
# Two Java clients send a POST a second time because of the status of the answer to the first.
#
# Needs: javac 17, mvn.
#
# Expected: a client repeats a POST only if its caller asks for that, or if it is sure that nothing was processed. An answer with a
# status is an answer; 408, 429 and 503 are for the caller to handle.
#
# What happens, with default settings and a body that can be sent again (a string):
#   Apache HttpClient 5.5    POST after 429 or 503 is sent again after a second, whether or not Retry-After is there. Its check for
#                            idempotent methods is made for connection failures only.
#   OkHttp 4.12.0            POST after 408 is sent again at once, with or without "Connection: close", and after 503 with
#                            "Retry-After: 0".
#   Apache HttpClient 4.5.14 and JDK HttpClient send it once.
#
# Why it matters: these are the statuses that proxies give. A 408 because the body came too slowly, or a 503 for an upstream that broke off,
# after the application has seen all or part of the first POST means that the order is placed twice; and each refusal of a rate limit costs
# two requests. So a proxy should send 408 only if nothing went upstream (otherwise close the connection), 502 rather than 503 if something
# did, and never "Retry-After: 0".
#
# Seen with OpenJDK 17.0.15 (requests that the server got for one POST):
#   status                     HttpClient 5  HttpClient 4  OkHttp  JDK
#   408                                   1             1       2    1
#   429                                   2             1       1    1
#   502                                   1             1       1    1
#   503                                   2             1       1    1
#   503 with Retry-After: 0               2             1       2    1
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
    <dependency><groupId>com.squareup.okhttp3</groupId><artifactId>okhttp</artifactId><version>4.12.0</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-nop</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
XML
mvn -q -B dependency:copy-dependencies -DoutputDirectory=lib

cat >Client.java <<'JAVA'
import com.sun.net.httpserver.HttpServer;
import java.net.*;
import java.net.http.*;
import java.util.concurrent.atomic.AtomicInteger;

public class Client {
    interface Call {
        int status(URI uri) throws Exception;
    }

    static int apache5(URI uri) throws Exception {
        try (var client = org.apache.hc.client5.http.impl.classic.HttpClients.createDefault()) {
            var post = new org.apache.hc.client5.http.classic.methods.HttpPost(uri);
            post.setEntity(new org.apache.hc.core5.http.io.entity.StringEntity("order"));
            return client.execute(post, answer -> answer.getCode());
        }
    }

    static int apache4(URI uri) throws Exception {
        try (var client = org.apache.http.impl.client.HttpClients.createDefault()) {
            var post = new org.apache.http.client.methods.HttpPost(uri);
            post.setEntity(new org.apache.http.entity.StringEntity("order"));
            return client.execute(post).getStatusLine().getStatusCode();
        }
    }

    static int okhttp(URI uri) throws Exception {
        var body = okhttp3.RequestBody.create("order", okhttp3.MediaType.get("text/plain"));
        var request = new okhttp3.Request.Builder().url(uri.toURL()).post(body).build();
        try (var answer = new okhttp3.OkHttpClient().newCall(request).execute()) {
            return answer.code();
        }
    }

    static int jdk(URI uri) throws Exception {
        var post = HttpRequest.newBuilder(uri).POST(HttpRequest.BodyPublishers.ofString("order")).build();
        return HttpClient.newHttpClient().send(post, java.net.http.HttpResponse.BodyHandlers.ofString()).statusCode();
    }

    public static void main(String[] arguments) throws Exception {
        System.out.println("status                     HttpClient 5  HttpClient 4  OkHttp  JDK");
        for (var line : new String[] {"408", "429", "502", "503", "503 with Retry-After: 0"}) {
            int status = Integer.parseInt(line.substring(0, 3));
            var orders = new AtomicInteger();
            var server = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
            server.createContext("/", exchange -> {
                if (new String(exchange.getRequestBody().readAllBytes()).equals("order")) {
                    orders.incrementAndGet();
                }
                if (line.contains("Retry-After")) {
                    exchange.getResponseHeaders().set("Retry-After", "0");
                }
                exchange.sendResponseHeaders(status, -1);
                exchange.close();
            });
            server.start();
            var uri = URI.create("http://127.0.0.1:" + server.getAddress().getPort() + "/");
            var seen = new Integer[4];
            Call[] calls = {Client::apache5, Client::apache4, Client::okhttp, Client::jdk};
            for (int i = 0; i < 4; i++) {
                orders.set(0);
                if (calls[i].status(uri) != status) {
                    throw new IllegalStateException("another status");
                }
                seen[i] = orders.get();
            }
            System.out.printf("%-23s %15d %13d %7d %4d%n", line, seen[0], seen[1], seen[2], seen[3]);
            server.stop(0);
        }
        System.exit(0);
    }
}
JAVA
javac -cp 'lib/*' Client.java
java -cp 'lib/*:.' Client | tee seen

cat >expected <<'TEXT'
status                     HttpClient 5  HttpClient 4  OkHttp  JDK
408                                   1             1       2    1
429                                   2             1       1    1
502                                   1             1       1    1
503                                   2             1       1    1
503 with Retry-After: 0               2             1       2    1
TEXT
diff expected seen && echo "As described: $(javac -version), httpclient5 5.5, httpclient 4.5.14, okhttp 4.12.0."
