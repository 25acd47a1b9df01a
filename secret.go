package banger

import (
	"regexp"
	"time"
)

// MaxSecrets is the maximum number of secrets of a VM.
const MaxSecrets = 64

// SecretsDir is the directory of a guest with a file for each of its secrets. No disk has what is in it.
const SecretsDir = "/run/secrets"

// VMSecret is a key that a VM has, without its value.
type VMSecret struct {
	Name string `json:"name"`
	// Given is when the VM got the value. It is zero if the host has the value no longer: its runtime directory was
	// cleared.
	Given time.Time `json:"given,omitzero"`
}

var secretRE = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

// CheckSecrets returns an *Error of CodeInvalid unless names can be the names of the secrets of one VM.
func CheckSecrets(names ...string) error {
	if len(names) > MaxSecrets {
		return Errorf(CodeInvalid, "%d secrets are given, but a VM has at most %d", len(names), MaxSecrets)
	}
	for _, name := range names {
		if !secretRE.MatchString(name) {
			return Errorf(CodeInvalid, "%.80q is not a valid name of a secret", name).
				WithHint("use 1 to 64 letters, digits and underscores, and no digit first")
		}
	}
	return nil
}
