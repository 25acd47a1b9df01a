package banger

import "strings"

// Limits on an SSH request.
const (
	MaxSSHKeys    = 64
	MaxSSHKey     = 16 << 10  // bytes of one key's line
	MaxSSHKeySize = 512 << 10 // bytes of all keys, below the frame limit
)

// SSH asks for a connection to a VM's SSH server: the body of POST
// /v1/vms/{vm}/ssh. What follows is the SSH protocol itself.
type SSH struct {
	Keys         []string `json:"keys"`                    // who may log in by this connection: lines as in authorized_keys, without options
	ForwardAgent bool     `json:"forward_agent,omitempty"` // the VM may use the client's keys
	Env          []string `json:"env,omitempty"`           // KEY=VALUE that every command gets; the supervisor fills it in
}

// Check returns an *Error of CodeInvalid when r is out of bounds. Whether a key is
// one is found where it is used.
func (r *SSH) Check() error {
	if len(r.Keys) == 0 || len(r.Keys) > MaxSSHKeys {
		return Errorf(CodeInvalid, "%d public keys are given, but it must be 1 to %d", len(r.Keys), MaxSSHKeys)
	}
	total := 0
	for _, k := range r.Keys {
		total += len(k)
		if len(k) > MaxSSHKey || strings.ContainsAny(k, "\x00\n\r") {
			return Errorf(CodeInvalid, "a public key is longer than %s, or not one line", FormatSize(MaxSSHKey))
		}
	}
	for _, kv := range r.Env {
		total += len(kv)
	}
	if total > MaxSSHKeySize {
		return Errorf(CodeInvalid, "keys and environment take %s, but at most %s is allowed", FormatSize(int64(total)), FormatSize(MaxSSHKeySize))
	}
	return checkEnv(r.Env)
}
