//go:build linux && amd64

package host

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestADeviceThatIsNone of KVM's causes an error that names its fault.
func TestADeviceThatIsNone(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "there is no /dev/kvm",
		"/dev/null":                "speaks API version",
		dir:                        "opening /dev/kvm",
	} {
		if err := probeDevice(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, not an error with %q", path, err, want)
		}
	}
}

// TestABusyHostIsNotAnEmulator: the fastest try counts, and an error is returned at once.
func TestABusyHostIsNotAnEmulator(t *testing.T) {
	for name, c := range map[string]struct {
		took  []time.Duration // of each try
		err   error
		tries int
		want  string
	}{
		"hardware":       {[]time.Duration{time.Millisecond}, nil, 1, ""},
		"hardware, busy": {[]time.Duration{time.Second, 30 * time.Millisecond, time.Millisecond}, nil, 3, ""},
		"an emulator": {[]time.Duration{time.Second, 140 * time.Millisecond, 150 * time.Millisecond, time.Second,
			time.Second}, nil, 5, "took 140 ms"},
		"a device that cannot": {[]time.Duration{0}, errors.New("it cannot"), 1, "it cannot"},
	} {
		tries := 0
		err := fastest(func() (time.Duration, error) {
			tries++
			return c.took[tries-1], c.err
		})
		if tries != c.tries || (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: after %d tries the error is %v, not one with %q after %d", name, tries, err, c.want, c.tries)
		}
	}
}

// TestADeviceThatMayNotBeOpened checks that the error names the group which may open it.
func TestADeviceThatMayNotBeOpened(t *testing.T) {
	const variable = "BANGER_TEST_KVM"
	if path := os.Getenv(variable); path != "" || os.Getuid() != 0 {
		if path == "" {
			path = filepath.Join(t.TempDir(), "kvm")
			if err := os.WriteFile(path, nil, 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := probeDevice(path); err == nil ||
			!strings.Contains(err.Error(), "may not be opened by this user; join the group kvm") {
			t.Errorf("the error is %v", err)
		}
		return
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	cmd := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all",
		"/proc/self/fd/3", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.ExtraFiles, cmd.Dir = []*os.File{self}, "/"
	cmd.Env = append(os.Environ(), variable+"=/etc/shadow")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("as an ordinary user: %v\n%s", err, out)
	}
}
