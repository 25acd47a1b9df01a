package firecracker

import (
	"os"
	"strings"
	"testing"

	"banger/internal/vmm"
)

// TestMetricsAreAddedUp: each line has the differences to the line before. A useless line does not
// hide the others.
func TestMetricsAreAddedUp(t *testing.T) {
	m, err := openMetrics(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	pipe, err := os.OpenFile(m.path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	for _, c := range []struct {
		name, line    string
		read, written uint64 // as they are then
	}{
		{"the first",
			`{"utc_timestamp_ms":1,"block":{"read_bytes":7,"write_bytes":1},"block_rootfs":{"read_bytes":7,"write_bytes":1}}`, 7,
			1},
		{"what was done since", `{"block":{"read_bytes":3,"write_bytes":2}}`, 10, 3},
		{"nothing of disks", `{"vmm":{"panic_count":0}}`, 10, 3},
		{"an empty line", ``, 10, 3},
		{"half a line", `{"block":{"read_bytes":5`, 10, 3},
		{"another type", `{"block":{"read_bytes":"5"}}`, 10, 3},
		{"a negative number", `{"block":{"read_bytes":-5}}`, 10, 3},
		{"a line without end", strings.Repeat("x", maxMetrics+5), 10, 3},
		{"the last", `{"block":{"read_bytes":1,"write_bytes":1}}`, 11, 4},
	} {
		_, read := m.sums()
		if _, err := pipe.WriteString(c.line + "\n"); err != nil {
			t.Fatal(err)
		}
		<-read
		if got, _ := m.sums(); got != (vmm.Stats{DiskRead: c.read, DiskWritten: c.written}) {
			t.Errorf("after %s the sums are %+v", c.name, got)
		}
	}
}
