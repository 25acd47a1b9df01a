// Package secret has the rules about the keys of VMs, and keeps their values in files of the host's runtime directory:
// no row, no record, no argument and no log has one. It must not know how a value comes into a guest.
package secret

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"banger"
)

// MaxValue and MaxAll are the maximum sizes of one value and of all values of a VM, in bytes. All of them travel in one
// request.
const (
	MaxValue = 64 << 10
	MaxAll   = 256 << 10
)

// Check returns an *Error of CodeInvalid unless values can be the secrets of one VM, by name.
func Check(values map[string][]byte) error {
	names, all := slices.Sorted(maps.Keys(values)), 0
	if err := banger.CheckSecrets(names...); err != nil {
		return err
	}
	for _, name := range names {
		n := len(values[name])
		if n > MaxValue {
			return banger.Errorf(banger.CodeInvalid, "the secret %s has %d bytes, but at most %s are allowed", name, n,
				banger.FormatSize(MaxValue)).WithHint("copy a large file into the VM: banger cp")
		}
		all += n
	}
	if all > MaxAll {
		return banger.Errorf(banger.CodeInvalid, "the secrets of a VM take %d bytes, but at most %s are allowed together",
			all, banger.FormatSize(MaxAll)).WithHint("copy large files into the VM: banger cp")
	}
	return nil
}

// CheckNew returns an *Error of CodeInvalid unless a new VM can have values as its secrets, and those in wanted as
// variables of its main command.
func CheckNew(values map[string][]byte, wanted []string) error {
	for _, name := range wanted {
		if _, ok := values[name]; !ok {
			return banger.Errorf(banger.CodeInvalid, "secret_env has %.80q, but there is no secret of that name", name)
		}
	}
	return cmp.Or(Check(values), CheckVariables(values, wanted))
}

// CheckVariables returns an *Error of CodeInvalid if one of the values cannot be that of a variable.
func CheckVariables(values map[string][]byte, names []string) error {
	for _, name := range names {
		if slices.Contains(values[name], 0) {
			return banger.Errorf(banger.CodeInvalid, "the secret %s has a NUL byte, so it cannot be a variable", name).
				WithHint("give it as a file alone: --secret %s=...", name)
		}
	}
	return nil
}

// Wanted returns an error unless a VM has all secrets that a command wants as variables.
func Wanted(vm banger.VM, names []string) error {
	for _, name := range names {
		if !slices.Contains(vm.Secrets, name) {
			return banger.Errorf(banger.CodeConflict, "VM %s has no secret %s", vm.Name, name).
				WithHint("give it: banger secret set %s %s", vm.Name, name)
		}
	}
	return nil
}

// Guard returns an error if a VM has secrets, and an operation would write its memory to the disk. operation completes
// the sentence "cannot ... VM". allowed says that the user has allowed it.
func Guard(vm banger.VM, operation string, allowed bool) error {
	if allowed || len(vm.Secrets) == 0 {
		return nil
	}
	return refused(vm, "allow it by --with-secrets",
		"cannot %s VM %s: its memory would be written to the disk, with its secrets %s", operation, vm.Name)
}

// GuardDisk is Guard for a look at the disk of a VM whose VMM can only write down all of the VM. Nobody allows it.
func GuardDisk(vm banger.VM) error {
	if len(vm.Secrets) == 0 {
		return nil
	}
	return refused(vm, "stop it first: banger stop "+vm.Name,
		"cannot %s VM %s: its memory would be written to the disk, with its secrets %s", "read the disk of", vm.Name)
}

// refused returns an error that ends with the names of a VM's secrets. way is a way to do it all the same.
func refused(vm banger.VM, way, format string, words ...any) error {
	return banger.Errorf(banger.CodeConflict, format, append(words, strings.Join(vm.Secrets, ", "))...).
		WithHint("%s, or remove them first: banger secret rm %s %s", way, vm.Name, strings.Join(vm.Secrets, " "))
}

// GuardFork returns an error if forks of a VM, or of what a snapshot has of it, would have secrets. allowed says that
// the user has allowed it.
func GuardFork(source banger.VM, allowed bool) error {
	if allowed || len(source.Secrets) == 0 {
		return nil
	}
	return refused(source, "allow it by --with-secrets", "cannot fork VM %s: the fork would also have its secrets %s",
		source.Name)
}

// Join returns the names of both lists, sorted.
func Join(a, b []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(slices.Concat(a, b))))
}
