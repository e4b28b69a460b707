#!/usr/bin/env bash
# kubectl's library client-go sends a POST, PATCH or DELETE eleven times if the answer is any 5xx, even 501, with Retry-After: a number.
#
# Needs: go.
#
# Expected: Retry-After on a 429 is followed for any method, since the request was not processed; on a 503 for methods that
# may be repeated, or not at all, as a proxy that gives up in the middle of a POST sends 502 or 504 too.
#
# What happens, with k8s.io/client-go 0.36.3: method and status play no part. 429 and every status from 500 on are repeated up to ten
# times if Retry-After is a number of seconds, 0 included, and the body is sent each time. Without the field, or with
# a date in it, the request is sent once.
#
# Why it matters: a proxy in front of an API server (or of anything that a controller calls through client-go) that adds a polite
# Retry-After to its own 502 or 504, or lets an error page set it, makes eleven creations out of one that may have succeeded, and
# eleven times the load while the backend is slow. The field belongs to answers given before the request was passed on.
#
# Seen with go1.26.8 (requests that arrived for one call: GET POST PATCH DELETE):
#   429 0     11 11 11 11
#   500 0     11 11 11 11
#   501 0     11 11 11 11
#   502 0     11 11 11 11
#   504 0     11 11 11 11
#   409 0     1 1 1 1
#   503 none  1 1 1 1
#   503 date  1 1 1 1
set -euo pipefail
folder=$(mktemp -d)
trap 'chmod -R u+w "$folder"; rm -rf "$folder"' EXIT
cd "$folder"
cat >main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
)

// requests counts what arrives for one call of client-go.
func requests(verb string, status int, after string) (count int) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		count++
		io.Copy(io.Discard, r.Body)
		if after != "" {
			w.Header().Set("Retry-After", after)
		}
		w.WriteHeader(status)
	}))
	defer server.Close()
	client, err := rest.RESTClientFor(&rest.Config{
		Host: server.URL,
		ContentConfig: rest.ContentConfig{
			GroupVersion:         &schema.GroupVersion{Version: "v1"},
			NegotiatedSerializer: serializer.NewCodecFactory(runtime.NewScheme()),
		},
		QPS:   1000,
		Burst: 1000,
	})
	if err != nil {
		panic(err)
	}
	request := client.Verb(verb).AbsPath("/api/v1/pods")
	if verb == "POST" || verb == "PATCH" {
		request = request.Body([]byte("{}"))
	}
	if request.Do(context.Background()).Error() == nil {
		panic("no error")
	}
	return count
}

func main() {
	for _, answer := range []struct {
		status      int
		name, after string
	}{
		{429, "0", "0"}, {500, "0", "0"}, {501, "0", "0"}, {502, "0", "0"}, {504, "0", "0"}, {409, "0", "0"},
		{503, "none", ""}, {503, "date", "Fri, 31 Dec 2100 23:59:59 GMT"},
	} {
		fmt.Printf("%d %-4s ", answer.status, answer.name)
		for _, verb := range []string{"GET", "POST", "PATCH", "DELETE"} {
			fmt.Printf(" %d", requests(verb, answer.status, answer.after))
		}
		fmt.Println()
	}
}
GO
go mod init finding 2>/dev/null
go get k8s.io/client-go@v0.36.3 2>/dev/null
go mod tidy 2>/dev/null
go run . | tee seen

cat >expected <<'TEXT'
429 0     11 11 11 11
500 0     11 11 11 11
501 0     11 11 11 11
502 0     11 11 11 11
504 0     11 11 11 11
409 0     1 1 1 1
503 none  1 1 1 1
503 date  1 1 1 1
TEXT
diff expected seen && echo "As described: $(go version | cut -d' ' -f3), client-go 0.36.3."
