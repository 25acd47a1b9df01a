package server

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestTheStartIsForgotten: the pages of the program that its start has read are no longer held, and the program keeps
// running.
func TestTheStartIsForgotten(t *testing.T) {
	before := residentFile(t)
	if err := forgetStart(); err != nil {
		t.Fatal(err)
	}
	if after := residentFile(t); after >= before {
		t.Errorf("%d KiB of files were resident, and are %d", before, after)
	}
}

func residentFile(t *testing.T) int {
	t.Helper()
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(data), "RssFile:")
	n, err := strconv.Atoi(strings.Fields(text)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
