// A server of grpc-go for `cargo xtask matrix`, without TLS. It prints its address. A method is a case, whatever its service is called;
// messages are bytes.
package main

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
)

// After this time a connection is ended with GOAWAY, and its calls go on.
const age = 500 * time.Millisecond

// Each message has five bytes before it.
var whole, half = bytes.Repeat([]byte("x"), 1000000-5), bytes.Repeat([]byte("x"), 500000-5)

// Messages without a format.
type raw struct{}

func (raw) Marshal(message any) ([]byte, error) { return *message.(*[]byte), nil }
func (raw) Unmarshal(data []byte, message any) error {
	*message.(*[]byte) = data
	return nil
}
func (raw) Name() string { return "raw" }

// A listener that remembers its connections.
type remembering struct {
	net.Listener
	connections sync.Map
}

func (l *remembering) Accept() (net.Conn, error) {
	connection, err := l.Listener.Accept()
	if err == nil {
		l.connections.Store(connection.RemoteAddr().String(), connection)
	}
	return connection, err
}

func (l *remembering) answer(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	var message []byte
	if err := stream.RecvMsg(&message); err != nil {
		return err
	}
	switch method[strings.LastIndex(method, "/")+1:] {
	case "up":
		length := fmt.Append(nil, 5+len(message))
		return stream.SendMsg(&length)
	case "reset":
		if err := stream.SendMsg(&half); err != nil {
			return err
		}
		time.Sleep(50 * time.Millisecond)
		client, _ := peer.FromContext(stream.Context())
		if connection, ok := l.connections.Load(client.Addr.String()); ok {
			// Without what has not been sent: the connection is reset.
			connection.(*net.TCPConn).SetLinger(0)
			connection.(*net.TCPConn).Close()
		}
		<-stream.Context().Done()
		return stream.Context().Err()
	case "goaway":
		if err := stream.SendMsg(&half); err != nil {
			return err
		}
		time.Sleep(2 * age)
		return stream.SendMsg(&half)
	default:
		return stream.SendMsg(&whole)
	}
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr())
	connections := &remembering{Listener: listener}
	server := grpc.NewServer(
		grpc.ForceServerCodec(raw{}),
		grpc.UnknownServiceHandler(connections.answer),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: age}),
	)
	panic(server.Serve(connections))
}
