#!/usr/bin/env bash
# One attribute too new for Python's cookie parser, and the sticky cookie never comes back.
#
# Needs: python3 before 3.14 (which knows the attribute).
#
# Expected: a client ignores cookie attributes that it does not know (RFC 6265 5.2), so adding Partitioned to a cookie can only
# matter to browsers that partition.
#
# What happens: http.cookies.SimpleCookie drops the whole cookie, without an error, when an attribute without a value is not
# one of the two that it knows (Secure, HttpOnly). An unknown attribute with a value, such as Priority=High, becomes a cookie of
# that name, and takes the attributes that follow it along. aiohttp up to 3.11 reads Set-Cookie with this parser; 3.12 brought its
# own. requests and httpx use http.cookiejar, another parser of the same library, and keep the cookie.
#
# Why it matters: a sticky cookie with Partitioned, which pages in a cross-site frame need, gives these clients a new endpoint with each
# request. It also shows the cost of any new attribute in a proxy's cookie: it must be an option, not a default.
#
# Seen with CPython 3.11.7. What each client sends at its second request:
#   aiohttp  3.11.18  HttpOnly               route=17|a.b
#   aiohttp  3.11.18  HttpOnly; Partitioned  None
#   aiohttp  3.12.15  HttpOnly; Partitioned  route=17|a.b
#   requests 2.32.5   HttpOnly; Partitioned  route=17|a.b
#   SimpleCookie  route=17; Partitioned; Path=/            {}
#   SimpleCookie  route=17; Priority=High; Secure; Path=/  {'route': '', 'Priority': 'secure path'}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

for version in 3.11.18 3.12.15; do
  python3 -m pip -q --disable-pip-version-check install --root-user-action ignore --target "aiohttp-$version" "aiohttp==$version" requests==2.32.5
done

cat >client.py <<'PY'
import asyncio, http.server, sys, threading
from http.cookies import SimpleCookie
import aiohttp, requests

class Server(http.server.BaseHTTPRequestHandler):
    sent = None

    def do_GET(self):
        Server.sent = self.headers["Cookie"]
        self.send_response(204)
        self.send_header("Set-Cookie", "route=17|a.b; Path=/; " + self.path[1:].replace("+", " "))
        self.end_headers()

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()

async def twice(url):
    # unsafe: the jar takes cookies of an IP address.
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        for _ in range(2):
            await (await session.get(url)).read()

def url(attributes):
    return f"http://127.0.0.1:{server.server_port}/" + attributes.replace(" ", "+")

for attributes in ["HttpOnly", "HttpOnly; Partitioned"]:
    asyncio.run(twice(url(attributes)))
    print(f"aiohttp  {aiohttp.__version__:8} {attributes:22} {Server.sent}")
with requests.Session() as session:
    for _ in range(2):
        session.get(url(attributes))
print(f"requests {requests.__version__:8} {attributes:22} {Server.sent}")
for text in ["route=17; Partitioned; Path=/", "route=17; Priority=High; Secure; Path=/"]:
    cookies = SimpleCookie(text)
    found = {name: " ".join(key for key, value in sorted(morsel.items(), reverse=True) if value) for name, morsel in cookies.items()}
    print(f"SimpleCookie  {text:40} {found}")
PY
{
  PYTHONPATH=aiohttp-3.11.18 python3 client.py
  PYTHONPATH=aiohttp-3.12.15 python3 client.py | grep ^aiohttp
} | tee seen

cat >expected <<'TEXT'
aiohttp  3.11.18  HttpOnly               route=17|a.b
aiohttp  3.11.18  HttpOnly; Partitioned  None
requests 2.32.5   HttpOnly; Partitioned  route=17|a.b
SimpleCookie  route=17; Partitioned; Path=/            {}
SimpleCookie  route=17; Priority=High; Secure; Path=/  {'route': '', 'Priority': 'secure path'}
aiohttp  3.12.15  HttpOnly               route=17|a.b
aiohttp  3.12.15  HttpOnly; Partitioned  route=17|a.b
TEXT
diff expected seen && echo "As described: $(python3 -V)."
