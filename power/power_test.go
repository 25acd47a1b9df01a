//go:build power

// Package power simulates power cuts of banger's host. A real daemon works for several clients on
// an ext4 whose disk logs each write. Then, for hundreds of instants, the disk is made as a power
// cut at that instant leaves it, the kernel mounts it, and a daemon starts on it. Nothing that was
// acknowledged may be missing, and nothing that was only partly written may be listed as good. The
// same work without fsync must fail, otherwise the tests would not detect a failure.
// scripts/test-power runs it, as root.
//
// It must not know how banger makes things durable. It uses the API's client, and reads files where
// a user finds them.
package power

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// clients is how many clients work at the same time.
const clients = 4

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// number returns an environment variable as a number.
func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	check(t, err)
	return n
}

// TestDatabase cuts the power while VMs are created, changed and removed.
func TestDatabase(t *testing.T) { cutAll(t, database{}) }

// TestStores cuts the power while images are pulled, tagged, registered and removed, and kernels
// are imported, pulled and removed.
func TestStores(t *testing.T) { cutAll(t, stores{}) }

// cutAll does one kind of work twice: with fsync, where every cut must be survived, and without
// fsync, where some cuts must fail.
func cutAll(t *testing.T, kind kind) {
	if dir := os.Getenv("REPLAY"); dir != "" {
		replayKept(t, kind, dir)
		return
	}
	seed := number(t, "SEED", uint64(time.Now().UnixNano()))
	cuts := int(number(t, "CUTS", 20))
	synced := run{Seed: seed, Cuts: cuts, Steps: min(max(cuts, 40), 300)}
	if failures := synced.do(t, kind); len(failures) > 0 {
		t.Errorf("%d of %d cuts failed", len(failures), cuts)
	}
	control := run{Seed: seed, Cuts: 8, Steps: 40, NoSync: true}
	if failures := control.do(t, kind); len(failures) == 0 {
		t.Errorf("without fsync none of %d cuts failed: the rig sees nothing", control.Cuts)
	}
}

// run is one workload with its cuts. If it fails, it is stored beside the log.
type run struct {
	Seed   uint64
	Cuts   int
	Steps  int // of each client
	NoSync bool
	World  world // in which the log was made
}

// do does the work, checks the log, and returns the failures of the cuts.
func (r run) do(t *testing.T, kind kind) (failures []string) {
	t.Helper()
	name := kind.name()
	if r.NoSync {
		name += " without fsync"
	}
	began := time.Now()
	dir, err := os.MkdirTemp("", "banger-power-")
	check(t, err)
	keep := false
	defer func() {
		if !keep {
			os.RemoveAll(dir)
		}
	}()
	d := newDrive(t, dir)
	r.World = kind.prepare(t, dir, r.Seed)
	r.work(t, kind, d)
	d.close(t)
	r.World.close()
	worked := time.Since(began)
	entries, log := wantWholeLog(t, dir)
	defer log.Close()
	failures = r.cutAt(t, kind, dir, entries, log)
	t.Logf("%s: SEED=%d, %d clients of %d steps, %d entries in the log, worked %.0f s, %d cuts in %.0f s, %d failed",
		name, r.Seed, clients, r.Steps, len(entries), worked.Seconds(), r.Cuts,
		(time.Since(began) - worked).Seconds(), len(failures))
	if r.NoSync && len(failures) > 0 {
		t.Logf("without fsync, for example: %.400s", failures[0])
	}
	if len(failures) == 0 && os.Getenv("KEEP") == "" || r.NoSync {
		return failures
	}
	for _, f := range failures {
		t.Log(f)
	}
	text, err := json.Marshal(r)
	check(t, err)
	check(t, os.WriteFile(filepath.Join(dir, "run.json"), text, 0o600))
	keep = true
	t.Logf("the log is kept; the same cuts again: make test-power ONLY=%s REPLAY=%s", t.Name(), dir)
	return failures
}

// replayKept repeats the cuts that failed in an earlier run, with the log that was kept.
func replayKept(t *testing.T, kind kind, dir string) {
	text, err := os.ReadFile(filepath.Join(dir, "run.json"))
	check(t, err)
	var r run
	check(t, json.Unmarshal(text, &r))
	entries, log := wantWholeLog(t, dir)
	defer log.Close()
	for _, f := range r.cutAt(t, kind, dir, entries, log) {
		t.Error(f)
	}
}

// work runs the steps of all clients, and notes each acknowledged step.
func (r run) work(t *testing.T, kind kind, d *drive) {
	t.Helper()
	b := startDaemon(t, filepath.Join(d.mnt, "s"), r.NoSync, r.World.env())
	defer b.stop(t)
	kind.begin(t, b, r.World)
	mustTool(t, "sync", "-f", d.mnt) // so that the control does not lose everything
	for client := range clients {    // the cuts come after the first note
		check(t, d.note(client, 0))
	}
	ended := make(chan error, clients)
	for client := range clients {
		go func() { // ends with its steps
			ended <- func() error {
				for i, s := range plan(kind, r.World, r.Seed, client, r.Steps).steps {
					if err := s.do(context.Background(), b); err != nil {
						return fmt.Errorf("client %d, step %d, %s: %w", client, i, s.text, err)
					}
					if err := d.note(client, i+1); err != nil {
						return err
					}
				}
				return nil
			}()
		}()
	}
	for range clients {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
}

// wantWholeLog reads the log and checks that a replay of all entries gives the real disk.
func wantWholeLog(t *testing.T, dir string) ([]entry, *os.File) {
	t.Helper()
	log, err := os.Open(filepath.Join(dir, "log.img"))
	check(t, err)
	entries, err := readLog(log)
	check(t, err)
	image := filepath.Join(dir, "whole.img")
	defer os.Remove(image)
	r := openReplay(t, dir, image, entries, log)
	defer r.image.Close()
	since, err := r.until(cut{at: len(entries)})
	check(t, err)
	for _, e := range since {
		check(t, e.apply(r.image, r.log, nil))
	}
	mustTool(t, "cmp", image, filepath.Join(dir, "data.img"))
	return entries, log
}

func openReplay(t *testing.T, dir, image string, entries []entry, log *os.File) *replay {
	t.Helper()
	mustTool(t, "cp", "--sparse=always", filepath.Join(dir, "base.img"), image)
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	check(t, err)
	return &replay{log: log, entries: entries, image: f}
}

// examinedIn returns where disks are examined: in memory, where fsync is cheap, or in the directory
// of temporary files if the memory is small.
func examinedIn() string {
	const memory, needed = "/dev/shm", 4 * fsSize
	var st unix.Statfs_t
	if unix.Statfs(memory, &st) == nil && int64(st.Bavail)*st.Bsize >= needed {
		return memory
	}
	return os.TempDir()
}

// cutAt makes the cuts at all instants, two at the same time, and returns the failures.
func (r run) cutAt(t *testing.T, kind kind, dir string, entries []entry, log *os.File) (failures []string) {
	t.Helper()
	plans := make([]planned, clients)
	for client := range clients {
		plans[client] = plan(kind, r.World, r.Seed, client, r.Steps)
	}
	replay := openReplay(t, dir, filepath.Join(dir, "replay.img"), entries, log)
	defer replay.image.Close()
	const atOnce = 2
	free := make(chan int, atOnce)
	for slot := range atOnce {
		free <- slot
	}
	found := make(chan string, r.Cuts)
	dice := rand.New(rand.NewPCG(r.Seed, 2))
	for _, at := range chooseCuts(entries, r.Cuts, r.Seed) {
		c := cut{at: at, reorders: dice.IntN(2) == 0, seed: r.Seed}
		acknowledged, err := replay.acknowledged(c)
		check(t, err)
		slot := <-free
		place, err := os.MkdirTemp(examinedIn(), fmt.Sprintf("bp%d-", slot))
		check(t, err)
		check(t, replay.fail(c, filepath.Join(place, "disk.img")))
		go func() { // ends with the examination
			defer func() { free <- slot }()
			defer os.RemoveAll(place)
			if err := examine(t, kind, r.World, plans, acknowledged, place); err != nil {
				found <- fmt.Sprintf("%v, acknowledged %v: %v", c, acknowledged, err)
			}
		}()
	}
	for range atOnce {
		<-free
	}
	close(found)
	for f := range found {
		failures = append(failures, f)
	}
	return failures
}
