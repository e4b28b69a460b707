#!/usr/bin/env bash
# A gRPC server on the C core refuses calls at random as soon as their metadata exceeds 8 KiB.
#
# Needs: python3.
#
# Expected: a limit on header fields is a limit. Below it every call passes, above it every call is refused, in HTTP/2 with a limit that the
# server announces (SETTINGS_MAX_HEADER_LIST_SIZE). A test with one large token shows which side a call is on.
#
# What happens: grpcio 1.85.3, like everything built on the same core, has a soft limit of 8 KiB and a hard one of 16 KiB by default.
# Between them a call is refused with a probability that rises from 0 to 1: RESOURCE_EXHAUSTED, "received metadata size exceeds soft limit".
# The same call, sent again, may pass.
#
# Why it matters: the fields that a proxy adds (forwarded fields, a certificate of the client, the answers of an external authentication, a
# trace) lift calls with a large token over the soft limit, and one in five fails with a status that is read as "out of quota". The proxy's
# limits, four times as wide, do not show it. Fields for gRPC backends should be few, and the status with this message in a log is about
# size, not about load.
#
# Seen with CPython 3.11.7, grpcio 1.85.3 (100 calls each; the numbers in between vary):
#    7,000 bytes   none refused
#   10,000 bytes   some refused RESOURCE_EXHAUSTED
#   12,000 bytes   some refused RESOURCE_EXHAUSTED
#   17,000 bytes   all refused RESOURCE_EXHAUSTED
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m pip -q --disable-pip-version-check install --root-user-action ignore --target lib grpcio==1.85.3

cat >call.py <<'PY'
from concurrent.futures import ThreadPoolExecutor
import grpc

class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: request)

server = grpc.server(ThreadPoolExecutor(2))
server.add_generic_rpc_handlers([Echo()])
port = server.add_insecure_port("127.0.0.1:0")
server.start()
with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    call = channel.unary_unary("/shop.Shop/Order")
    for size in [7000, 10000, 12000, 17000]:
        codes = []
        for _ in range(100):
            try:
                call(b"", metadata=[("token", "a" * size)], timeout=10)
            except grpc.RpcError as error:
                codes.append(error.code().name)
        share = {0: "none", 100: "all"}.get(len(codes), "some")
        print(f"{size:6,} bytes   {share} refused {' '.join(set(codes))}".rstrip())
server.stop(0).wait()
PY
PYTHONPATH=lib python3 call.py | tee seen

cat >expected <<'TEXT'
 7,000 bytes   none refused
10,000 bytes   some refused RESOURCE_EXHAUSTED
12,000 bytes   some refused RESOURCE_EXHAUSTED
17,000 bytes   all refused RESOURCE_EXHAUSTED
TEXT
diff expected seen && echo "As described: $(python3 -V), grpcio 1.85.3."
