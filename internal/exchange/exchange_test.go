package exchange

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"banger"
	"banger/internal/api/client"
	"banger/internal/frame"
	"banger/internal/testing/apitest"
)

// TestHowACopyIntoAVMEnds: the error says what the VM says, or what failed here, and nobody waits for the other.
func TestHowACopyIntoAVMEnds(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	endless := func(ctx context.Context, w io.Writer, _, _ uint32) error {
		for buf := make([]byte, 1<<20); ; {
			if _, err := w.Write(buf); err != nil {
				return err
			}
		}
	}
	short := func(_ context.Context, w io.Writer, _, _ uint32) error {
		_, err := io.WriteString(w, "tar")
		return err
	}
	takes := func(conn net.Conn) {
		for frames := frame.NewReader(conn); ; {
			if kind, _, err := frames.Next(); err != nil || kind == frame.StdinEOF {
				return
			}
		}
	}
	full := banger.Errorf(banger.CodeNoSpace, "the disk of the VM is full")
	for name, c := range map[string]struct {
		vm    func(conn net.Conn)
		write writeTar
		want  string // a part of the error; "" for none
	}{
		"it takes all":       {func(c net.Conn) { takes(c); frame.WriteJSON(c, frame.Response, banger.CopyReport{}) }, short, ""},
		"it refuses at once": {func(c net.Conn) { frame.WriteJSON(c, frame.Error, full); takes(c) }, endless, "is full"},
		"it refuses and reads no more": {func(c net.Conn) { frame.WriteJSON(c, frame.Error, full); <-ctx.Done() }, endless,
			"is full"},
		"it refuses in the end": {func(c net.Conn) { takes(c); frame.WriteJSON(c, frame.Error, full) }, short, "is full"},
		"it goes away":          {func(net.Conn) {}, endless, "the VM went away"},
		"what is sent fails here": {takes, func(context.Context, io.Writer, uint32, uint32) error { return io.ErrNoProgress },
			"writing what the VM gets"},
	} {
		t.Run(name, func(t *testing.T) {
			socket := apitest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
				conn := apitest.Upgrade(w, r)
				defer conn.Close()
				c.vm(conn)
			})
			p := &Place{Client: client.New(socket), VM: "box", It: banger.Workspace{Path: "/workspace"}}
			err := p.extract(t.Context(), c.write)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("the copy ends with %v, not with %q", err, c.want)
			}
		})
	}
	stop()
}
