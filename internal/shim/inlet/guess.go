package inlet

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"time"

	"banger"
)

const guessTime = 2 * time.Second

// guess requests a page from a port and looks at the start of the answer. A TLS server answers with an alert (RFC
// 8446, 6), or says in plain text that it wants TLS.
func (a *Inlet) guess(ctx context.Context, l banger.Listener) string {
	dial := a.gate.DialGuest
	if addr, err := netip.ParseAddr(l.Address); err == nil && addr.IsLoopback() {
		dial = a.agent.DialLocal
	}
	conn, err := dial(ctx, l.Port)
	if err != nil {
		return ""
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	fmt.Fprintf(conn, "HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	head := make([]byte, 512)
	n, _ := conn.Read(head)
	head = bytes.ToLower(head[:n])
	switch {
	case n > 0 && head[0] == 0x15, bytes.HasPrefix(head, []byte("http/")) && bytes.Contains(head, []byte(" 400 ")) &&
		bytes.Contains(head, []byte("https")):
		return "https"
	case bytes.HasPrefix(head, []byte("http/")):
		return "http"
	}
	return ""
}
