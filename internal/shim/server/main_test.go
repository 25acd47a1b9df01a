package server

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// built is the directory of the agent that a test has built.
var built string

// TestMain removes what tests have built.
func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(code)
}

// agentBinary returns the path of the guest agent: the one in BANGER_TEST_PARTS, where there is no Go tool, or else one
// that it builds.
func agentBinary(t *testing.T) string {
	t.Helper()
	if parts := os.Getenv("BANGER_TEST_PARTS"); parts != "" {
		return filepath.Join(parts, "banger-agent")
	}
	check(t, buildAgent())
	return filepath.Join(built, "agent")
}

var buildAgent = sync.OnceValue(func() (err error) {
	if built, err = os.MkdirTemp("", "agent"); err != nil {
		return err
	}
	return exec.Command("go", "build", "-o", filepath.Join(built, "agent"), "banger/cmd/banger-agent").Run()
})

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
