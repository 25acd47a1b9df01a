// Package renew makes new what the boot of an image's init has made and no two VMs may share: the machine id, the boot
// id, systemd's random seed, its key for credentials, its journal, and the SSH host keys that the boot has made. Units
// that keep an identity elsewhere, in a file or in memory, keep it.
//
// The package must not know when the guest is configured, nor what a VM is.
package renew

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// services are the programs that must learn of something new, by the names of their processes, and the signals at which
// they do. An SSH server reads its keys again. systemd starts its journal again, which must do nothing before that: at
// SIGTERM it writes on, under the machine id that it remembers.
var services = map[string]unix.Signal{"systemd-journal": unix.SIGKILL, "sshd": unix.SIGHUP}

// Files changes the files of the image's root that a boot has made; upper is the directory of what differs from the
// image. No other process may run, the kernel's randomness must be the VM's own, and the machine id still that boot's.
func Files(root, upper string) error {
	return errors.Join(renewSeed(root), forgetJournal(root, upper, machineID(root)), renewHostKeys(root, upper))
}

// machineID returns the machine-id(5) at root, or "" if there is none. It becomes a part of a path.
func machineID(root string) string {
	path := filepath.Join(root, "etc/machine-id")
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return ""
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	id := strings.TrimSpace(string(text))
	if raw, err := hex.DecodeString(id); err != nil || len(raw) != 16 {
		return ""
	}
	return id
}

// BootID shows programs another boot id than the one that the kernel has drawn.
func BootID() error {
	const shown, ours = "/proc/sys/kernel/random/boot_id", "/run/banger-boot-id"
	id := make([]byte, 16)
	rand.Read(id)
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80 // RFC 9562, version 4
	text := fmt.Sprintf("%x-%x-%x-%x-%x\n", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	err := create(ours, []byte(text), 0o444)
	if err == nil {
		err = unix.Mount(ours, shown, "", unix.MS_BIND, "")
	}
	if err == nil {
		err = unix.Mount("", shown, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
	}
	if err != nil {
		return fmt.Errorf("renewing the boot id: %w", err)
	}
	return nil
}

// seedSize is the size of systemd's random seed in bytes (systemd-random-seed.service(8)).
const seedSize = 512

// renewSeed renews systemd's random seed, and removes its key for credentials, which systemd makes when it needs one
// (systemd-creds(1)).
func renewSeed(root string) error {
	dir := filepath.Join(root, "var/lib/systemd")
	seed := make([]byte, seedSize)
	rand.Read(seed)
	path := filepath.Join(dir, "random-seed")
	_, err := os.Lstat(path)
	if err == nil {
		err = create(path, seed, 0o600)
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = os.RemoveAll(filepath.Join(dir, "credential.secret"))
	}
	if err != nil {
		return fmt.Errorf("renewing the random seed: %w", err)
	}
	return nil
}

// forgetJournal removes what a boot has written to the journal under a machine id. The journal of the image
// stays.
func forgetJournal(root, upper, machine string) error {
	if machine == "" {
		return nil
	}
	const kept = "var/log/journal"
	paths := []string{filepath.Join(root, "run/log/journal", machine)}
	if _, err := os.Lstat(filepath.Join(upper, kept, machine)); err == nil {
		paths = append(paths, filepath.Join(root, kept, machine))
	}
	for _, path := range paths {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("removing the journal: %w", err)
		}
	}
	return nil
}

// create makes a file anew, with a mode that no umask changes.
func create(path string, content []byte, mode os.FileMode) error {
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Chmod(mode); err != nil {
		return err
	}
	_, err = f.Write(content)
	return err
}

// Tell signals the services that must learn of something new. To look at all processes is slow after a restore, so it
// looks once.
func Tell() error {
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return err
	}
	for _, path := range paths {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		name, ok := serviceIn(stat)
		signal, known := services[name]
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if !ok || !known || err != nil {
			continue
		}
		if err := unix.Kill(pid, signal); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("telling %s: %w", name, err)
		}
	}
	return nil
}

// serviceIn returns the name of the process of which proc_pid_stat(5) is, if its parent is PID 1.
func serviceIn(stat []byte) (name string, ok bool) {
	_, rest, _ := bytes.Cut(stat, []byte(" ("))
	end := bytes.LastIndex(rest, []byte(") "))
	if end < 0 {
		return "", false
	}
	fields := bytes.Fields(rest[end+1:])
	return string(rest[:end]), len(fields) > 1 && string(fields[1]) == "1"
}
