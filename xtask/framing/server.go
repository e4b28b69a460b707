// A backend of Go's net/http: prints each whole request as method, target and body.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr())
	handler := func(w http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err == nil {
			fmt.Fprintf(os.Stdout, "%s\t%s\t%x\n", r.Method, r.RequestURI, body)
		}
	}
	panic(http.Serve(listener, http.HandlerFunc(handler)))
}
