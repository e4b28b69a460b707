// A client of Go for `cargo xtask matrix`: `client URL h1` or `client URL h2`. A line for each case.
package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	url := os.Args[1]
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP1(os.Args[2] == "h1")
	transport.Protocols.SetHTTP2(os.Args[2] == "h2")
	client := &http.Client{Transport: transport}
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
	say := func(what string, good bool, err error) {
		if good {
			fmt.Println(what, "ok")
		} else {
			fmt.Println(what, "bad", err)
		}
	}
	whole := func(what string) {
		body, err := read(client.Get(url + what))
		say(what, err == nil && len(body) == 1000000, err)
	}
	whole("down")
	body, err := read(client.Post(url+"up", "text/plain", bytes.NewReader(make([]byte, 1000000))))
	say("up", string(body) == "1000000", err)
	body, err = read(client.Get(url + "reset"))
	say("reset", err != nil && len(body) < 1000000, err)
	whole("goaway")
}
