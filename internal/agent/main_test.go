package agent

import (
	"os"
	"testing"

	"banger/internal/testing/agenttest"
)

func TestMain(m *testing.M) {
	if os.Getenv(inGuest) != "" {
		os.Exit(m.Run())
	}
	agenttest.Main(m)
}
