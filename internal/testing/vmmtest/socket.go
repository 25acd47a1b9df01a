package vmmtest

import (
	"net"
	"os"
	"testing"
)

// SocketPair returns a connection and its other end, for a VMM.
func SocketPair(t *testing.T) (net.Conn, *os.File) {
	t.Helper()
	ours, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	return conn, theirs
}
