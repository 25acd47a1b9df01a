package vmdir

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"banger"
	"banger/internal/blob"
)

// Record is kept for each VM beside its directory. If the database is lost, it serves to make the VM's row again. It
// is not in the directory, because that may belong to the VM's user and cannot be trusted.
type Record struct {
	Slot int       `json:"slot"`
	VM   banger.VM `json:"vm"`
}

// recordSize is the maximum size of a record in bytes.
const recordSize = 16 << 20

func recordPath(dir, id string) string { return filepath.Join(dir, id+".json") }

// NewRecord returns a record of vm without the fields that are valid only while it runs. A suspended VM goes on with
// its initramfs.
func NewRecord(vm banger.VM, slot int) Record {
	vm.State, vm.Reason, vm.StartedAt, vm.FinishedAt, vm.ExitCode = banger.StateStopped, "", time.Time{}, time.Time{}, nil
	vm.Address, vm.Forwards, vm.Listeners, vm.Limits, vm.Timings = "", nil, nil, nil, nil
	vm.Halted, vm.Restarts, vm.RestartAt, vm.Due = false, 0, time.Time{}, nil
	vm.Fresh, vm.Template, vm.Start = false, "", "" // a row that is made again must not say that a disk is empty
	if vm.Spec.TTL.Seconds == 0 {
		vm.LivesSince = time.Time{} // otherwise each start would write the record
	}
	return Record{slot, vm}
}

// ReadRecord reads the record of a VM whose directory is in dir, which is VMs or Lost.
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

// Bases returns the layers beneath the disks of all VMs that have a record, also of those that are set aside. An error
// means that there may be others.
func (d Dirs) Bases() (list []string, err error) {
	for _, dir := range []string{d.VMs(), d.Lost()} {
		entries, rerr := os.ReadDir(dir)
		if rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
		for _, e := range entries {
			name, ok := strings.CutSuffix(e.Name(), ".json")
			if !ok {
				continue
			}
			f, rerr := os.Open(recordPath(dir, name))
			var r Record
			if rerr == nil {
				rerr = json.NewDecoder(io.LimitReader(f, recordSize)).Decode(&r)
				f.Close()
			}
			if err = errors.Join(err, rerr); r.VM.Base != "" {
				list = append(list, r.VM.Base)
			}
		}
	}
	return list, err
}

// Recorder writes the record of one VM when it changes. Its methods must be called by one goroutine at a time.
type Recorder struct {
	path    string
	written []byte
}

// Recorder returns the recorder of a VM, which may already have a record.
func (d Dirs) Recorder(id string) *Recorder {
	r := &Recorder{path: recordPath(d.VMs(), id)}
	r.written, _ = os.ReadFile(r.path) // the file is our own
	return r
}

// Write stores r as the record, durably. After an error, the old record remains.
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
