// An open load for `cargo xtask bench --peers latency`: `load ADDRESS HOST RATE SECONDS`. Requests are due at random times, RATE per second
// on average, independent of earlier ones; the time of a request counts from when it was due. It has one thread, and only system calls on
// the path of a request, since load and proxy share the machine. Prints how many requests were answered, and the microseconds within which
// 50 % and 99 % of them were.
package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

const (
	connections = 64
	// Connections are opened and caches filled before anything is counted.
	warmUp = time.Second
)

type connection struct {
	descriptor int
	due        time.Duration
	filled     int
	buffer     [4096]byte
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	runtime.LockOSThread()
	// A run allocates little, and garbage collection would look like latency of the proxy.
	debug.SetGCPercent(-1)
	address, host := os.Args[1], os.Args[2]
	rate, err := strconv.ParseFloat(os.Args[3], 64)
	check(err)
	seconds, err := strconv.Atoi(os.Args[4])
	check(err)
	request := fmt.Appendf(nil, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host)
	to, err := net.ResolveTCPAddr("tcp4", address)
	check(err)

	poll, err := syscall.EpollCreate1(0)
	check(err)
	timer, _, errno := syscall.Syscall(syscall.SYS_TIMERFD_CREATE, 1, syscall.O_NONBLOCK, 0)
	if errno != 0 {
		panic(errno)
	}
	watch := func(descriptor int) {
		check(syscall.EpollCtl(poll, syscall.EPOLL_CTL_ADD, descriptor, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(descriptor)}))
	}
	watch(int(timer))
	all := map[int32]*connection{}
	var free []*connection
	for range connections {
		descriptor, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
		check(err)
		check(syscall.Connect(descriptor, &syscall.SockaddrInet4{Port: to.Port, Addr: [4]byte(to.IP.To4())}))
		check(syscall.SetsockoptInt(descriptor, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1))
		check(syscall.SetNonblock(descriptor, true))
		watch(descriptor)
		all[int32(descriptor)] = &connection{descriptor: descriptor}
		free = append(free, all[int32(descriptor)])
	}

	begin := time.Now()
	end := warmUp + time.Duration(seconds)*time.Second
	next := time.Duration(0)
	var late []time.Duration // due, and without a connection
	var took []time.Duration
	send := func(due time.Duration) {
		c := free[0]
		free = free[1:]
		c.due, c.filled = due, 0
		if n, err := syscall.Write(c.descriptor, request); err != nil || n != len(request) {
			panic(fmt.Sprint("sending: ", n, err))
		}
	}
	events := make([]syscall.EpollEvent, connections+1)
	for {
		now := time.Since(begin)
		for next <= now && next < end {
			late = append(late, next)
			next += time.Duration(rand.ExpFloat64() / rate * float64(time.Second))
		}
		for len(late) > 0 && len(free) > 0 {
			send(late[0])
			late = late[1:]
		}
		if next >= end && len(late) == 0 && len(free) == connections {
			break
		}
		if now > end+10*time.Second {
			panic("answers are missing")
		}
		// Wait until the next request is due.
		wait := max(next-time.Since(begin), 1)
		value := [4]int64{0, 0, int64(wait / time.Second), int64(wait % time.Second)}
		syscall.RawSyscall6(syscall.SYS_TIMERFD_SETTIME, timer, 0, uintptr(unsafe.Pointer(&value)), 0, 0, 0)
		count, err := syscall.EpollWait(poll, events, -1)
		if err == syscall.EINTR {
			continue
		}
		check(err)
		for _, event := range events[:count] {
			c := all[event.Fd]
			if c == nil {
				var ticks [8]byte
				syscall.Read(int(timer), ticks[:])
				continue
			}
			n, err := syscall.Read(c.descriptor, c.buffer[c.filled:])
			if err == syscall.EAGAIN {
				continue
			}
			if err != nil || n == 0 {
				panic(fmt.Sprint("reading: ", n, err))
			}
			c.filled += n
			if !whole(c.buffer[:c.filled]) {
				continue
			}
			if c.due >= warmUp {
				took = append(took, time.Since(begin)-c.due)
			}
			free = append(free, c)
		}
	}
	slices.Sort(took)
	micros := func(part float64) float64 { return float64(took[int(part*float64(len(took)-1))]) / 1e3 }
	fmt.Printf("%d answered\n%.0f us half\n%.0f us 99 %%\n", len(took), micros(0.5), micros(0.99))
}

// Whether this is a whole response.
func whole(response []byte) bool {
	head, body, found := bytes.Cut(response, []byte("\r\n\r\n"))
	if !found {
		return false
	}
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 200")) {
		panic("an error: " + string(head))
	}
	for line := range bytes.SplitSeq(head, []byte("\r\n")) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		if bytes.EqualFold(name, []byte("content-length")) {
			length, err := strconv.Atoi(string(bytes.TrimSpace(value)))
			check(err)
			return len(body) >= length
		}
	}
	panic("a response without a length")
}
