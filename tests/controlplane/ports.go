package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
)

type ports struct{ etcd, etcdPeer, apiserver, controllerManager int }

// Finds four free ports on loopback, just below those the kernel hands to outgoing connections: such a connection could take
// the port of a program that is stopped for a moment, and a client that keeps dialling a closed port could reach itself.
// The ports below these belong to the tests (tests/support/ports.rs).
func freePorts() (ports, error) {
	beyond := 32768
	if content, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		fmt.Sscan(string(content), &beyond)
	}
	first := max(10000, beyond-768)
	var found []int
	for range 1000 {
		port := 0
		if beyond-first >= 100 {
			port = first + rand.IntN(beyond-first)
		}
		listener, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		defer listener.Close() // all stay open until the last is found, so none is found twice
		found = append(found, listener.Addr().(*net.TCPAddr).Port)
		if len(found) == 4 {
			return ports{found[0], found[1], found[2], found[3]}, nil
		}
	}
	return ports{}, errors.New("found no free ports on 127.0.0.1")
}
