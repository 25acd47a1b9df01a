package firecracker

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/vmm"
)

var update = flag.Bool("update", false, "write the golden files anew")

// plain returns a VM as the supervisor requests it.
func plain() vmm.Config {
	return vmm.Config{ID: "0123456789ab", Dir: "/run/banger/vms/0123456789ab",
		Accel:     vmm.AccelKVM,
		Kernel:    "/k/vmlinux",
		Initrd:    "/k/initrd.cpio",
		CPUs:      2,
		MemoryMiB: 512,
		Cmdline:   "banger.init=image",
		NICs:      []vmm.NIC{{MAC: "52:54:00:00:00:01", Device: "tap0", MTU: 65520}},
		Drives: []vmm.Drive{{
			Serial:   "rootfs",
			Path:     "/images/rootfs.ext4",
			ReadOnly: true,
		}, {Serial: "disk", Path: "/disks/disk.ext4"},
			{Serial: "modules", Path: "/k/modules.ext4", ReadOnly: true}}}
}

// TestRequestsOfABoot shows exactly what we ask of Firecracker.
func TestRequestsOfABoot(t *testing.T) {
	template := json.RawMessage(`{"cpuid_modifiers":[]}`)
	for name, c := range map[string]struct {
		v version
		o options
	}{
		"boot-1.12.txt":    {version{1, 12, 1}, options{spares: 2}},
		"boot-1.13.txt":    {version{1, 13, 0}, options{spares: 2}},
		"boot-1.15.txt":    {version{1, 15, 0}, options{spares: 2}},
		"boot-1.16.txt":    {version{1, 16, 1}, options{spares: 2}},
		"boot-options.txt": {version{1, 16, 1}, options{cpuTemplate: template, hugePages: hugePages2M, pci: true, spares: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			got := "firecracker " + strings.Join(arguments(plain(), c.o), " ") + "\n"
			for _, r := range bootRequests(plain(), c.v, c.o) {
				got += asText(t, r)
			}
			golden(t, name, got)
		})
	}
}

// TestRequestsOfARestore shows what we ask of Firecracker for a VM that continues from a snapshot.
func TestRequestsOfARestore(t *testing.T) {
	c := plain()
	c.Restore = "/snapshots/1"
	from, err := openSaves(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]struct {
		v version
		o options
	}{
		"restore-1.12.txt": {version{1, 12, 1}, options{clock: true}},
		"restore-1.15.txt": {version{1, 15, 0}, options{clock: true}},
		"restore-1.16.txt": {version{1, 16, 1}, options{clock: true}},
	} {
		t.Run(name, func(t *testing.T) {
			got := asText(t, request{"PUT", "/snapshot/create", (&process{}).snapshotParams(c.Restore)}) + "firecracker " +
				strings.Join(arguments(c, r.o), " ") + "\n"
			for _, r := range restoreRequests(c, from, r.v, r.o) {
				got += asText(t, r)
			}
			golden(t, name, got)
		})
	}
}

func asText(t *testing.T, r request) string {
	t.Helper()
	body, err := json.Marshal(r.body)
	if err != nil {
		t.Fatal(err)
	}
	return r.method + " " + r.path + " " + string(body) + "\n"
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf(
			"Firecracker is asked\n%s\nnot what is in %s; if that is meant, run: go test ./internal/vmm/firecracker -run %s -update", got, path, t.Name())
	}
}

// TestOptions: what the driver knows, and what it refuses before any effect.
func TestOptions(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, c := range map[string]struct {
		options map[string]string
		memory  int
		v       version
		err     string
	}{
		"none":                  {},
		"a template":            {options: map[string]string{"cpu_template": file("good", `{"msr_modifiers":[]}`)}},
		"no template":           {options: map[string]string{"cpu_template": dir + "/none"}, err: "no such file"},
		"a template of no JSON": {options: map[string]string{"cpu_template": file("bad", "{")}, err: "not JSON"},
		"a template too large": {
			options: map[string]string{"cpu_template": file("big", strings.Repeat(" ", maxBody+1))},
			err:     "at most 51200 bytes",
		},
		"a device as template":   {options: map[string]string{"cpu_template": "/dev/zero"}, err: "not a file"},
		"huge pages":             {options: map[string]string{"huge_pages": "2M"}, memory: 512},
		"huge pages, odd memory": {options: map[string]string{"huge_pages": "2M"}, memory: 511, err: "multiple of 2 MiB"},
		"huge pages of 1G": {
			options: map[string]string{"huge_pages": "1G"},
			memory:  1024,
			err:     `no option "huge_pages" with the value "1G"`,
		},
		"PCI":                    {options: map[string]string{"pci": "on"}, v: version{1, 16, 1}},
		"PCI with the hole":      {options: map[string]string{"pci": "on"}, v: version{1, 15, 0}, err: "CVE-2026-5747"},
		"PCI with the older one": {options: map[string]string{"pci": "on"}, v: version{1, 14, 3}, err: "CVE-2026-5747"},
		"PCI with the mended":    {options: map[string]string{"pci": "on"}, v: version{1, 14, 4}},
		"what is unknown":        {options: map[string]string{"turbo": "on"}, err: `no option "turbo"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readOptions(vmm.Config{Options: c.options, MemoryMiB: c.memory}, c.v)
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("the error is %v, not one with %q", err, c.err)
			}
		})
	}
}

func TestVersions(t *testing.T) {
	for text, want := range map[string]string{
		"Firecracker v1.16.1\n\nSupported snapshot data format versions: v11.0.0": "1.16.1",
		"Firecracker v1.15.0":       "1.15.0",
		"1.17.0-dev":                "1.17.0",
		"Firecracker":               "",
		"v1.2":                      "",
		"99999999999999999999.1.1":  "",
		strings.Repeat("1", 10<<20): "",
	} {
		v, err := parseVersion(text)
		if (err == nil) != (want != "") || err == nil && v.String() != want {
			t.Errorf("%.40q is version %s, %v", text, v, err)
		}
		if err != nil && Warning(text) != err.Error() {
			t.Errorf("of %.40q the warning is %q", text, Warning(text))
		}
	}
}

// TestWarnings: the warning of each version says all that is known, and nothing else.
func TestWarnings(t *testing.T) {
	const (
		stranger = "was never run with banger"
		memory   = "gives the host no memory back that a guest has freed"
		prints   = "does not limit how much a guest prints"
		cut      = "cuts the first connection to a restored VM, which banger makes again"
		vsock    = "loses its vsock when its API pauses and resumes a VM, so banger stops its process instead"
	)
	for version, want := range map[string]string{
		"1.12.0": stranger + ", " + memory + ", " + prints + " and " + cut,
		"1.12.1": memory + ", " + prints + " and " + cut,
		"1.13.2": stranger + ", " + memory + ", " + prints + " and " + cut,
		"1.14.0": stranger + ", " + prints + " and " + cut,
		"1.15.0": stranger + ", " + prints + " and " + cut,
		"1.15.1": prints + " and " + cut,
		"1.16.0": stranger + " and " + vsock,
		"1.16.1": vsock,
		"1.16.2": stranger,
		"1.17.0": "",
		"1.17.1": stranger,
		"2.0.0":  stranger,
	} {
		if want != "" {
			want = "version " + version + " " + want
		}
		if got := Warning(version); got != want {
			t.Errorf("the warning is\n%s\nnot\n%s", got, want)
		}
	}
}
