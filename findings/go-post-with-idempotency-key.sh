#!/usr/bin/env bash
# Go's HTTP client sends a POST a second time on its own if it has a field named Idempotency-Key.
#
# Needs: go (any system with the Go toolchain).
#
# Expected: Go's Transport repeats GET, HEAD, OPTIONS and TRACE when a kept connection turns out to be dead, and never a POST of which
# bytes were written. The field is for the application at the other end; no HTTP library reads it.
#
# What happens: Idempotency-Key or X-Idempotency-Key, with any value, makes a POST as repeatable as a GET. The server below reads the whole
# second request of its connection and closes without an answer, as a process that is being stopped does: the POST with the field arrives
# twice and the caller sees only 200; without the field the caller gets EOF.
#
# Why it matters: a proxy that closes kept connections while it drains sees such an order twice, on two connections, and nothing on the
# client's side says why. When a Go service behind the proxy calls another through it, two parties may repeat a POST: a proxy that honours
# the field as well multiplies the attempts.
#
# Seen with go1.26.8:
#   POST                        sent once    EOF
#   POST with Idempotency-Key   sent twice   200 OK
#   GET                         sent twice   200 OK
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat >main.go <<'GO'
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
)

// serve answers all requests but the second one of its first connection, and counts those for /order.
func serve(listener net.Listener, orders *atomic.Int32) {
	for number := 1; ; number++ {
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		reader := bufio.NewReader(connection)
		for requests := 1; ; requests++ {
			request, err := http.ReadRequest(reader)
			if err != nil {
				break
			}
			io.Copy(io.Discard, request.Body)
			if request.URL.Path == "/order" {
				orders.Add(1)
			}
			if number == 1 && requests == 2 {
				break
			}
			io.WriteString(connection, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
		connection.Close()
	}
}

func try(name, method, key string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer listener.Close()
	var orders atomic.Int32
	go serve(listener, &orders)
	client := &http.Client{Transport: &http.Transport{}}
	// So that the connection is a kept one.
	first, err := client.Get("http://" + listener.Addr().String() + "/")
	if err != nil {
		panic(err)
	}
	io.Copy(io.Discard, first.Body)
	first.Body.Close()

	var body io.Reader
	if method == "POST" {
		body = strings.NewReader("one book")
	}
	request, _ := http.NewRequest(method, "http://"+listener.Addr().String()+"/order", body)
	if key != "" {
		request.Header.Set("Idempotency-Key", key)
	}
	answer, err := client.Do(request)
	seen := "EOF"
	if err == nil {
		seen = answer.Status
		answer.Body.Close()
	} else if !errors.Is(err, io.EOF) {
		seen = err.Error()
	}
	fmt.Printf("%-26s  sent %-6s  %s\n", name, map[int32]string{1: "once", 2: "twice"}[orders.Load()], seen)
	client.CloseIdleConnections()
}

func main() {
	try("POST", "POST", "")
	try("POST with Idempotency-Key", "POST", "7")
	try("GET", "GET", "")
}
GO
# Only the standard library is used; another release of Go needs another run.
export GOTOOLCHAIN=go1.26.8
go mod init finding 2>/dev/null
go run . | tee seen

cat >expected <<'TEXT'
POST                        sent once    EOF
POST with Idempotency-Key   sent twice   200 OK
GET                         sent twice   200 OK
TEXT
diff expected seen && echo "As described: $(go version)."
