package client

import (
	"context"
	"net/url"
	"strconv"
	"time"

	"banger"
	"banger/internal/api/wire"
)

func (c vmClient) streamVM(ctx context.Context, path string, query url.Values, body any,
	emit banger.Emit) (banger.VM, error) {
	e, err := c.stream(ctx, path, query, body, emit)
	if err != nil || e.VM == nil {
		return banger.VM{}, err
	}
	return *e.VM, nil
}

func vmPath(ref, verb string) string {
	p := "/v1/vms/" + ref
	if verb != "" {
		p += "/" + verb
	}
	return p
}

// Create makes a VM and, with start, boots it. secrets are the values of its secrets by name.
func (c vmClient) Create(ctx context.Context, spec banger.Spec, secrets map[string][]byte, start bool,
	emit banger.Emit) (banger.VM, error) {
	body := wire.CreateRequest{Spec: spec, Secrets: secrets}
	return c.streamVM(ctx, "/v1/vms", url.Values{"start": {strconv.FormatBool(start)}}, body, emit)
}

// Start boots a VM.
func (c vmClient) Start(ctx context.Context, ref string, attach, cold bool, emit banger.Emit) (banger.VM, error) {
	q := url.Values{"attach": {strconv.FormatBool(attach)}, "cold": {strconv.FormatBool(cold)}}
	return c.streamVM(ctx, vmPath(ref, "start"), q, nil, emit)
}

// Pause stops the CPUs of a running VM.
func (c vmClient) Pause(ctx context.Context, ref string) (vm banger.VM, err error) {
	return vm, c.call(ctx, "POST", vmPath(ref, "pause"), nil, nil, &vm)
}

// Suspend writes a VM's memory to disk and ends its processes on the host. withSecrets allows that it has secrets.
func (c vmClient) Suspend(ctx context.Context, ref string, withSecrets bool) (vm banger.VM, err error) {
	return vm, c.call(ctx, "POST", vmPath(ref, "suspend"), secretsQuery(withSecrets), nil, &vm)
}

// secretsQuery returns the query for what may write secrets to the disk.
func secretsQuery(allowed bool) url.Values {
	if !allowed {
		return nil
	}
	return url.Values{"with_secrets": {"true"}}
}

// Resume lets a paused or suspended VM go on.
func (c vmClient) Resume(ctx context.Context, ref string, emit banger.Emit) (banger.VM, error) {
	return c.streamVM(ctx, vmPath(ref, "resume"), nil, nil, emit)
}

// Restart stops and starts a VM.
func (c vmClient) Restart(ctx context.Context, ref string, grace time.Duration, emit banger.Emit) (banger.VM, error) {
	return c.streamVM(ctx, vmPath(ref, "restart"), graceQuery(grace), nil, emit)
}

// graceQuery returns the query for grace. A negative grace leaves the daemon's default in force.
func graceQuery(grace time.Duration) url.Values {
	if grace < 0 {
		return nil
	}
	return url.Values{"grace": {strconv.Itoa(int(grace / time.Second))}}
}

// Stop shuts a VM down. grace has a resolution of one second.
func (c vmClient) Stop(ctx context.Context, ref string, grace time.Duration) (vm banger.VM, err error) {
	return vm, c.call(ctx, "POST", vmPath(ref, "stop"), graceQuery(grace), nil, &vm)
}

// Kill sends a signal to a VM's main command.
func (c vmClient) Kill(ctx context.Context, ref string, signal int) (vm banger.VM, err error) {
	return vm, c.call(ctx, "POST", vmPath(ref, "kill"), url.Values{"signal": {strconv.Itoa(signal)}}, nil, &vm)
}

// Remove deletes a VM.
func (c vmClient) Remove(ctx context.Context, ref string, force bool) error {
	return c.call(ctx, "DELETE", vmPath(ref, ""), url.Values{"force": {strconv.FormatBool(force)}}, nil, nil)
}

// Update changes what a VM does by itself, and its sizes.
func (c vmClient) Update(ctx context.Context, ref string, u banger.Update) (vm banger.VM, err error) {
	return vm, c.call(ctx, "PATCH", vmPath(ref, ""), nil, u, &vm)
}

// Rename gives a VM another name.
func (c vmClient) Rename(ctx context.Context, ref, name string) (vm banger.VM, err error) {
	return vm, c.call(ctx, "POST", vmPath(ref, "rename"), nil, wire.RenameRequest{Name: name}, &vm)
}

// Wait returns when a VM is at rest or has been removed.
func (c vmClient) Wait(ctx context.Context, ref string) (vm banger.VM, err error) {
	return vm, c.call(ctx, "GET", vmPath(ref, "wait"), nil, nil, &vm)
}

// Get returns one VM, with HiddenValue in place of the values of its environment.
func (c vmClient) Get(ctx context.Context, ref string) (vm banger.VM, err error) {
	return vm, c.call(ctx, "GET", vmPath(ref, ""), nil, nil, &vm)
}

// GetWithEnv returns one VM with the values of its environment.
func (c vmClient) GetWithEnv(ctx context.Context, ref string) (vm banger.VM, err error) {
	return vm, c.call(ctx, "GET", vmPath(ref, ""), url.Values{"env": {"true"}}, nil, &vm)
}

// List returns VMs, newest first. Without all, it returns only running VMs.
func (c vmClient) List(ctx context.Context, all bool, filters []string) (list []banger.VM, err error) {
	return list, c.call(ctx, "GET", "/v1/vms", url.Values{"all": {strconv.FormatBool(all)}, "filter": filters}, nil, &list)
}

// ListWithSizes is List with DiskUsed of each VM.
func (c vmClient) ListWithSizes(ctx context.Context, all bool, filters []string) (list []banger.VM, err error) {
	q := url.Values{"all": {strconv.FormatBool(all)}, "filter": filters, "size": {"true"}}
	return list, c.call(ctx, "GET", "/v1/vms", q, nil, &list)
}

// Prune removes all VMs at rest.
func (c vmClient) Prune(ctx context.Context) (list []banger.VM, err error) {
	return list, c.call(ctx, "POST", "/v1/vms/prune", nil, nil, &list)
}
