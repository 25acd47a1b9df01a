package agent

import (
	"os"
	"testing"

	"banger/internal/agent/agenttest"
)

func TestMain(m *testing.M) {
	if os.Getenv(inGuest) != "" {
		os.Exit(m.Run())
	}
	agenttest.Main(m)
}
