package sshd

import (
	"testing"

	"banger/internal/agent/agenttest"
)

func TestMain(m *testing.M) { agenttest.Main(m) }
