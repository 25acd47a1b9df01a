package banger

import "strings"

// Limits on an SSH request.
const (
	MaxSSHKeys    = 64
	MaxSSHKey     = 16 << 10  // bytes of one key's line
	MaxSSHKeySize = 512 << 10 // bytes of all keys, below the frame limit
)

// SSH asks for a connection to a VM's SSH server. It is the body of POST /v1/vms/{vm}/ssh. After it, the connection
// carries the SSH protocol.
type SSH struct {
	// Keys may log in on this connection. Each is a line as in authorized_keys, without options.
	Keys         []string `json:"keys"`
	ForwardAgent bool     `json:"forward_agent,omitempty"` // the VM may use the client's keys
	Env          []string `json:"env,omitempty"`           // KEY=VALUE that every command gets; the supervisor fills it in
}

// Check returns an *Error of CodeInvalid when r is out of bounds. It does not parse the keys; the code that uses them
// does.
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
		return Errorf(CodeInvalid, "keys and environment take %s, but at most %s is allowed", FormatSize(int64(total)),
			FormatSize(MaxSSHKeySize))
	}
	return checkEnv(r.Env)
}
