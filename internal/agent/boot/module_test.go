package boot

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestWhichKVM: the CPU's flags name the module, and a CPU without virtualisation is an error.
func TestWhichKVM(t *testing.T) {
	for flags, want := range map[string]string{
		"flags\t\t: fpu svm lm":            "kvm_amd",
		"processor: 0\nflags : fpu vmx lm": "kvm_intel",
		"flags : fpu svm_lock lm":          "",
		"vmx flags : ept":                  "",
		"":                                 "",
	} {
		if got, err := kvmModule(flags); got != want || (err == nil) != (want != "") {
			t.Errorf("for %q it is %q, %v, not %q", flags, got, err, want)
		}
	}
}

// TestModulesAreLoadedInOrder: what a module needs comes before it, whatever its file's name ends with.
func TestModulesAreLoadedInOrder(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("modules.dep", "kernel/kvm-amd.ko.xz: kernel/kvm.ko.xz kernel/irqbypass.ko.xz\nkernel/tun.ko:\n"+
		"kernel/kvm.ko.xz: kernel/irqbypass.ko.xz\n")
	write("modules.builtin", "kernel/fs/ext4/ext4.ko\n")
	for name, want := range map[string]string{
		"kvm_amd": "kernel/irqbypass.ko.xz kernel/kvm.ko.xz kernel/kvm-amd.ko.xz",
		"tun":     "kernel/tun.ko",
		"ext4":    "",
	} {
		if got, err := moduleFiles(dir, name); err != nil || !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("for %s the files are %q, %v", name, got, err)
		}
	}
	if _, err := moduleFiles(dir, "kvm_intel"); err == nil || !strings.Contains(err.Error(), "no module kvm_intel") {
		t.Errorf("for an absent module the error is %v", err)
	}
	if _, err := moduleFiles(t.TempDir(), "tun"); err == nil {
		t.Error("a kernel without a list of modules has one")
	}
}
