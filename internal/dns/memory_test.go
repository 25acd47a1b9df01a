package dns

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"banger/internal/testing/processtest"
)

// TestLongMessagesTakeLittleMemory sends twenty streams a message whose 64 KiB stand for 30,000 names
// of a thousand characters.
func TestLongMessagesTakeLittleMemory(t *testing.T) {
	at := start(t)
	m := []byte{0, 1, 1, 0, 0, 1, 0, 1, 0, 0, 0, 0}
	m = append(m, bytes.Repeat(append([]byte{62}, bytes.Repeat([]byte{0xff}, 62)...), 4)...)
	m = append(m, 0, 0, 1, 0, 1, 0xc0, 12, 0, byte(dns.TypeHIP), 0, 1, 0, 0, 0, 0)
	list := append([]byte{1, 2, 0, 1, 'x', 'y'}, bytes.Repeat([]byte{0xc0, 12}, 30_000)...)
	m = append(binary.BigEndian.AppendUint16(m, uint16(len(list))), list...)
	m = append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...)
	grown := processtest.Growth(t, func() {
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				conn, err := net.Dial("tcp", at)
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(10 * time.Second))
				conn.Write(m)
				io.Copy(io.Discard, conn) // until the server ends the stream, or for long enough to answer
			})
		}
		wg.Wait()
	})
	if grown > 16<<20 {
		t.Errorf("the process has grown by %d KiB", grown>>10)
	}
	c := dns.Client{Net: "tcp", Timeout: 10 * time.Second}
	if _, _, err := c.Exchange(new(dns.Msg).SetQuestion(Self+".", dns.TypeA), at); err != nil {
		t.Error(err)
	}
}
