#!/usr/bin/env bash
# A server that drains by GOAWAY and PING, as servers built on the Rust crate h2 do, leaves an httpx client unable to send any request
# again.
#
# Needs: python3.
#
# Expected: after GOAWAY a client opens a new connection for its next request. A PING after the GOAWAY, which tells the server when the
# client has read it, is answered or ignored (RFC 9113, sections 6.7 and 6.8: the connection stays usable for streams in progress).
#
# What happens with httpx 0.28.1 (httpcore 1.0.9, h2 4.3.0), when the server sends one of these after its first whole response:
#   GOAWAY             the next requests go over new connections
#   PING               no effect
#   GOAWAY and PING    the next request raises LocalProtocolError, and so does each one after it: the pool takes the broken connection
#                      for an idle one every time, even when the server has closed it long ago
#
# Why it matters: behind a proxy or server that drains in this way, a rollout or a limit on requests per connection permanently stops a
# long-running Python service. Only a new Client (or a restart) helps, and the error names neither GOAWAY nor the server.
#
# Seen with CPython 3.11.7:
#   goaway        200 200 200
#   ping          200 200 200
#   goaway+ping   200 LocalProtocolError LocalProtocolError
#   closed        200 LocalProtocolError LocalProtocolError
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m pip -q --disable-pip-version-check install --root-user-action ignore --target lib \
  httpx==0.28.1 httpcore==1.0.9 h2==4.3.0 hpack==4.2.0 hyperframe==6.1.0
export PYTHONPATH=$folder/lib

cat >server.py <<'PY'
import socket, sys, threading
import h2.config, h2.connection, h2.events

def serve(connection, after):
    state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    state.initiate_connection()
    connection.sendall(state.data_to_send())
    while received := connection.recv(65536):
        for event in state.receive_data(received):
            if isinstance(event, h2.events.RequestReceived):
                state.send_headers(event.stream_id, [(":status", "200"), ("content-length", "2")])
                state.send_data(event.stream_id, b"ok", end_stream=True)
                connection.sendall(state.data_to_send())
                frames = b""
                if after != "ping":
                    frames += bytes([0, 0, 8, 7, 0, 0, 0, 0, 0]) + event.stream_id.to_bytes(4, "big") + bytes(4)
                if after != "goaway":
                    frames += bytes([0, 0, 8, 6, 0, 0, 0, 0, 0]) + b"drained?"
                connection.sendall(frames)
                if after == "closed":
                    connection.shutdown(socket.SHUT_WR)

listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0], sys.argv[1]), daemon=True).start()
PY

cat >client.py <<'PY'
import sys, time
import httpx

with httpx.Client(http1=False, http2=True) as client:
    for _ in range(3):
        try:
            print("", client.get(f"http://127.0.0.1:{sys.argv[1]}/").status_code, end="")
        except httpx.LocalProtocolError as error:
            print("", type(error).__name__, end="")
        time.sleep(0.5)
PY

seen() {
  for after in goaway ping goaway+ping closed; do
    python3 server.py "$after" >port 2>/dev/null &
    server=$!
    until [ -s port ]; do sleep 0.1; done
    printf '%-13s' "$after"
    python3 client.py "$(cat port)"
    echo
    kill "$server"
    wait "$server" 2>/dev/null || true
    rm port
  done
}

expected='goaway        200 200 200
ping          200 200 200
goaway+ping   200 LocalProtocolError LocalProtocolError
closed        200 LocalProtocolError LocalProtocolError'
diff <(echo "$expected") <(seen)
echo "as described"
