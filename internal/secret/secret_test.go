package secret

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"banger"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestWhatCanBeASecret bounds the name, the size of each and of all, and their number.
func TestWhatCanBeASecret(t *testing.T) {
	big, number := make([]byte, MaxValue), map[string][]byte{}
	for n := range banger.MaxSecrets {
		number["S"+strconv.Itoa(n)] = nil
	}
	long := string(bytes.Repeat([]byte("a"), 64))
	for name, c := range map[string]struct {
		values map[string][]byte
		ok     bool
	}{
		"none":                {nil, true},
		"an empty one":        {map[string][]byte{"A": nil}, true},
		"any bytes":           {map[string][]byte{"_a1": {0, 255, '\n'}}, true},
		"a long name":         {map[string][]byte{long: nil}, true},
		"a longer name":       {map[string][]byte{long + "a": nil}, false},
		"a digit first":       {map[string][]byte{"1": nil}, false},
		"a path":              {map[string][]byte{"../A": nil}, false},
		"no name":             {map[string][]byte{"": nil}, false},
		"the largest":         {map[string][]byte{"A": big}, true},
		"a larger one":        {map[string][]byte{"A": append(big, 0)}, false},
		"all that fit":        {map[string][]byte{"A": big, "B": big, "C": big, "D": big}, true},
		"one byte more":       {map[string][]byte{"A": big, "B": big, "C": big, "D": big, "E": {0}}, false},
		"as many as may be":   {number, true},
		"one more than those": {with(number, "MORE"), false},
	} {
		if err := Check(c.values); (err == nil) != c.ok || err != nil && banger.CodeOf(err) != banger.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func with(values map[string][]byte, name string) map[string][]byte {
	more := map[string][]byte{name: nil}
	for n, v := range values {
		more[n] = v
	}
	return more
}

// TestFilesOfOneUserAlone: whatever the umask is, nobody else can read a value, also while it is replaced. What was cut
// off goes with a removal.
func TestFilesOfOneUserAlone(t *testing.T) {
	for _, umask := range []int{0, 0o777} {
		t.Run(strconv.Itoa(umask), func(t *testing.T) {
			dir := t.TempDir()
			defer syscall.Umask(syscall.Umask(umask))
			f := Files{filepath.Join(dir, "secrets", "vm")}
			check(t, f.WriteAll(map[string][]byte{"A": []byte("one"), "B": []byte("two")}))
			check(t, f.Write("A", []byte("three")))
			for path, mode := range map[string]os.FileMode{f.Dir: 0o700, filepath.Dir(f.Dir): 0o700,
				filepath.Join(f.Dir, "A"): 0o600} {
				if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
					t.Errorf("%s: %v, %v", path, info, err)
				}
			}
			got, err := f.Read([]string{"A", "B", "C"})
			if err != nil || len(got) != 2 || string(got["A"]) != "three" || f.Given("A").IsZero() || !f.Given("C").IsZero() {
				t.Errorf("there are %q, %v", got, err)
			}
			other := Files{filepath.Join(dir, "secrets", "fork")}
			check(t, f.CopyTo(other, []string{"A", "C"}))
			if got, err := other.Read([]string{"A", "B"}); err != nil || len(got) != 1 || string(got["A"]) != "three" {
				t.Errorf("copied are %q, %v", got, err)
			}
			check(t, os.WriteFile(filepath.Join(f.Dir, "A.tmp"), []byte("half"), 0o600))
			check(t, f.Remove("A"))
			check(t, f.Remove("A"))
			entries, err := os.ReadDir(f.Dir)
			if err != nil || len(entries) != 1 || entries[0].Name() != "B" {
				t.Errorf("left are %v, %v", entries, err)
			}
			check(t, Files{filepath.Join(dir, "none")}.Remove("A"))
		})
	}
}

// TestMemoryIsGuarded, and so are forks, unless the user allows what they do.
func TestMemoryIsGuarded(t *testing.T) {
	without, having := banger.VM{Name: "box"}, banger.VM{Name: "box", Secrets: []string{"A", "B"}}
	for name, c := range map[string]struct {
		err error
		ok  bool
	}{
		"memory without secrets": {Guard(without, "suspend", false), true},
		"memory with secrets":    {Guard(having, "suspend", false), false},
		"allowed memory":         {Guard(having, "suspend", true), true},
		"a disk without":         {GuardDisk(without), true},
		"a disk with secrets":    {GuardDisk(having), false},
		"a fork without":         {GuardFork(without, false), true},
		"a fork with secrets":    {GuardFork(having, false), false},
		"an allowed fork":        {GuardFork(having, true), true},
		"what the VM has":        {Wanted(having, []string{"B"}), true},
		"what it has not":        {Wanted(having, []string{"B", "C"}), false},
	} {
		if (c.err == nil) != c.ok || c.err != nil && banger.CodeOf(c.err) != banger.CodeConflict {
			t.Errorf("%s: %v", name, c.err)
		}
	}
}
