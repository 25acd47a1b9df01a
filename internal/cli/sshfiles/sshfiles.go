// Package sshfiles keeps the files that OpenSSH reads in order to reach VMs: a key of the user, known_hosts, and the
// configuration that ~/.ssh/config includes.
//
// It must not know how a connection to a VM is made, nor print anything.
package sshfiles

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"banger"
	"banger/internal/api/client"
	"banger/internal/host"
	"banger/internal/sshconf"
)

// Files says where banger keeps the files that ssh reads.
type Files struct {
	dir   string
	paths host.Paths
	self  string // this program
}

// Open returns the files below the state directory and makes the user's key if necessary.
func Open(paths host.Paths) (Files, error) {
	f := Files{dir: dirOf(paths), paths: paths}
	var err error
	if f.self, err = os.Executable(); err != nil {
		return f, err
	}
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return f, banger.Errorf(banger.CodeDenied, "no room for SSH keys: %w", err)
	}
	_, err = f.Key()
	return f, err
}

func dirOf(paths host.Paths) string { return filepath.Join(paths.Theirs(), "ssh") }

func (f Files) path(name string) string { return filepath.Join(f.dir, name) }

// Key returns the public part of the user's key for VMs and makes the key if necessary.
func (f Files) Key() (public string, err error) {
	_, public, err = sshconf.MakeKey(f.path("id_ed25519"), "banger")
	return public, err
}

// Config returns the configuration for reaching a VM. The proxy offers keys, files of private keys, to the VM besides
// the user's key, and lets the VM use the user's agent if forwardAgent is true.
func (f Files) Config(forwardAgent bool, keys []string) (sshconf.Config, error) {
	proxy := []string{
		"env", "BANGER_STATE_DIR=" + f.paths.State, "BANGER_RUN_DIR=" + f.paths.Run,
		f.self, "--context", cmp.Or(f.paths.Context, host.Local), "ssh-proxy",
	}
	if forwardAgent {
		proxy = append(proxy, "-A")
	}
	for _, k := range keys {
		k, err := filepath.Abs(k)
		if err != nil {
			return sshconf.Config{}, err
		}
		proxy = append(proxy, "-i", k)
	}
	return sshconf.Config{Proxy: proxy, KnownHosts: f.path("known_hosts"), Identity: f.path("id_ed25519")}, nil
}

// HostOf returns what ssh must know of a VM.
func HostOf(vm banger.VM) sshconf.Host {
	return sshconf.Host{Name: vm.Name, ID: vm.ID, Key: vm.SSHHostKey}
}

// Hosts returns the VMs that have a host key, by name.
func Hosts(ctx context.Context, client *client.Client) ([]sshconf.Host, error) {
	list, err := client.List(ctx, true, nil)
	if err != nil {
		return nil, err
	}
	var hosts []sshconf.Host
	for _, vm := range list {
		if vm.SSHHostKey != "" {
			hosts = append(hosts, HostOf(vm))
		}
	}
	slices.SortFunc(hosts, func(a, b sshconf.Host) int { return strings.Compare(a.Name, b.Name) })
	return hosts, nil
}

// Write writes known_hosts and, with config, the configuration from the present VMs. It reads the VMs while it holds
// the lock, so the last writer has the newest list.
func (f Files) Write(ctx context.Context, client *client.Client, config bool) error {
	lock, err := os.OpenFile(f.path("lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close() // also releases the lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	hosts, err := Hosts(ctx, client)
	if err != nil {
		return err
	}
	known, err := sshconf.KnownHosts(hosts)
	if err != nil {
		return banger.Errorf(banger.CodeInternal, "%w", err)
	}
	if config {
		text, err := f.Text(hosts)
		if err != nil {
			return err
		}
		if err := sshconf.WriteFile(f.path("config"), text); err != nil {
			return err
		}
	}
	return sshconf.WriteFile(f.path("known_hosts"), known)
}

// Text returns the configuration for hosts.
func (f Files) Text(hosts []sshconf.Host) ([]byte, error) {
	config, err := f.Config(false, nil)
	if err != nil {
		return nil, err
	}
	text, err := config.Text(hosts)
	if err != nil {
		return nil, banger.Errorf(banger.CodeInvalid, "%w", err).WithHint("set BANGER_STATE_DIR to a plainer path")
	}
	return text, nil
}

// install returns the place where the user's configuration includes ours.
func (f Files) install() (sshconf.Install, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return sshconf.Install{}, banger.Errorf(banger.CodeInvalid, "there is no home directory: %w", err).
			WithHint("set HOME")
	}
	return sshconf.Install{
		User:   filepath.Join(home, ".ssh", "config"),
		Ours:   f.path("config"),
		Record: f.path("installed"),
	}, nil
}

// Install makes ~/.ssh/config include banger's configuration, and returns the names of both files.
func (f Files) Install(ctx context.Context, client *client.Client) (user, ours string, err error) {
	install, err := f.install()
	if err != nil {
		return "", "", err
	}
	if err := f.Write(ctx, client, true); err != nil {
		return "", "", err
	}
	if err := install.Add(); err != nil {
		return "", "", banger.Errorf(banger.CodeDenied, "nothing was installed: %w", err).
			WithHint("or use: banger ssh-config print > FILE; ssh -F FILE NAME.vm")
	}
	return install.User, install.Ours, nil
}

// Installed returns the names of the user's configuration and of ours, if Install has made the first include the other.
func Installed(paths host.Paths) (user, ours string, ok bool) {
	install, err := Files{dir: dirOf(paths)}.install()
	return install.User, install.Ours, err == nil && install.Installed()
}

// Uninstall undoes Install. It makes no files.
func Uninstall(paths host.Paths) error { return Files{dir: dirOf(paths)}.Uninstall() }

// Empty takes all VMs out of an installed configuration.
func Empty(paths host.Paths) error {
	if _, _, ok := Installed(paths); !ok {
		return nil
	}
	f, err := Open(paths)
	if err != nil {
		return err
	}
	text, err := f.Text(nil)
	if err != nil {
		return err
	}
	return errors.Join(sshconf.WriteFile(f.path("config"), text), sshconf.WriteFile(f.path("known_hosts"), nil))
}

// Uninstall undoes Install.
func (f Files) Uninstall() error {
	install, err := f.install()
	if err != nil {
		return err
	}
	if err := install.Remove(); err != nil {
		return banger.Errorf(banger.CodeDenied, "it is still installed: %w", err)
	}
	if err := os.Remove(install.Ours); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Refresh updates an installed configuration after a VM was created, removed or renamed. It does nothing if no
// configuration is installed.
func Refresh(ctx context.Context, paths host.Paths, client *client.Client) error {
	if _, err := os.Lstat(filepath.Join(dirOf(paths), "installed")); err != nil {
		return nil
	}
	f, err := Open(paths)
	if err != nil {
		return err
	}
	return f.Write(context.WithoutCancel(ctx), client, true)
}
