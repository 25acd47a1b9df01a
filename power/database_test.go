//go:build power

package power

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"banger"
)

// database is the work of creating, changing and removing VMs.
type database struct{}

func (database) name() string { return "database" }

func (database) prepare(t *testing.T, dir string, seed uint64) world { return newWorld(t, dir, seed) }

func (database) begin(t *testing.T, b *daemon, w world) { w.install(t, b) }

// places is the largest number of VMs of a client.
const places = 5

// describe returns the part of a VM that the steps change, as text.
func describe(vm banger.VM) string {
	var ports []int
	for _, f := range vm.Spec.Forwards {
		ports = append(ports, int(f.GuestPort))
	}
	rule := ""
	for _, r := range vm.Spec.Policy.Rules {
		rule += r.Action + " " + r.To
	}
	return fmt.Sprintf("%s [%s] %v", vm.Spec.Policy.Default, rule, ports)
}

// vmOf is the inverse of describe, as far as the steps need it.
func vmOf(text string) (policy string, ports []int) {
	policy, list, _ := strings.Cut(text, "] [")
	for p := range strings.FieldsSeq(strings.TrimSuffix(list, "]")) {
		var n int
		fmt.Sscan(p, &n)
		ports = append(ports, n)
	}
	return policy + "]", ports
}

func (database) next(dice *rand.Rand, w world, client int, m model) step {
	name := func() string { return fmt.Sprintf("c%d-%c", client, 'a'+rune(dice.IntN(places))) }
	if client == 0 && dice.IntN(10) == 0 {
		return sshStep(m)
	}
	one := name()
	have, ok := m[one]
	if !ok {
		return createStep(w, one)
	}
	policy, ports := vmOf(have)
	forward := banger.Forward{Protocol: "tcp", HostIP: "127.0.0.1", GuestPort: uint16(1000 + dice.IntN(5))}
	switch verb := dice.IntN(8); {
	case verb == 0:
		return step{"rm " + one, func(ctx context.Context, b *daemon) error { return b.api.Remove(ctx, one, false) },
			func(m model) { delete(m, one) }}
	case verb < 3:
		if other := name(); m[other] == "" {
			return step{"rename " + one + " " + other,
				func(ctx context.Context, b *daemon) error { return only(b.api.Rename(ctx, one, other)) },
				func(m model) { m[other] = m[one]; delete(m, one) }}
		}
	case verb < 6:
		i := slices.Index(ports, int(forward.GuestPort))
		if i >= 0 {
			return step{fmt.Sprintf("port rm %s %d", one, forward.GuestPort),
				func(ctx context.Context, b *daemon) error { return b.api.RemoveForward(ctx, one, forward) },
				func(m model) { m[one] = fmt.Sprintf("%s %v", policy, slices.Delete(slices.Clone(ports), i, i+1)) }}
		}
		return step{fmt.Sprintf("port add %s %d", one, forward.GuestPort),
			func(ctx context.Context, b *daemon) error { return only(b.api.AddForward(ctx, one, forward)) },
			func(m model) {
				m[one] = fmt.Sprintf("%s %v", policy, append(slices.Clone(ports), int(forward.GuestPort)))
			}}
	}
	to := fmt.Sprintf("10.0.0.%d", dice.IntN(256))
	p := banger.Policy{Default: []string{banger.Allow, banger.Deny}[dice.IntN(2)]}
	p.Rules = []banger.Rule{{Action: banger.Deny, To: to}}
	return step{"policy " + one + " " + to,
		func(ctx context.Context, b *daemon) error { return only(b.api.SetPolicy(ctx, one, p)) },
		func(m model) { m[one] = fmt.Sprintf("%s [%s %s] %v", p.Default, banger.Deny, to, ports) }}
}

// includes is the model's name for the user's configuration of OpenSSH.
const includes = "ssh c0-config"

// sshStep includes banger's configuration in the user's own, or removes it.
func sshStep(m model) step {
	if m[includes] == "" {
		return step{"ssh-config install",
			func(ctx context.Context, b *daemon) error { return b.banger(ctx, "ssh-config", "install") },
			func(m model) { m[includes] = "installed" }}
	}
	return step{"ssh-config uninstall",
		func(ctx context.Context, b *daemon) error { return b.banger(ctx, "ssh-config", "uninstall") },
		func(m model) { delete(m, includes) }}
}

func createStep(w world, name string) step {
	spec := banger.Spec{Name: name, Image: w.Image, Kernel: baseKernel, Pull: banger.PullNever, VMM: banger.VMMQEMU,
		Memory: banger.MinMemory, Disk: banger.MinDisk}
	return step{"create " + name, func(ctx context.Context, b *daemon) error {
		_, err := b.api.Create(ctx, spec, nil, false, banger.Discard)
		return err
	}, func(m model) { m[name] = banger.Allow + " [] []" }}
}

// lies checks the records of VMs that no step was about to change.
func (database) lies(state string, _ world, before, after []model) (err error) {
	records, gerr := filepath.Glob(filepath.Join(state, "vms", "*.json"))
	err = errors.Join(err, gerr)
	have := model{}
	for _, path := range records {
		data, rerr := os.ReadFile(path)
		var r struct{ VM banger.VM }
		if rerr == nil {
			rerr = json.Unmarshal(data, &r)
		}
		if rerr != nil || r.VM.Spec.Policy == nil {
			err = errors.Join(err, fmt.Errorf("the record %s cannot be read: %w", path, rerr))
			continue
		}
		have[r.VM.Name] = describe(r.VM)
	}
	for client := range clients {
		for name, want := range before[client] {
			if name != includes && after[client][name] == want && have[name] != want {
				err = errors.Join(err, fmt.Errorf("the record of %s says %q, not %q", name, have[name], want))
			}
		}
	}
	return err
}

func (database) look(ctx context.Context, b *daemon) (model, error) {
	list, err := b.api.List(ctx, true, nil)
	found := model{}
	for _, vm := range list {
		found[vm.Name] = describe(vm)
		if vm.State != banger.StateCreated {
			found[vm.Name] += ", " + string(vm.State)
		}
	}
	config, rerr := os.ReadFile(filepath.Join(b.home(), ".ssh", "config"))
	if strings.Contains(string(config), "Include ") {
		found[includes] = "installed"
	} else if rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	return found, err
}

// use checks the files of each VM, and that there are no other files.
func (database) use(ctx context.Context, b *daemon, _ world) error {
	list, err := b.api.List(ctx, true, nil)
	expected := map[string]bool{}
	for _, vm := range list {
		dir := filepath.Join(b.state, "vms", vm.ID)
		expected[vm.ID], expected[vm.ID+".json"] = true, true
		if kerr := wantKey(filepath.Join(dir, "ssh_host_ed25519_key"), vm.SSHHostKey); kerr != nil {
			err = errors.Join(err, fmt.Errorf("the SSH host key of %s: %w", vm.Name, kerr))
		}
		if _, ferr := tool("e2fsck", "-fn", filepath.Join(dir, "disk.ext4")); ferr != nil {
			err = errors.Join(err, fmt.Errorf("the disk of %s: %w", vm.Name, ferr))
		}
	}
	// The CLI removes its own files.
	err = errors.Join(err, b.banger(ctx, "ssh-config", "uninstall"), b.banger(ctx, "ssh-config", "install"))
	for _, dir := range []string{filepath.Join(b.state, "ssh"), filepath.Join(b.home(), ".ssh")} {
		if left, gerr := filepath.Glob(filepath.Join(dir, ".banger-*")); gerr != nil || len(left) > 0 {
			err = errors.Join(err, fmt.Errorf("%q are left", left), gerr)
		}
	}
	entries, rerr := os.ReadDir(filepath.Join(b.state, "vms"))
	err = errors.Join(err, rerr)
	for _, e := range entries {
		if !expected[e.Name()] {
			err = errors.Join(err, fmt.Errorf("vms/%s is of no VM", e.Name()))
		}
	}
	return err
}

// wantKey returns an error unless the private key in a file matches this public key.
func wantKey(path, public string) error {
	private, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	signer, err := ssh.ParsePrivateKey(private)
	if err == nil && strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))) != public {
		err = errors.New("it is another key")
	}
	return err
}
