// Package resolve decides what a VM runs, from its spec and its image, by docker's rules. It must not know where images
// come from or how a VM is run, and it has no effects.
package resolve

import (
	"fmt"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"

	"banger"
	"banger/internal/guest"
)

// Main resolves a VM's main command from the spec and the image, by docker's rules: an entrypoint in the spec
// replaces the image's entrypoint and command, and a command in the spec replaces the image's command. It returns nil
// for a machine that only waits for execs: one in the background that has no command, or whose image has only a bare
// shell, which would end at once, or boots its own init. An entrypoint "" and no command make any image such a machine.
func Main(spec banger.Spec, img banger.Image) (*banger.Exec, error) {
	entrypoint, cmd := img.Config.Entrypoint, img.Config.Cmd
	if spec.Entrypoint != nil {
		entrypoint, cmd = spec.Entrypoint, nil
		if len(entrypoint) == 1 && entrypoint[0] == "" {
			entrypoint = nil // docker: --entrypoint "" clears it
		}
	}
	chosen := spec.Entrypoint != nil || len(spec.Cmd) > 0
	if len(spec.Cmd) > 0 {
		cmd = spec.Cmd
	}
	args := append(append([]string{}, entrypoint...), cmd...)
	if !chosen && Init(spec, img) == banger.InitImage {
		args = nil // the image's own init is the main program
	}
	background := !spec.TTY && !spec.Attach
	if background && (len(args) == 0 || !chosen && bareShell(args)) {
		return nil, nil
	}
	if len(args) == 0 {
		if !spec.TTY {
			return nil, banger.Errorf(banger.CodeInvalid, "image %s names no command", spec.Image).
				WithHint("give one: banger run %s -- COMMAND", spec.Image)
		}
		args = []string{"/bin/sh"}
	}
	e := Defaults(spec, img)
	e.Args, e.TTY, e.Stdin, e.Main, e.Secrets = args, spec.TTY, spec.Stdin, true, spec.SecretEnv
	return &e, e.Check()
}

// StopSignal returns the signal that ends the main command cleanly. 0 means that the agent chooses.
func StopSignal(img banger.Image) (int, error) {
	if img.Config.StopSignal == "" {
		return 0, nil
	}
	n, err := banger.ParseSignal(img.Config.StopSignal)
	if err != nil {
		return 0, fmt.Errorf("the stop signal of image %s: %w", img.Reference, err)
	}
	return n, nil
}

// Defaults returns the defaults of every command in a VM: the image's environment, directory and user, overridden
// by those of the VM. A directory that the VM does not choose gives way to a workspace.
func Defaults(spec banger.Spec, img banger.Image) banger.Exec {
	env := img.Config.Env
	if spec.CA != "" {
		env = MergeEnv([]string{"NODE_EXTRA_CA_CERTS=" + guest.ExtraCA}, env) // Node has a certificate store of its own
	}
	e := banger.Exec{Env: MergeEnv(env, spec.Env), Dir: img.Config.WorkingDir, Workspace: true, User: img.Config.User}
	if spec.WorkingDir != "" {
		e.Dir, e.Workspace = spec.WorkingDir, false
	}
	if spec.User != "" {
		e.User = spec.User
	}
	return e
}

// Guest returns the part of a guest's configuration that follows from its spec and its image. An image that CheckImage
// accepts has a valid stop signal.
func Guest(spec banger.Spec, img banger.Image) guest.Config {
	c := guest.Config{CA: spec.CA, Nested: spec.Nested != "", Confine: spec.Confine, ReadOnly: spec.ReadOnly,
		Tmpfs: spec.Tmpfs, Volumes: img.Config.Volumes, Dirs: Dirs(spec, img), User: Defaults(spec, img).User}
	if spec.StopSignal != "" {
		img.Config.StopSignal = spec.StopSignal
	}
	c.StopSignal, _ = StopSignal(img)
	c.Ready = Probe(spec, img)
	return c
}

// Probe returns the ready probe of a VM: its own, or else the health check of its image. It is nil without one.
func Probe(spec banger.Spec, img banger.Image) *banger.Probe {
	switch {
	case spec.NoReady:
		return nil
	case spec.Ready != nil:
		return spec.Ready
	case img.Config.Health != nil && img.Config.Health.Validate() == nil:
		return img.Config.Health
	}
	return nil
}

// Grace returns how long a stop of a VM waits before it kills. It is never 0.
func Grace(spec banger.Spec) time.Duration {
	if spec.StopTimeout == nil {
		return 10 * time.Second
	}
	return max(time.Duration(*spec.StopTimeout)*time.Second, time.Millisecond)
}

// Names sets the names that the guest can look up, once its network is known. Without a network, the gateway is the
// guest itself.
func Names(c *guest.Config, spec banger.Spec) {
	gateway := "127.0.0.1"
	if c.Network != nil {
		gateway = c.Network.Gateway
		if len(spec.DNS) > 0 {
			c.Network.DNS = spec.DNS
		}
		if len(spec.DNSSearch) > 0 {
			c.Network.Search = spec.DNSSearch
		}
	}
	for _, e := range spec.Hosts {
		if e.Address == banger.HostGateway {
			e.Address = gateway
		}
		c.Hosts = append(c.Hosts, e)
	}
}

// Dirs returns the directories that docker makes in a new container: the working directory of commands and the image's
// volumes.
func Dirs(spec banger.Spec, img banger.Image) (list []string) {
	for _, dir := range append([]string{Defaults(spec, img).Dir}, img.Config.Volumes...) {
		if dir = path.Join("/", dir); dir != "/" && !slices.Contains(list, dir) {
			list = append(list, dir)
		}
	}
	return list
}

// MergeEnv returns base with the variables of over added or replaced.
func MergeEnv(base, over []string) []string {
	merged := make([]string, 0, len(base)+len(over))
	at := map[string]int{}
	for _, kv := range append(append([]string{}, base...), over...) {
		key, _, _ := strings.Cut(kv, "=")
		if i, ok := at[key]; ok {
			merged[i] = kv
			continue
		}
		at[key] = len(merged)
		merged = append(merged, kv)
	}
	return merged
}

func bareShell(args []string) bool {
	if len(args) != 1 {
		return false
	}
	switch path.Base(args[0]) {
	case "sh", "bash", "ash", "dash", "zsh", "fish", "busybox":
		return true
	}
	return false
}

// Init resolves InitAuto: systemd images boot their own init.
func Init(spec banger.Spec, img banger.Image) string {
	if spec.Init != banger.InitAuto {
		return spec.Init
	}
	if img.Systemd {
		return banger.InitImage
	}
	return banger.InitAgent
}

// CheckImage rejects an image that no guest of this host can run, whose StopSignal is not a valid signal name, or which
// has no init of its own that the spec needs.
func CheckImage(spec banger.Spec, img banger.Image) error {
	if spec.Warm == banger.WarmBooted && Init(spec, img) != banger.InitImage {
		return banger.Errorf(banger.CodeInvalid, "warm is booted, but PID 1 of image %s is not its own init", img.Reference).
			WithHint("give --warm=auto, or --init=image if the image has systemd")
	}
	if p := strings.Split(img.Platform, "/"); len(p) > 1 && p[1] != "" && p[1] != runtime.GOARCH {
		return banger.Errorf(banger.CodeInvalid, "image %s is for %s, but VMs of this host are linux/%s", img.Reference,
			img.Platform, runtime.GOARCH).
			WithHint("fetch the right one: banger image pull --platform linux/%s %s", runtime.GOARCH, img.Reference)
	}
	_, err := StopSignal(img)
	return err
}
