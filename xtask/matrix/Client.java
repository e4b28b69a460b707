// A client of Java's HttpClient for `cargo xtask matrix`: `java Client.java URL h1|h2`. A line for each case.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.security.SecureRandom;
import java.security.cert.X509Certificate;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManager;
import javax.net.ssl.X509ExtendedTrustManager;

public class Client {
    static HttpClient client;
    static String url;
    static String error;

    static byte[] attempt(String what, byte[] body) {
        error = "";
        var request = HttpRequest.newBuilder(URI.create(url + what));
        if (body != null) {
            request.POST(HttpRequest.BodyPublishers.ofByteArray(body));
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

    static void say(String what, boolean good) {
        System.out.println(what + (good ? " ok" : " bad " + error));
    }

    public static void main(String[] arguments) throws Exception {
        url = arguments[0];
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
        say("down", attempt("down", null).length == 1000000);
        say("up", new String(attempt("up", new byte[1000000])).equals("1000000"));
        attempt("reset", null);
        say("reset", !error.isEmpty());
        say("goaway", attempt("goaway", null).length == 1000000);
    }
}
