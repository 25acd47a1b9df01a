package agent

import (
	"os"

	"banger"
	"banger/internal/agent/secret"
	"banger/internal/guest"
)

// secretsVariable names the directory that stands for the secrets of a guest in a test.
const secretsVariable = "BANGER_TEST_SECRETS"

// Secrets returns the store of a test.
func (*hostSystem) Secrets() *secret.Store { return secret.New(os.Getenv(secretsVariable), nil) }

// secretsOf returns the store of a system.
func secretsOf(sys system) *secret.Store {
	if other, ok := sys.(interface{ Secrets() *secret.Store }); ok {
		return other.Secrets()
	}
	return secret.New(banger.SecretsDir, secret.Mount)
}

// secretRequests serves the requests about secrets.
type secretRequests struct{ *server }

// change serves guest.OpSecrets.
func (s secretRequests) change(r *guest.SecretsRequest) error {
	if r == nil {
		return banger.Errorf(banger.CodeInvalid, "no secrets given")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.configured {
		return banger.Errorf(banger.CodeConflict, "the VM is still starting")
	}
	if err := s.admit(); err != nil {
		return err
	}
	if err := s.secrets.Remove(r.Remove); err != nil {
		return err
	}
	return s.secrets.Set(r.Set, s.config.User)
}
