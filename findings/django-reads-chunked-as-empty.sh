#!/usr/bin/env bash
# Django under gunicorn or cheroot reads a chunked request body as empty, and Bottle refuses it there; the proxy may have made it chunked.
#
# Needs: python3, curl.
#
# Expected: how a body is framed is the server's business. gunicorn, cheroot and waitress speak HTTP/1.1 and decode chunked bodies, and the
# frameworks above them read what the server decoded.
#
# What happens, with the same 11 bytes once with Content-Length and once chunked:
#   Django 5.2.19 over WSGI reads as many bytes as CONTENT_LENGTH says and takes a missing one for 0. gunicorn 27.0.1 and cheroot 11.1.2
#                 leave it out for a chunked body: request.body is empty, and the view answers 200. waitress 3.0.2 reads the
#                 body first and fills it in, and ASGI has no such key: both work
#   Bottle 0.13.4 sees Transfer-Encoding and decodes the chunks itself, a second time: 400 "Error while parsing chunked transfer body"
#   Flask 3.1.3   works under all of them (they set wsgi.input_terminated)
#
# Why it matters: over HTTP/2 a body needs no length, and clients that stream send none. A proxy that streams must make it chunked, and the
# upload arrives empty, with a 200. nginx hides this, since it collects request bodies by default and sends a length; anyone who replaces it
# by a proxy that streams, or turns proxy-request-buffering off, finds empty files.
#
# Seen with CPython 3.11.7, curl 7.88.1 (bytes that the application read, of 11):
#   application          length  chunked
#   Django, gunicorn         11        0
#   Django, cheroot          11        0
#   Django, waitress         11       11
#   Django, uvicorn          11       11
#   Flask, gunicorn          11       11
#   Flask, cheroot           11       11
#   Bottle, gunicorn         11  HTTP 400
#   Bottle, cheroot          11  HTTP 400
#   Bottle, waitress         11       11
set -euo pipefail
folder=$(mktemp -d)
servers=()
trap 'kill "${servers[@]}" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m pip -q --disable-pip-version-check install --root-user-action ignore --target lib \
  Django==5.2.19 Flask==3.1.3 bottle==0.13.4 gunicorn==27.0.1 cheroot==11.1.2 waitress==3.0.2 uvicorn==0.38.0
export PYTHONPATH=lib:.

# The same view three times: it answers with the number of bytes that it read.
cat >apps.py <<'PY'
import bottle, django, flask
from django.conf import settings
settings.configure(SECRET_KEY="-", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__)
django.setup()
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

urlpatterns = [path("", lambda request: HttpResponse(str(len(request.body))))]
settings.MIDDLEWARE = []
django_wsgi = get_wsgi_application()
django_asgi = get_asgi_application()

flask_wsgi = flask.Flask("echo")
flask_wsgi.post("/")(lambda: str(len(flask.request.get_data())))

bottle_wsgi = bottle.Bottle()
bottle_wsgi.post("/", callback=lambda: str(len(bottle.request.body.read())))
PY

cat >serve.py <<'PY'
import importlib, socket, sys
server, name, file = sys.argv[1:]
app = getattr(importlib.import_module("apps"), name)
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
open(file, "w").write(f"{port}\n")
if server == "gunicorn":
    from gunicorn.app.base import BaseApplication
    class Application(BaseApplication):
        def load_config(self):
            self.cfg.set("bind", f"127.0.0.1:{port}")
            self.cfg.set("loglevel", "critical")
        def load(self):
            return app
    Application().run()
elif server == "cheroot":
    from cheroot.wsgi import Server
    Server(("127.0.0.1", port), app).start()
elif server == "waitress":
    import waitress
    waitress.serve(app, host="127.0.0.1", port=port)
else:
    import uvicorn
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="critical", lifespan="off")
PY

ask() { # PORT CURL-OPTION... -> the answer of a 200, or the status
  local port=$1 answer
  shift
  answer=$(curl -s -o body -w '%{http_code}' -d 'hello world' "$@" "http://127.0.0.1:$port/") || return 1
  if [ "$answer" = 200 ]; then cat body; else echo "HTTP $answer"; fi
}
{
  printf '%-19s  %6s  %7s\n' application length chunked
  for pair in Django,gunicorn Django,cheroot Django,waitress Django,uvicorn Flask,gunicorn Flask,cheroot Bottle,gunicorn Bottle,cheroot Bottle,waitress; do
    framework=${pair%,*}
    server=${pair#*,}
    interface=wsgi
    if [ "$server" = uvicorn ]; then interface=asgi; fi
    python3 serve.py "$server" "${framework,,}_$interface" "port-$pair" >/dev/null 2>&1 &
    servers+=($!)
    while [ ! -s "port-$pair" ] || ! curl -s -o body "http://127.0.0.1:$(cat "port-$pair")/"; do sleep 0.1; done
    port=$(cat "port-$pair")
    printf '%-19s  %6s  %7s\n' "$framework, $server" "$(ask "$port")" "$(ask "$port" -H 'Transfer-Encoding: chunked')"
  done
} >seen
cat seen

cat >expected <<'TEXT'
application          length  chunked
Django, gunicorn         11        0
Django, cheroot          11        0
Django, waitress         11       11
Django, uvicorn          11       11
Flask, gunicorn          11       11
Flask, cheroot           11       11
Bottle, gunicorn         11  HTTP 400
Bottle, cheroot          11  HTTP 400
Bottle, waitress         11       11
TEXT
diff expected seen && echo "As described: CPython $(python3 -c 'import platform; print(platform.python_version())')."
