package host

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestProbeKVMDoesNotTrustAnOpenDevice: the probe must agree with the CPU flags. KVM needs hardware virtualisation
// (vmx or svm) to execute guests. Where the flag is absent and /dev/kvm opens anyway, KVM emulates.
func TestProbeKVMDoesNotTrustAnOpenDevice(t *testing.T) {
	start := time.Now()
	k := ProbeKVM("")
	t.Logf("usable=%v reason=%q in %v", k.Usable, k.Reason, time.Since(start))
	if !k.Usable && k.Reason == "" {
		t.Error("no reason given for a KVM that is not usable")
	}
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		t.Fatal(err)
	}
	if k.Usable && !strings.Contains(string(info), " vmx") && !strings.Contains(string(info), " svm") {
		t.Error("KVM is called usable although the CPU has neither vmx nor svm")
	}
}

func TestProbeKVMIsCachedPerBoot(t *testing.T) {
	dir := t.TempDir()
	first := ProbeKVM(dir)
	forged := strings.Replace(`{"usable":U,"reason":"from cache","boot_id":"`+first.BootID+`","uid":`+
		strconv.Itoa(first.UID)+`}`, "U", "false", 1)
	if err := os.WriteFile(dir+"/kvm.json", []byte(forged), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := ProbeKVM(dir); got.Reason != "from cache" {
		t.Errorf("the cached verdict of this boot was not used: %+v", got)
	}
	other := strings.Replace(forged, first.BootID, "another-boot", 1)
	if err := os.WriteFile(dir+"/kvm.json", []byte(other), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := ProbeKVM(dir); got.Reason == "from cache" {
		t.Error("a verdict of another boot was used")
	}
}
