package guest

import (
	"context"
)

// OpSecrets changes the secrets of the guest. It answers Info when their files are as the request says.
const OpSecrets = "secrets"

// SecretsRequest is the part of a request that is about secrets.
type SecretsRequest struct {
	Set    map[string][]byte `json:"set,omitempty"` // values by name
	Remove []string          `json:"remove,omitempty"`
}

// SetSecrets changes the secrets of the guest. Commands that run keep what they have read.
func (c Client) SetSecrets(ctx context.Context, r SecretsRequest) error {
	_, err := c.brief(ctx, Request{Op: OpSecrets, Secrets: &r})
	return err
}
