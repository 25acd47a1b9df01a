package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// warmVMs is how many VMs TestNoTwoWarmVMsAreAlike starts, eight at a time. BANGER_WARM_VMS sets another number.
const warmVMs = 64

// identity is what each VM prints, one line for each thing: the first random bytes that a program gets, the boot id,
// the address of the NIC, and the seeds of the hash tables of Perl and of a Go program, which comes on stdin.
const identity = `head -c 16 /dev/urandom | od -An -tx8 | tr -d ' '
cat /proc/sys/kernel/random/boot_id
cat /sys/class/net/e*/address
PERL_HASH_SEED_DEBUG=1 perl -e 1 2>&1 | sed 's/.*HASH_SEED = //'
cat >/run/seed && chmod +x /run/seed && /run/seed`

// TestNoTwoWarmVMsAreAlike starts VMs from one template, and compares what they draw and what they are called. The
// files of the template stay as they are.
func TestNoTwoWarmVMsAreAlike(t *testing.T) {
	if testing.Short() || os.Getenv(onlyDiffering) == "1" {
		t.Skip("it starts real guests, and runs once, as an ordinary user where there is one")
	}
	n := warmVMs
	if more, err := strconv.Atoi(os.Getenv("BANGER_WARM_VMS")); err == nil {
		n = more
	}
	w, err := newWorld()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := w.close(); err != nil {
			t.Error(err)
		}
	}()
	program := seedProgram(t)
	before := templateSums(t, w)
	seen := map[string]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	places := make(chan struct{}, 8)
	for i := range n {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			name := fmt.Sprint("vm", i)
			run := w.command(ctx, "run", "-i", "-q", "--name", name, "--warm", "only", "debian-bookworm", "sh", "-c", identity)
			run.Stdin = bytes.NewReader(program)
			var said bytes.Buffer
			run.Stderr = &said
			out, err := run.Output()
			key, kerr := w.command(ctx, "inspect", "--format", "{{.ssh_host_key}}", name).Output()
			rerr := w.command(ctx, "rm", name).Run()
			lines := strings.Split(strings.TrimSpace(string(out)+string(key)), "\n")
			mu.Lock()
			defer mu.Unlock()
			if err := errors.Join(err, kerr, rerr); err != nil || len(lines) != 6 {
				t.Errorf("VM %d says %q, %v: %s", i, lines, err, &said)
				return
			}
			for k, line := range lines {
				seen[fmt.Sprint(k, " ", line)]++
			}
		})
	}
	wg.Wait()
	for line, times := range seen {
		if times > 1 {
			t.Errorf("%d VMs say %s", times, line)
		}
	}
	t.Logf("%d VMs say %d different lines", n, len(seen))
	if after := templateSums(t, w); after != before {
		t.Errorf("the files of the templates were %s, and are %s", before, after)
	}
}

// seedProgram builds the Go program that prints a seed of its runtime.
func seedProgram(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "seed")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "testdata/seed/main.go")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// templateSums returns the checksums of what VMs share of templates.
func templateSums(t *testing.T, w *world) (text string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(w.state, "templates/ready/*/*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no templates, %v", err)
	}
	for _, path := range files {
		if strings.HasSuffix(path, ".ext4") { // a hole of 10 GiB; VMs get copies
			continue
		}
		text += fmt.Sprintf("%s %s\n", filepath.Base(path), sumOf(t, path))
	}
	return text
}
