package sshd

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	sshagent "golang.org/x/crypto/ssh/agent"

	"banger"
	"banger/internal/testing/agenttest"
)

// roundTrip sends, ends its side and reads to the end.
func roundTrip(t testing.TB, conn net.Conn, data []byte) {
	t.Helper()
	go func() {
		conn.Write(data)
		conn.(interface{ CloseWrite() error }).CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes come back of %d, or not the same: %v", len(got), len(data), err)
	}
	conn.Close()
}

// TestSSHForwards checks that forwards work in both directions, for TCP and for sockets with a
// path, and that each direction can end alone.
func TestSSHForwards(t *testing.T) {
	for name, c := range map[string]struct{ network, address string }{
		"tcp": {"tcp", "127.0.0.1:0"}, "unix": {"unix", filepath.Join(t.TempDir(), "there")},
	} {
		t.Run("to the guest by "+name, func(t *testing.T) {
			g := startSSH(t)
			l, err := net.Listen(c.network, c.address)
			if err != nil {
				t.Fatal(err)
			}
			agenttest.Echo(t, l)
			conn, err := g.client(t, banger.SSH{}).Dial(c.network, l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			roundTrip(t, conn, agenttest.Noise(1<<20))
		})
		t.Run("from the guest by "+name, func(t *testing.T) {
			g := startSSH(t)
			client := g.client(t, banger.SSH{})
			l, err := client.Listen(c.network, c.address)
			if err != nil {
				t.Fatal(err)
			}
			agenttest.Echo(t, l)
			conn, err := net.Dial(c.network, l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			roundTrip(t, conn, agenttest.Noise(1<<20))
			client.Close()
			agenttest.Await(t, "the listener goes with its connection", func() bool {
				conn, err := net.Dial(c.network, l.Addr().String())
				if err == nil {
					conn.Close()
				}
				return err != nil
			})
		})
	}
}

func TestSSHForwardsToNowhereAreRefused(t *testing.T) {
	c := startSSH(t).client(t, banger.SSH{})
	if conn, err := c.Dial("unix", filepath.Join(t.TempDir(), "none")); err == nil {
		conn.Close()
		t.Error("nothing answers")
	}
	if out, err := newSession(t, c).Output("echo on"); err != nil || string(out) != "on\n" {
		t.Errorf("then the connection says %q, %v", out, err)
	}
}

// TestSSHAgentForwarding checks that the client's agent can be reached from the guest only if the
// request has allowed it.
func TestSSHAgentForwarding(t *testing.T) {
	for _, allowed := range []bool{false, true} {
		t.Run(fmt.Sprintf("allowed %v", allowed), func(t *testing.T) {
			g := startSSH(t)
			c := g.client(t, banger.SSH{ForwardAgent: allowed})
			ring := sshagent.NewKeyring()
			if err := ring.Add(sshagent.AddedKey{PrivateKey: g.user}); err != nil {
				t.Fatal(err)
			}
			if err := sshagent.ForwardToAgent(c, ring); err != nil {
				t.Fatal(err)
			}
			s := newSession(t, c)
			if err := sshagent.RequestAgentForwarding(s); (err == nil) != allowed {
				t.Fatalf("it is answered with %v", err)
			}
			out, _ := s.Output("echo $SSH_AUTH_SOCK")
			socket := strings.TrimSpace(string(out))
			if !allowed {
				if socket != os.Getenv("SSH_AUTH_SOCK") && socket != "" {
					t.Errorf("there is a socket %q", socket)
				}
				return
			}
			conn, err := net.Dial("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			keys, err := sshagent.NewClient(conn).List()
			if err != nil || len(keys) != 1 {
				t.Errorf("it offers %v, %v", keys, err)
			}
			c.Close()
			agenttest.Await(t, "the socket goes", func() bool { _, err := os.Stat(filepath.Dir(socket)); return err != nil })
		})
	}
}
