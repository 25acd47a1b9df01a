package command

import "github.com/spf13/pflag"

// WithSecrets adds the flag that allows that the memory of a VM with secrets goes to the disk, or to a fork.
func WithSecrets(fs *pflag.FlagSet, with *bool) {
	fs.BoolVar(with, "with-secrets", false,
		"also if the VM has secrets: they are then on this host's disk, and forks have them too")
}
