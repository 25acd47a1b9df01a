package qemu

import (
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/vmm"
)

// TestTheCPU: a guest is offered virtualisation only on request, whatever its model is.
func TestTheCPU(t *testing.T) {
	for _, c := range []struct {
		accel  vmm.Accel
		model  string
		nested bool
		want   string
	}{
		{vmm.AccelTCG, "", false, "EPYC-v1,-svm"},
		{vmm.AccelTCG, "", true, "EPYC-v1,+svm"},
		{vmm.AccelKVM, "", false, "host,-vmx,-svm"},
		{vmm.AccelKVM, "", true, "host"},
		{vmm.AccelTCG, "qemu64,-cx16", false, "qemu64,-cx16,-svm"},
		{vmm.AccelTCG, "max", true, "max,+svm"},
		{vmm.AccelKVM, "Skylake-Client-v4", false, "Skylake-Client-v4,-vmx,-svm"},
		{vmm.AccelKVM, "Skylake-Client-v4,+vmx", true, "Skylake-Client-v4,+vmx"},
	} {
		config := vmm.Config{Accel: c.accel, CPUModel: c.model, Nested: c.nested}
		if got := cpu(config); got != c.want {
			t.Errorf("%s, model %q, nested %v: the CPU is %s, not %s", c.accel, c.model, c.nested, got, c.want)
		}
	}
}

// TestWhichCPUsThereAre asks the installed QEMU.
func TestWhichCPUsThereAre(t *testing.T) {
	path, err := Driver{}.Path()
	if err != nil {
		t.Fatal(err)
	}
	for model, want := range map[string]string{
		"EPYC-v1":              "",
		"qemu64":               "",
		"max,-avx2,+sse4.2":    "",
		"Nonesuch":             `no CPU model "Nonesuch"`,
		"Available":            `no CPU model "Available"`,
		"EPYC,-nonesuch":       `no CPU feature "nonesuch"`,
		"host":                 "needs KVM",
		"EPYC-v1,-avx2,+EPYC2": `no CPU feature "EPYC2"`,
	} {
		err := CheckCPU(t.Context(), path, model, vmm.AccelTCG)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: the error is %v, not one with %q", model, err, want)
		}
	}
	if err := CheckCPU(t.Context(), path, "host,-avx2", vmm.AccelKVM); err != nil {
		t.Errorf("with KVM there is no CPU model host: %v", err)
	}
	if err := CheckCPU(t.Context(), filepath.Join(t.TempDir(), "qemu"), "EPYC", vmm.AccelTCG); err == nil {
		t.Error("a QEMU that is absent has CPUs")
	}
}

// TestListsOfCPUs: versions of QEMU print the lists differently.
func TestListsOfCPUs(t *testing.T) {
	const old = "Available CPUs:\nx86 EPYC-v1    AMD EPYC\nx86 base       model\n\nRecognized CPUID flags:\n  avx2 sse4.1\n  svm\n"
	for _, text := range []string{old, strings.ReplaceAll(old, "x86 ", "  ")} {
		models, features := parseCPUs(text)
		if len(models) != 2 || !models["EPYC-v1"] || !models["base"] || len(features) != 3 || !features["sse4.1"] {
			t.Errorf("%q holds %v and %v", text, models, features)
		}
	}
}

// TestANestedVMHasNoSnapshots: no snapshot is taken, and none is restored.
func TestANestedVMHasNoSnapshots(t *testing.T) {
	c := plain(vmm.AccelTCG)
	c.Nested, c.Restore = true, t.TempDir()
	if _, err := (Driver{}).checkSnapshot(c, version{major: 7, minor: 2}); err != vmm.ErrNestedSnapshot {
		t.Errorf("a restore says %v", err)
	}
	p := &process{config: c}
	if err := p.Snapshot(t.Context(), c.Restore); err == nil || !strings.Contains(err.Error(), "--nested") {
		t.Errorf("a snapshot says %v", err)
	}
}

// TestThreads shows when each emulated CPU has a thread of the host.
func TestThreads(t *testing.T) {
	old, mended := version{major: 8, minor: 0}, version{major: 8, minor: 1}
	for _, c := range []struct {
		accel vmm.Accel
		cpus  int
		v     version
		want  string
	}{
		{vmm.AccelTCG, 2, old, "tcg,thread=single"},
		{vmm.AccelTCG, 1, old, "tcg"},
		{vmm.AccelTCG, 2, mended, "tcg"},
		{vmm.AccelKVM, 2, old, "kvm"},
	} {
		if got := accel(vmm.Config{Accel: c.accel, CPUs: c.cpus}, c.v); got != c.want {
			t.Errorf("%s with %d CPUs in QEMU %s: %s, not %s", c.accel, c.cpus, c.v.machine(), got, c.want)
		}
	}
}
