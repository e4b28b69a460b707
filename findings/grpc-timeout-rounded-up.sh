#!/usr/bin/env bash
# grpcio tells the server a later deadline than the caller's: up to 1 % later, by seconds for long calls.
#
# Needs: python3.
#
# Expected: grpc-timeout is what is left of the caller's deadline, in whatever unit fits, so it is exact or, since time passes before
# the call is sent, a little less. A proxy that ends the call when this time is over is never later than the client.
#
# What happens: the C core, which carries the Python, Ruby, PHP and C++ clients, keeps two or three significant digits and rounds up.
# Eight digits are allowed, and grpc-go sends eight (12344147u for 12.345 s).
#
# Why it matters: when such a call takes too long, the client's RST_STREAM(CANCEL) always comes first, and the proxy's own deadline, derived
# from the field, never fires: log and metrics show a client that went away (499), not a time-out (504, status 4). A proxy that wants to
# tell the two apart must treat a CANCEL within the rounding (1 %) as a deadline.
#
# Seen with CPython 3.11.7, grpcio 1.85.3, hpack 4.2.0:
#   deadline    12.350 s  grpc-timeout 12400m
#   deadline   123.500 s  grpc-timeout 124S
#   deadline  1235.000 s  grpc-timeout 1240S
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m pip -q --disable-pip-version-check install --root-user-action ignore --target lib grpcio==1.85.3 hpack==4.2.0

cat >call.py <<'PY'
import socket, struct, threading
import grpc, hpack

def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload

def serve(connection):
    """Answers each call with status 0 and no message, and keeps its grpc-timeout."""
    read, decoder, encoder = connection.makefile("rb").read, hpack.Decoder(), hpack.Encoder()
    read(24)
    connection.sendall(frame(4, 0, 0))
    while len(head := read(9)) == 9:
        payload, stream = read(int.from_bytes(head[:3], "big")), int.from_bytes(head[5:], "big")
        if head[3] == 4 and not head[4] & 1:
            connection.sendall(frame(4, 1, 0))
        elif head[3] == 1:
            timeouts.append(dict(decoder.decode(payload))["grpc-timeout"])
            fields = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "12")]
            connection.sendall(frame(1, 5, stream, encoder.encode(fields)))

timeouts = []
listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=lambda: serve(listener.accept()[0]), daemon=True).start()
with grpc.insecure_channel(f"127.0.0.1:{listener.getsockname()[1]}") as channel:
    for deadline in [60, 12.35, 123.5, 1235]:
        try:
            channel.unary_unary("/service/Method")(b"", timeout=deadline)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
        if deadline != 60:  # that call sets up the connection
            print(f"deadline {deadline:9.3f} s  grpc-timeout {timeouts[-1]}")
PY
PYTHONPATH=lib python3 call.py | tee seen

cat >expected <<'TEXT'
deadline    12.350 s  grpc-timeout 12400m
deadline   123.500 s  grpc-timeout 124S
deadline  1235.000 s  grpc-timeout 1240S
TEXT
diff expected seen && echo "As described: $(python3 -V), grpcio 1.85.3."
