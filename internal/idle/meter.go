// Package idle finds running VMs that nobody uses: no byte moves for a client, and the VMM needs almost no CPU.
//
// It must not know how a VM is asked or stopped, nor what becomes of an idle one.
package idle

import "time"

// Sample is what one look at a running VM shows.
type Sample struct {
	At      time.Time
	Process string        // the VMM; another one has counters of its own
	Moved   uint64        // grows whenever a byte moves for a client
	CPU     time.Duration // that the VMM has used
}

// Shares of one CPU that an idle VMM stays below. An emulated guest needs more to do nothing.
const (
	idleShare     = 0.02
	emulatedShare = 0.05
)

// share returns the share of one CPU that an idle VMM stays below.
func share(emulated bool) float64 {
	if emulated {
		return emulatedShare
	}
	return idleShare
}

// meter measures for how long a VM has been idle.
type meter struct {
	last  Sample
	since time.Time
	share float64
}

// add takes the next sample and returns for how long the VM has been idle.
func (m *meter) add(s Sample) time.Duration {
	if !m.still(s, s.At.Sub(m.last.At)) {
		m.since = s.At
	}
	m.last = s
	return s.At.Sub(m.since)
}

// still reports whether a VM was idle since the last sample. The VMM may have used its share of a time.
func (m *meter) still(s Sample, of time.Duration) bool {
	used := s.CPU - m.last.CPU
	return s.Process == m.last.Process && s.Moved == m.last.Moved && float64(used) < m.share*float64(of)
}
