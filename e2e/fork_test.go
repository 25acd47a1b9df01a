package e2e

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// forks is how many VMs TestNoTwoForksAreAlike makes. BANGER_FORKS sets another number.
const (
	forks       = 64
	forksAtOnce = 8
)

// patience bounds each wait. Only a failing wait takes as long.
const patience = time.Minute

// forkIdentity is what each fork prints, one line for each thing: the first random bytes that a program gets, the
// boot id, the address of the NIC, and the seeds of the hash tables of Perl and of a Go program.
const forkIdentity = `head -c 16 /dev/urandom | od -An -tx8 | tr -d ' '
cat /proc/sys/kernel/random/boot_id
cat /sys/class/net/e*/address
PERL_HASH_SEED_DEBUG=1 perl -e 1 2>&1 | sed 's/.*HASH_SEED = //'
/root/seed`

// openGenerator is a program that runs before the fork and draws 16 bytes for each line that it gets: from a
// descriptor of the kernel's generator that it keeps open, as the generators of SSL libraries and of Python do.
const openGenerator = `exec 3</dev/urandom; head -c 16 <&3 >/dev/null; echo ready
while read line; do head -c 16 <&3 | od -An -tx8 | tr -d ' '; done`

// TestNoTwoForksAreAlike makes forks of one VM and of one of its snapshots, and compares what they draw and what they
// are called, also by a program that runs since before. The source goes on, and the files of the snapshot stay as
// they are.
func TestNoTwoForksAreAlike(t *testing.T) {
	if testing.Short() || os.Getenv(onlyDiffering) == "1" {
		t.Skip("it starts real guests, and runs once, as an ordinary user where there is one")
	}
	n := forks
	if more, err := strconv.Atoi(os.Getenv("BANGER_FORKS")); err == nil {
		n = more
	}
	w, err := newWorld()
	if err != nil {
		t.Fatal(err)
	}
	s := &suspendStorm{T: t, w: w}
	defer func() {
		if err := w.close(); err != nil {
			t.Error(err)
		}
	}()
	program := filepath.Join(t.TempDir(), "seed")
	if err := os.WriteFile(program, seedProgram(t), 0o755); err != nil {
		t.Fatal(err)
	}
	s.must("run", "-d", "-q", "--name", "source", "--disk", "256m", "debian-bookworm")
	s.must("cp", "-q", program, "source:/root/seed")
	s.must("session", "start", "-q", "--name", "dice", "source", "--", "sh", "-c", openGenerator)
	if !poll(patience, func() bool { return s.must("session", "logs", "source", "dice") == "ready\n" }) {
		t.Fatal("the program with the generator does not run")
	}
	s.must("snapshot", "create", "-q", "source", "instant")
	before := snapshotSums(t, w)
	seen := map[string]int{}
	note(t, seen, identityOf(s, "source"))
	for made := 0; made < n; made += forksAtOnce {
		from := []string{"instant", "source"}[made/forksAtOnce%2]
		name := fmt.Sprintf("r%d-", made)
		s.must("fork", "-q", from, "-n", fmt.Sprint(forksAtOnce), "--name", name+"{n}")
		all := make([]said, forksAtOnce)
		remove := []string{"rm", "-f"}
		var wg sync.WaitGroup
		for i := range all {
			vm := fmt.Sprint(name, i+1)
			remove = append(remove, vm)
			wg.Go(func() { all[i] = identityOf(s, vm) })
		}
		wg.Wait()
		for _, one := range all {
			note(t, seen, one)
		}
		s.must(remove...)
	}
	for line, times := range seen {
		if times > 1 {
			t.Errorf("%d VMs say %s", times, line)
		}
	}
	t.Logf("%d forks and their source say %d different lines", n, len(seen))
	for path, sum := range before {
		if now := sumOf(t, path); now != sum {
			t.Errorf("%s was %s, and is %s", path, sum, now)
		}
	}
	s.must("exec", "source", "true")
}

// said is what one VM says.
type said struct {
	vm   string
	text string
	err  error
}

// note counts each line that a VM says.
func note(t *testing.T, seen map[string]int, one said) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(one.text), "\n")
	if one.err != nil || len(lines) != 8 {
		t.Errorf("%s says %q, %v", one.vm, lines, one.err)
		return
	}
	for i, line := range lines {
		seen[fmt.Sprint(i, " ", line)]++
	}
}

// identityOf asks a VM for what must be its own, one line for each thing.
func identityOf(s *suspendStorm, vm string) said {
	before, err := s.try("session", "logs", vm, "dice") // with what the source has drawn before the fork
	_, serr := s.try("session", "send", vm, "dice", "draw")
	drawn := ""
	drew := poll(patience, func() bool {
		all, _ := s.try("session", "logs", vm, "dice")
		drawn, _ = strings.CutPrefix(all, before)
		return strings.HasSuffix(drawn, "\n")
	})
	if err = errors.Join(err, serr); !drew {
		err = errors.Join(err, errors.New("its program draws nothing"))
	}
	own, ierr := s.try("exec", vm, "sh", "-c", forkIdentity)
	outside, oerr := s.try("inspect", "--format", "{{.ssh_host_key}}\n{{.address}}", vm)
	round, _, _ := strings.Cut(vm, "-") // an address is free again when its VM is removed
	return said{vm, own + drawn + strings.TrimSpace(outside) + " of " + round, errors.Join(err, ierr, oerr)}
}

// snapshotSums returns the checksums of the files of all snapshots, and of the layers that there are, by path.
func snapshotSums(t *testing.T, w *world) map[string]string {
	t.Helper()
	sums := map[string]string{}
	for _, pattern := range []string{"snapshots/*/*", "layers/*/*"} {
		files, err := filepath.Glob(filepath.Join(w.state, pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("there are no %s, %v", pattern, err)
		}
		for _, path := range files {
			sums[path] = sumOf(t, path)
		}
	}
	return sums
}

func sumOf(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sum.Sum(nil))
}
