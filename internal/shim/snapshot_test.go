package shim

import (
	"bufio"
	"fmt"
	"net"
	"path/filepath"
	"testing"

	"banger"
)

// TestAShimThatTakesNoSnapshots, because it is of an earlier banger, says so before anything is done.
func TestAShimThatTakesNoSnapshots(t *testing.T) {
	run := t.TempDir()
	ln, err := net.Listen("unix", filepath.Join(run, SocketFile))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() { // ends with ln, or with its one client
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		call, _ := bufio.NewReader(conn).ReadString('\n')
		fmt.Fprintf(conn, `{"error": "unknown call \"%s\""}`+"\n", call[:len(call)-1])
	}()
	if _, err := (Client{Run: run}).Settled(t.Context()); banger.CodeOf(err) != banger.CodeConflict {
		t.Errorf("it says %v", err)
	}
}
