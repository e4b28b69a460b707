// A Go client for `cargo xtask matrix`: `client URL h1|h2 TYPE CASE...`. Prints a line for each case.
package main

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	url, version, kind, cases := os.Args[1], os.Args[2], os.Args[3], os.Args[4:]
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP1(version == "h1")
	transport.Protocols.SetHTTP2(version == "h2")
	client := &http.Client{Transport: transport}
	// A gRPC message as long as the body; other servers ignore its content.
	upload := make([]byte, 1000000)
	binary.BigEndian.PutUint32(upload[1:], 999995)
	ask := func(what string) (*http.Response, error) {
		switch {
		case what == "up":
			return client.Post(url+what, kind, bytes.NewReader(upload))
		case kind == "application/grpc":
			return client.Post(url+what, kind, bytes.NewReader(make([]byte, 5)))
		default:
			return client.Get(url + what)
		}
	}
	read := func(response *http.Response, err error) ([]byte, error) {
		if err != nil {
			return nil, err
		}
		defer response.Body.Close()
		if response.StatusCode != 200 {
			return nil, fmt.Errorf("status %d", response.StatusCode)
		}
		return io.ReadAll(response.Body)
	}
	for _, what := range cases {
		body, err := read(ask(what))
		good := err == nil && len(body) == 1000000
		switch what {
		case "up":
			good = bytes.HasSuffix(body, []byte("1000000"))
		case "reset", "cut":
			good = err != nil && len(body) < 1000000
		}
		if good {
			fmt.Println(what, "ok")
		} else {
			fmt.Println(what, "bad", err)
		}
	}
}
