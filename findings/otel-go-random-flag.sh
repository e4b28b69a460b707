#!/usr/bin/env bash
# OpenTelemetry for Go drops a sampled trace if the caller also sets the flag "random", and keeps one that is not sampled.
#
# Needs: go 1.24 or newer (any system with the Go toolchain).
#
# Expected: the flags of traceparent are eight bits. Level 2 of W3C Trace Context adds "random" (02) and leaves the version at 00, which
# assumes that a reader looks at the one bit that it knows, sampled, and ignores the others.
#
# What happens in 1.38.0 (1.30.0 alike): flags above 02 make the whole field invalid. 00 and 02 continue the trace; 03, sampled and random,
# starts a new one. So precisely the recorded traces are cut in two, and those that are not recorded stay whole. 1.47.0 accepts 03 and
# passes it on.
#
# Why it matters: a proxy that makes trace ids is tempted to set the random bit, since its ids are random. With services
# built on these versions behind it, every sampled trace then ends at the proxy, without an error. Pass on what the client sent,
# and write 00 or 01 in a field of your own.
#
# Seen with go1.26.8, go.opentelemetry.io/otel 1.38.0 and 1.47.0:
#   1.38.0  flags 00  continues the trace
#   1.38.0  flags 01  continues the trace, sampled
#   1.38.0  flags 02  continues the trace
#   1.38.0  flags 03  new trace
#   1.47.0  flags 03  continues the trace, sampled
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat >main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"os"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

func main() {
	for _, flags := range []string{"00", "01", "02", "03"} {
		fields := propagation.MapCarrier{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-" + flags}
		span := trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), fields))
		seen := "new trace"
		if span.IsValid() {
			seen = "continues the trace"
		}
		if span.IsSampled() {
			seen += ", sampled"
		}
		fmt.Printf("%s  flags %s  %s\n", os.Args[1], flags, seen)
	}
}
GO
go mod init finding 2>/dev/null
for version in 1.38.0 1.47.0; do
  go get "go.opentelemetry.io/otel@v$version" "go.opentelemetry.io/otel/trace@v$version" 2>/dev/null
  go mod tidy 2>/dev/null
  go run . "$version"
done | tee seen

cat >expected <<'TEXT'
1.38.0  flags 00  continues the trace
1.38.0  flags 01  continues the trace, sampled
1.38.0  flags 02  continues the trace
1.38.0  flags 03  new trace
1.47.0  flags 00  continues the trace
1.47.0  flags 01  continues the trace, sampled
1.47.0  flags 02  continues the trace
1.47.0  flags 03  continues the trace, sampled
TEXT
diff expected seen && echo "As described: $(go version)."
