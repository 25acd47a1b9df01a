package sshd

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"banger"
	"banger/internal/testing/agenttest"
	"banger/internal/testing/processtest"
)

// TestASuspendIsToldToSessions: a session, with a terminal or without one, learns why it ends. Its command is hung up.
func TestASuspendIsToldToSessions(t *testing.T) {
	for name, terminal := range map[string]bool{"with a terminal": true, "without a terminal": false} {
		t.Run(name, func(t *testing.T) {
			g := startSSH(t)
			s := newSession(t, g.client(t, banger.SSH{}))
			f := agenttest.NewFifo(t)
			var stderr bytes.Buffer
			s.Stderr = &stderr
			stdout, err := s.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if terminal {
				if err := s.RequestPty("xterm", 24, 80, nil); err != nil {
					t.Fatal(err)
				}
			}
			const script = "trap 'echo hup >&9; exit' HUP; echo ready; while :; do sleep 5 9>&- & wait $!; done"
			if err := s.Start("exec 9>" + f.Path + "; " + script); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(stdout, make([]byte, len("ready"))); err != nil {
				t.Fatal(err)
			}
			if _, err := g.Suspend(processtest.WithPatience(t)); err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, stdout)
			if err := s.Wait(); err == nil {
				t.Error("the session ends as if its command had")
			}
			if said := stderr.String(); strings.Count(said, "banger: the VM was suspended: the command was hung up") != 1 {
				t.Errorf("the client reads %q", said)
			}
			if _, err := g.Thaw(processtest.WithPatience(t)); err != nil {
				t.Fatal(err)
			}
			if said := f.AwaitEnd(t); said != "hup\n" {
				t.Errorf("the command said %q", said)
			}
		})
	}
}
