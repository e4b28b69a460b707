// A client with Java's HttpClient for `cargo xtask matrix`: `java Client.java URL h1|h2 TYPE CASE...`. Prints a line for each case.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.SecureRandom;
import java.security.cert.X509Certificate;
import java.util.Arrays;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManager;
import javax.net.ssl.X509ExtendedTrustManager;

public class Client {
    static HttpClient client;
    static String error;

    static byte[] attempt(String url, String kind, byte[] body) {
        error = "";
        var request = HttpRequest.newBuilder(URI.create(url));
        if (body != null) {
            request.header("content-type", kind).POST(HttpRequest.BodyPublishers.ofByteArray(body));
        }
        try {
            var response = client.send(request.build(), HttpResponse.BodyHandlers.ofByteArray());
            if (response.statusCode() == 200) {
                return response.body();
            }
            error = "status " + response.statusCode();
        } catch (Exception failure) {
            error = failure.toString();
        }
        return new byte[0];
    }

    public static void main(String[] arguments) throws Exception {
        String url = arguments[0], kind = arguments[2];
        var anyone = new X509ExtendedTrustManager() {
            public void checkClientTrusted(X509Certificate[] chain, String type) {}
            public void checkServerTrusted(X509Certificate[] chain, String type) {}
            public void checkClientTrusted(X509Certificate[] chain, String type, java.net.Socket socket) {}
            public void checkServerTrusted(X509Certificate[] chain, String type, java.net.Socket socket) {}
            public void checkClientTrusted(X509Certificate[] chain, String type, javax.net.ssl.SSLEngine engine) {}
            public void checkServerTrusted(X509Certificate[] chain, String type, javax.net.ssl.SSLEngine engine) {}
            public X509Certificate[] getAcceptedIssuers() { return new X509Certificate[0]; }
        };
        var tls = SSLContext.getInstance("TLS");
        tls.init(null, new TrustManager[] {anyone}, new SecureRandom());
        var version = arguments[1].equals("h2") ? HttpClient.Version.HTTP_2 : HttpClient.Version.HTTP_1_1;
        client = HttpClient.newBuilder().sslContext(tls).version(version).build();
        // A gRPC message as long as the body; other servers ignore its content.
        var upload = ByteBuffer.allocate(1000000).putInt(1, 999995).array();
        var empty = kind.equals("application/grpc") ? new byte[5] : null;
        for (var what : Arrays.copyOfRange(arguments, 3, arguments.length)) {
            var body = attempt(url + what, kind, what.equals("up") ? upload : empty);
            var good = switch (what) {
                case "up" -> new String(body, StandardCharsets.ISO_8859_1).endsWith("1000000");
                case "reset", "cut" -> !error.isEmpty();
                default -> body.length == 1000000;
            };
            System.out.println(what + (good ? " ok" : " bad " + error));
        }
    }
}
