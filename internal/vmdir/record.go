package vmdir

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"banger"
	"banger/internal/blob"
)

// Record is what is kept of a VM beside its directory, so that its row can be made again if the database is lost. The directory
// itself may belong to the VM's user, and then nothing in it is believed.
type Record struct {
	Slot int       `json:"slot"`
	VM   banger.VM `json:"vm"`
}

// recordSize bounds a record in bytes.
const recordSize = 16 << 20

func recordPath(dir, id string) string { return filepath.Join(dir, id+".json") }

// NewRecord leaves out of vm what is true only while it runs.
func NewRecord(vm banger.VM, slot int) Record {
	vm.State, vm.Reason, vm.StartedAt, vm.FinishedAt, vm.ExitCode = banger.StateStopped, "", time.Time{}, time.Time{}, nil
	vm.Address, vm.Forwards, vm.Limits, vm.Timings, vm.Initramfs = "", nil, nil, nil, ""
	return Record{slot, vm}
}

// ReadRecord reads the record of a VM whose directory is in dir: that of all VMs, or Lost.
func ReadRecord(dir, id string) (r Record, err error) {
	f, err := os.Open(recordPath(dir, id))
	if err != nil {
		return r, err
	}
	defer f.Close()
	if err := json.NewDecoder(io.LimitReader(f, recordSize)).Decode(&r); err != nil {
		return r, err
	}
	if r.VM.ID != id {
		return r, errors.New("the record is of another VM")
	}
	return r, nil
}

// Recorder writes the record of one VM when it changes. Its methods are called by one goroutine at a time.
type Recorder struct {
	path    string
	written []byte
}

// Recorder returns the recorder of a VM, which may have a record.
func (d Dirs) Recorder(id string) *Recorder {
	r := &Recorder{path: recordPath(d.VMs(), id)}
	r.written, _ = os.ReadFile(r.path) // ours
	return r
}

// Write makes r the record, durably. A record that cannot be written stays as it was.
func (w *Recorder) Write(r Record) error {
	data, err := json.Marshal(r)
	if err != nil || bytes.Equal(data, w.written) {
		return err
	}
	err = blob.WriteFile(w.path, 0o600, func(f io.Writer) error { _, err := f.Write(data); return err })
	if err == nil {
		w.written = data
	}
	return err
}
