package vmmtest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/testing/vmmtest"
	"banger/internal/vmm"
)

var agent string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "vmmtest")
	if err != nil {
		panic(err)
	}
	agent = filepath.Join(dir, "banger-agent")
	if out, err := exec.Command("go", "build", "-o", agent, "banger/cmd/banger-agent").CombinedOutput(); err != nil {
		panic(string(out))
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func config(t *testing.T) vmm.Config {
	t.Helper()
	dir := vmmtest.Dir(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	c := vmm.Config{ID: banger.NewID(), Dir: at("run"), Kernel: at("kernel"), Initrd: at("initrd"),
		Drives: []vmm.Drive{{Serial: "disk", Path: at("disk")}}}
	if err := os.Mkdir(c.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{c.Kernel, c.Initrd, c.Drives[0].Path} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func TestMemoryConforms(t *testing.T) { vmmtest.Run(t, vmmtest.Memory{Agent: agent}, config) }

// TestFaults: each fault looks to the packages above like the real one.
func TestFaults(t *testing.T) {
	faulty := func(f vmmtest.Fault) vmmtest.Memory {
		return vmmtest.Memory{Agent: agent, Fault: func(vmm.Config) vmmtest.Fault { return f }}
	}
	t.Run("fail to start", func(t *testing.T) {
		if _, err := faulty(vmmtest.FailToStart).Start(t.Context(), config(t), vmmtest.NewConsole()); err == nil {
			t.Error("it starts all the same")
		}
	})
	for fault, want := range map[vmmtest.Fault]vmm.Exit{
		vmmtest.PanicAtBoot: {Panic: true, Reason: "the guest kernel panicked"},
		vmmtest.DieAtOnce:   {Signal: 9, Reason: "the VMM was killed by signal 9"},
	} {
		t.Run(string(fault), func(t *testing.T) {
			console := vmmtest.NewConsole()
			p, err := faulty(fault).Start(t.Context(), config(t), console)
			if err != nil {
				t.Fatal(err)
			}
			if got := (&vmmtest.VM{Process: p}).AwaitEnd(t); got != want {
				t.Errorf("it ends with %+v, not %+v", got, want)
			}
			if strings.Contains(console.String(), vmmtest.PanicText) != want.Panic {
				t.Errorf("the console says %q", console)
			}
		})
	}
	t.Run("never answer", func(t *testing.T) {
		p, err := faulty(vmmtest.NeverAnswer).Start(t.Context(), config(t), vmmtest.NewConsole())
		if err != nil {
			t.Fatal(err)
		}
		conn, err := p.(vmm.Channeler).OpenChannel(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if n, err := conn.Read(make([]byte, 1)); !os.IsTimeout(err) {
			t.Errorf("the channel gives %d bytes, %v", n, err)
		}
		if !p.Handle().Alive() {
			t.Error("it does not run")
		}
		p.Kill()
		(&vmmtest.VM{Process: p}).AwaitEnd(t)
	})
}
