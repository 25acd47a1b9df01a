package guest

import (
	"context"
	"io"
	"net"
	"reflect"
	"testing"
	"time"

	"banger/internal/testing/processtest"

	"banger"
	"banger/internal/frame"
)

// TestSSHStreamBeginsBehindTheAnswer: every byte after the agent's answer belongs to the SSH protocol, however early
// it arrives. The ends of both directions are passed on, too.
func TestSSHStreamBeginsBehindTheAnswer(t *testing.T) {
	want := banger.SSH{Keys: []string{"a key"}, ForwardAgent: true, Env: []string{"A=b"}}
	c := fakeAgent(t, func(r Request, conn net.Conn) {
		if r.Op != OpSSH || !reflect.DeepEqual(*r.SSH, want) {
			t.Errorf("the agent got %+v", r)
		}
		frame.WriteJSON(conn, frame.Response, Info{})
		io.WriteString(conn, "SSH-2.0-guest\r\n")
		data, _ := io.ReadAll(conn)
		conn.Write(data)
		conn.Close()
	})
	conn, err := c.SSH(processtest.WithPatience(t), want)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "SSH-2.0-host\r\n")
	conn.(*net.UnixConn).CloseWrite()
	conn.SetReadDeadline(time.Now().Add(processtest.Patience))
	const both = "SSH-2.0-guest\r\nSSH-2.0-host\r\n"
	got := make([]byte, len(both))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != both {
		t.Errorf("%q comes, %v", got, err)
	}
}

// TestSSHAnswers: an agent that refuses, answers something else or nothing causes an error, and no connection stays
// open.
func TestSSHAnswers(t *testing.T) {
	for name, tt := range map[string]struct {
		answer func(net.Conn)
		code   banger.Code
	}{
		"a refusal": {func(conn net.Conn) {
			frame.WriteJSON(conn, frame.Error, banger.Error{Code: banger.CodeConflict, Message: "no"})
		}, banger.CodeConflict},
		"another frame": {func(conn net.Conn) { frame.Write(conn, frame.Exit, nil) }, banger.CodeGuest},
		"SSH at once":   {func(conn net.Conn) { io.WriteString(conn, "SSH-2.0-guest\r\n") }, banger.CodeGuest},
		"nothing":       {func(conn net.Conn) { conn.Close() }, banger.CodeGuest},
	} {
		t.Run(name, func(t *testing.T) {
			c := fakeAgent(t, func(_ Request, conn net.Conn) { tt.answer(conn) })
			if _, err := c.SSH(processtest.WithPatience(t), banger.SSH{}); banger.CodeOf(err) != tt.code {
				t.Errorf("it is %v", err)
			}
		})
	}
	t.Run("silence", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := fakeAgent(t, func(_ Request, conn net.Conn) {
			cancel()
			io.Copy(io.Discard, conn)
		})
		if _, err := c.SSH(ctx, banger.SSH{}); err == nil {
			t.Error("there is a connection")
		}
	})
}
