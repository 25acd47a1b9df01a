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

// Services are the programs that must learn of something new, by the names of their processes, and the signals at which
// they do. systemd starts its journal again; an SSH server reads its keys again.
var Services = map[string]unix.Signal{"systemd-journal": unix.SIGTERM, "sshd": unix.SIGHUP}

// Booted is what is known of a boot.
type Booted struct{ machine string } // machine-id(5); "": there was none

// Note returns what Renew needs to know of a boot of the image at root, before the machine id is the VM's own.
func Note(root string) Booted {
	path := filepath.Join(root, "etc/machine-id")
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return Booted{}
	}
	id, err := os.ReadFile(path)
	if err != nil {
		return Booted{}
	}
	machine := strings.TrimSpace(string(id)) // it becomes a part of a path
	if raw, err := hex.DecodeString(machine); err != nil || len(raw) != 16 {
		return Booted{}
	}
	return Booted{machine}
}

// Renew changes the files of the image's root. upper is the directory of what differs from the image. No other process
// may run, and the kernel's randomness and the machine id must be the VM's own.
func (b Booted) Renew(root, upper string) error {
	return errors.Join(renewSeed(root), b.forgetJournal(root, upper), renewHostKeys(root, upper))
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

// forgetJournal removes what a boot has written to the journal under the old machine id. The journal of the image
// stays.
func (b Booted) forgetJournal(root, upper string) error {
	if b.machine == "" {
		return nil
	}
	const kept = "var/log/journal"
	paths := []string{filepath.Join(root, "run/log/journal", b.machine)}
	if _, err := os.Lstat(filepath.Join(upper, kept, b.machine)); err == nil {
		paths = append(paths, filepath.Join(root, kept, b.machine))
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

// Signal sends a signal to the processes with a name that PID 1 has started itself.
func Signal(name string, signal unix.Signal) error {
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return err
	}
	for _, path := range paths {
		stat, err := os.ReadFile(path)
		if err != nil || !isService(stat, name) { // it may have ended
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			continue
		}
		if err := unix.Kill(pid, signal); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("telling %s: %w", name, err)
		}
	}
	return nil
}

// isService reports whether proc_pid_stat(5) is that of a process with a name whose parent is PID 1.
func isService(stat []byte, name string) bool {
	_, rest, _ := bytes.Cut(stat, []byte(" ("))
	end := bytes.LastIndex(rest, []byte(") "))
	if end < 0 || string(rest[:end]) != name {
		return false
	}
	fields := bytes.Fields(rest[end+1:])
	return len(fields) > 1 && string(fields[1]) == "1"
}
