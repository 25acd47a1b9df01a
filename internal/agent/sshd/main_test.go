package sshd

import (
	"testing"

	"banger/internal/testing/agenttest"
)

func TestMain(m *testing.M) { agenttest.Main(m) }
