package report

import (
	"errors"
	"strings"
	"testing"

	"banger"
	"banger/internal/api/wire"
	"banger/internal/host"
)

// TestChecks checks the result of each check, and a part of what it says.
func TestChecks(t *testing.T) {
	v := func(change func(*wire.Version)) wire.Version {
		v := wire.Version{Version: banger.Version, PID: 7, SQLite: "3", DNS: "127.0.0.1:53", Limits: "/sys/fs/cgroup/b"}
		change(&v)
		return v
	}
	fine := v(func(*wire.Version) {})
	found, lost := func() bool { return true }, func() bool { return false }
	for name, c := range map[string]struct {
		got    wire.Check
		result string
		words  string
	}{
		"KVM":         {checkKVM(host.KVM{Usable: true}), wire.Pass, "executes guests in hardware"},
		"no KVM":      {checkKVM(host.KVM{Reason: "there is no /dev/kvm"}), wire.Warn, "there is no /dev/kvm"},
		"room":        {checkDisk("/d", littleRoom, nil), wire.Pass, "2 GiB free in /d"},
		"little room": {checkDisk("/d", littleRoom-1, nil), wire.Warn, "free in /d"},
		"no disk":     {checkDisk("/d", 0, errors.New("it broke")), wire.Fail, "it broke"},
		"the daemon":  {Daemon(t.Context(), fine)[0], wire.Pass, "pid 7, SQLite 3"},
		"its problems": {Daemon(t.Context(), v(func(v *wire.Version) { v.Problems = []string{"a row is lost"} }))[1], wire.Warn,
			"a row is lost"},
		"names":           {checkNames(fine, found), wire.Pass, "this host finds NAME.vm"},
		"names elsewhere": {checkNames(fine, lost), wire.Warn, "where this host does not ask"},
		"another port": {checkNames(v(func(v *wire.Version) { v.DNSProblem = "port 53 is taken" }), found), wire.Warn,
			"port 53 is taken"},
		"no names": {checkNames(v(func(v *wire.Version) { v.DNS, v.DNSProblem = "", "none is free" }), found), wire.Warn,
			"none is free"},
		"limits": {checkLimits(fine), wire.Pass, "/sys/fs/cgroup/b"},
		"no limits": {checkLimits(v(func(v *wire.Version) { v.Limits, v.LimitsProblem = "", "no systemd" })), wire.Warn,
			"no systemd"},
		"some limits": {checkLimits(v(func(v *wire.Version) { v.LimitsProblem = "no memory" })), wire.Warn,
			"in /sys/fs/cgroup/b, but no memory"},
		"a kernel":       {Kernels([]banger.Kernel{{Name: "linux"}}, nil), wire.Pass, "linux"},
		"no kernel":      {Kernels(nil, nil), wire.Warn, "the first run fetches one"},
		"broken kernels": {Kernels(nil, errors.New("it broke")), wire.Fail, "it broke"},
	} {
		if c.got.Result != c.result || !strings.Contains(c.got.Detail, c.words) {
			t.Errorf("%s: %+v", name, c.got)
		}
	}
}

// TestWhatIsSaidOfVMMs checks which VMMs have a line.
func TestWhatIsSaidOfVMMs(t *testing.T) {
	checks := checkVMMs([]wire.VMM{
		{Name: "firecracker", Path: "/f", Version: "1.9", Confined: "jailed"},
		{Name: "firecracker", Path: "/f", Warning: "it has a fault", Confined: "jailed"},
		{Name: "firecracker", Problem: "it needs KVM"},
		{Name: "qemu", Path: "/q", Problem: "it is too old"},
		{Name: "qemu", Path: "/q"},
		{Name: "qemu", Problem: "it is not installed"},
	})
	var got []string
	for _, c := range checks {
		got = append(got, c.Result+" "+c.Detail)
	}
	const want = "PASS /f, version 1.9, jailed|WARN /f: it has a fault; jailed|" +
		"WARN not used: it needs KVM|FAIL it is too old"
	if strings.Join(got, "|") != want {
		t.Errorf("they are %q", got)
	}
}

// TestToolsThatAreMissing checks that each missing tool is a warning with its package.
func TestToolsThatAreMissing(t *testing.T) {
	checks := checkTools(func(name string) (string, error) {
		if name == "dpkg-deb" {
			return "", errors.New("absent")
		}
		return "/usr/bin/" + name, nil
	})
	for _, c := range checks {
		missing := c.Name == "dpkg-deb"
		if (c.Result == wire.Warn) != missing || (c.Fix == "apt-get install dpkg") != missing {
			t.Errorf("it is %+v", c)
		}
	}
}
