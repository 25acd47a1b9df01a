package agent

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"banger"
	"banger/internal/testing/agenttest"
	"banger/internal/testing/processtest"
)

// TestTheMainCommandsOutputIsRecorded checks that both streams come apart and byte for byte, and that a host whose
// connection breaks goes on where it was.
func TestTheMainCommandsOutputIsRecorded(t *testing.T) {
	a := agenttest.Start(t)
	dir := t.TempDir()
	one, two := agenttest.Noise(3<<20), agenttest.Noise(1<<20+1)
	for name, data := range map[string][]byte{"one": one, "two": two} {
		if err := os.WriteFile(dir+"/"+name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	e := agenttest.Shell("cat $1/two >&2; cat $1/one", dir)
	e.Main = true
	if err := a.Client.Start(processtest.WithPatience(t), e); err != nil {
		t.Fatal(err)
	}
	first := a.Record(t, 0)
	agenttest.Await(t, "the first host has some", func() bool { return first.Position() > 1<<20 })
	second := a.Record(t, first.Stop())
	if err := agenttest.Within(t, "the output ends", second.Ended); err != nil {
		t.Fatal(err)
	}
	if got := first.Stdout() + second.Stdout(); !bytes.Equal([]byte(got), one) {
		t.Errorf("stdout has %d bytes of %d, or not the same", len(got), len(one))
	}
	if got := first.Stderr() + second.Stderr(); !bytes.Equal([]byte(got), two) {
		t.Errorf("stderr has %d bytes of %d, or not the same", len(got), len(two))
	}
}

// TestAWrongPositionIsRefused asks for output that the host has said it has, and for output of the future.
func TestAWrongPositionIsRefused(t *testing.T) {
	a := agenttest.Start(t)
	e := agenttest.Shell("echo words")
	e.Main = true
	if err := a.Client.Start(processtest.WithPatience(t), e); err != nil {
		t.Fatal(err)
	}
	if err := agenttest.Within(t, "the output ends", a.Record(t, 0).Ended); err != nil {
		t.Fatal(err)
	}
	agenttest.Await(t, "the host's last word has come to the agent", func() bool {
		return banger.CodeOf(agenttest.Within(t, "the agent refuses", a.Record(t, 0).Ended)) == banger.CodeInvalid
	})
	for _, position := range []uint64{0, 1, 1 << 63} {
		err := agenttest.Within(t, "the agent refuses", a.Record(t, position).Ended)
		if banger.CodeOf(err) != banger.CodeInvalid {
			t.Errorf("position %d is answered by %v", position, err)
		}
	}
	if err := agenttest.Within(t, "the end", a.Record(t, uint64(len("words\n"))).Ended); err != nil {
		t.Error(fmt.Errorf("the position of the end: %w", err))
	}
}
