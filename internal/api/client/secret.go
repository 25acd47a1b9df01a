package client

import (
	"bytes"
	"context"

	"banger"
)

// Secrets returns the secrets of a VM, without their values.
func (c secretClient) Secrets(ctx context.Context, vm string) (list []banger.VMSecret, err error) {
	return list, c.call(ctx, "GET", vmPath(vm, "secrets"), nil, nil, &list)
}

// SetSecret gives a VM a secret, in place of an earlier one of that name.
func (c secretClient) SetSecret(ctx context.Context, vm, name string, value []byte) error {
	return c.call(ctx, "PUT", vmPath(vm, "secrets/"+name), nil, bytes.NewReader(value), nil)
}

// RemoveSecret takes a secret from a VM.
func (c secretClient) RemoveSecret(ctx context.Context, vm, name string) error {
	return c.call(ctx, "DELETE", vmPath(vm, "secrets/"+name), nil, nil, nil)
}
