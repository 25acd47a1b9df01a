//go:build !amd64

package host

import "errors"

// probeKVM has no probe guest for this architecture yet, so KVM is not used.
func probeKVM() error {
	return errors.New("KVM is not yet probed on this architecture")
}
