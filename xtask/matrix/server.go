// A Go server for `cargo xtask matrix`, for HTTP/1.1 and for HTTP/2 with prior knowledge. It prints its address.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

var half = bytes.Repeat([]byte("x"), 500000)

func answer(w http.ResponseWriter, r *http.Request) {
	what := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	switch what {
	case "up":
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	case "reset":
		w.Header().Set("Content-Length", "1000000")
		w.Write(half)
		http.NewResponseController(w).Flush()
		time.Sleep(50 * time.Millisecond)
		panic(http.ErrAbortHandler)
	case "goaway":
		// In HTTP/2 this sends GOAWAY, and the stream continues.
		w.Header().Set("Connection", "close")
		w.Write(half)
		http.NewResponseController(w).Flush()
		time.Sleep(50 * time.Millisecond)
		w.Write(half)
	case "cut":
		// Fairway must end the response.
		w.Write(half)
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	case "drain":
		w.Write(half)
		http.NewResponseController(w).Flush()
		// The reader of this line asks Fairway to stop, which announces the end of the client's connection a second later.
		fmt.Println("half of it is sent")
		time.Sleep(2500 * time.Millisecond)
		w.Write(half)
	default:
		w.Write(half)
		w.Write(half)
	}
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr())
	server := &http.Server{Handler: http.HandlerFunc(answer), Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	panic(server.Serve(listener))
}
