#!/usr/bin/env bash
# requests, urllib3 and http.client take 103 Early Hints for the response, and Java's HttpURLConnection waits forever after it.
#
# Needs: python3, java.
#
# Expected: a client reads past any 1xx response, even one that it doesn't know (RFC 9110, section 15.2), as all of these read past 100.
#
# What happens, with a server that sends 103 and then 200 with five bytes:
#   http.client of CPython 3.11, urllib3 2.8.0, requests 2.34.2   the response is 103 without a body. raise_for_status() of requests is
#                                                                 content with it, so a download of 0 bytes looks successful
#   urllib.request of CPython 3.11                                raises HTTPError 103
#   httpx 0.28.1, aiohttp 3.14.5                                  200 with the body
#   HttpURLConnection of OpenJDK 17                               no response until the read timeout, which is infinite by default
#   java.net.http.HttpClient of OpenJDK 17                        200 with the body
#
# Why it matters: a backend that sends early hints to every client works with browsers and curl, and breaks the Python and Java services
# that call it, without a trace in any log. A proxy should pass 103 over HTTP/1.1 only to clients that are known to be browsers.
#
# Seen with CPython 3.11.7 and OpenJDK 17.0.15:
#   http.client        103 0
#   urllib.request     error 103
#   urllib3            103 0
#   requests           103 0 content
#   httpx              200 5
#   aiohttp            200 5
#   HttpURLConnection  no response
#   HttpClient         200 5
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m pip -q --disable-pip-version-check install --root-user-action ignore --target lib \
  urllib3==2.8.0 requests==2.34.2 httpx==0.28.1 aiohttp==3.14.5

cat >server.py <<'PY'
import socket, threading

def serve(connection):
    received = b""
    try:
        while piece := connection.recv(4096):
            received += piece
            while b"\r\n\r\n" in received:
                received = received.split(b"\r\n\r\n", 1)[1]
                connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload; as=style\r\n\r\n")
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
    except ConnectionError:
        pass

listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
PY

cat >clients.py <<'PY'
import asyncio, http.client, sys, urllib.error, urllib.request
import aiohttp, httpx, requests, urllib3
port = int(sys.argv[1])
url = f"http://127.0.0.1:{port}/"

connection = http.client.HTTPConnection("127.0.0.1", port)
connection.request("GET", "/")
response = connection.getresponse()
print("http.client       ", response.status, len(response.read()))
try:
    response = urllib.request.urlopen(url)
    print("urllib.request    ", response.status, len(response.read()))
except urllib.error.HTTPError as error:
    print("urllib.request    ", "error", error.code)
response = urllib3.request("GET", url)
print("urllib3           ", response.status, len(response.data))
response = requests.get(url)
response.raise_for_status()
print("requests          ", response.status_code, len(response.content), "content")
response = httpx.get(url)
print("httpx             ", response.status_code, len(response.content))

async def get():
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, len(await response.read())

print("aiohttp           ", *asyncio.run(get()))
PY

cat >Clients.java <<'JAVA'
import java.net.*;
import java.net.http.*;

class Clients {
    public static void main(String[] arguments) throws Exception {
        var url = URI.create(arguments[0]);
        var connection = (HttpURLConnection) url.toURL().openConnection();
        connection.setReadTimeout(3000);
        try {
            int status = connection.getResponseCode();
            System.out.println("HttpURLConnection  " + status + " " + connection.getInputStream().readAllBytes().length);
        } catch (SocketTimeoutException error) {
            System.out.println("HttpURLConnection  no response");
        }
        var client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        var response = client.send(HttpRequest.newBuilder(url).build(), HttpResponse.BodyHandlers.ofString());
        System.out.println("HttpClient         " + response.statusCode() + " " + response.body().length());
    }
}
JAVA

: >port
python3 server.py >port &
server=$!
while [ ! -s port ]; do sleep 0.1; done
port=$(cat port)
{
  PYTHONPATH=lib python3 clients.py "$port"
  java Clients.java "http://127.0.0.1:$port/"
} | tee seen

cat >expected <<'TEXT'
http.client        103 0
urllib.request     error 103
urllib3            103 0
requests           103 0 content
httpx              200 5
aiohttp            200 5
HttpURLConnection  no response
HttpClient         200 5
TEXT
diff expected seen && echo "As described: CPython $(python3 -c 'import platform; print(platform.python_version())'), $(java -version 2>&1 | head -1)."
