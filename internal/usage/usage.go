// Package usage has the nouns of the history of what VMs use of their host: the lines of the API's stream, and the
// lists of numbers in them. It must not know who measures, keeps or shows them.
package usage

import (
	"encoding/json"
	"math"
	"strconv"
	"time"
)

// Metrics is one line of the stream of what VMs use of their host. The whole state is several lines: the first has
// state, one for each VM with a history has vm, and the last has a cursor. After it there is one line for each round of
// samples. In it now has one value for each of vms, and other VMs have a gap.
//
// In the line of a VM, the last value of hour is that of the state's step, and each earlier one is a step earlier. day
// has the mean of each 30 steps, which are those with the same step / 30. Its last value is that before the 30 with the
// state's step. Later ones come as day_now, when 30 steps are over. All is kept in memory only, so it begins anew with
// each daemon.
type Metrics struct {
	Cursor string    `json:"cursor,omitempty"` // a client that was cut off goes on behind it
	Step   int64     `json:"step,omitempty"`   // the number of the round's 10 seconds; steps that are left out are gaps
	At     time.Time `json:"at,omitzero"`      // the time of the round
	State  bool      `json:"state,omitempty"`  // the whole state begins; what the client knew before is void

	VM   string `json:"vm,omitempty"` // the id of a VM whose history this line has
	Hour *Use   `json:"hour,omitempty"`
	Day  *Use   `json:"day,omitempty"`

	VMs     []string `json:"vms,omitempty"` // the ids of the VMs that the round has seen
	Now     *Use     `json:"now,omitempty"`
	DayVMs  []string `json:"day_vms,omitempty"` // the ids of the VMs in day_now
	DayNow  *Use     `json:"day_now,omitempty"`
	Removed []string `json:"removed,omitempty"` // the ids of VMs that are gone
}

// Use is what VMs use of their host: one value for each time, or for each VM.
type Use struct {
	CPU         Series `json:"cpu"`       // share of the VM's CPUs, with what the VMM itself needs
	Memory      Series `json:"memory"`    // bytes of host memory that the VMM holds
	NetIn       Series `json:"net_in"`    // bytes per second to the guest
	NetOut      Series `json:"net_out"`   // bytes per second from the guest
	DiskRead    Series `json:"disk_read"` // bytes per second
	DiskWritten Series `json:"disk_written"`
}

// Series is a list of numbers, of which those that are unknown are NaN in memory and null in JSON.
type Series []float32

// MarshalJSON writes shares to a thousandth, and larger numbers as whole ones.
func (s Series) MarshalJSON() ([]byte, error) {
	out := append(make([]byte, 0, 2+8*len(s)), '[')
	for i, v := range s {
		if i > 0 {
			out = append(out, ',')
		}
		switch x := float64(v); {
		case math.IsNaN(x) || math.IsInf(x, 0):
			out = append(out, "null"...)
		case math.Abs(x) < 1000:
			out = strconv.AppendFloat(out, math.Round(x*1000)/1000, 'f', -1, 64)
		default:
			out = strconv.AppendFloat(out, x, 'f', 0, 64)
		}
	}
	return append(out, ']'), nil
}

// UnmarshalJSON reads what MarshalJSON writes.
func (s *Series) UnmarshalJSON(data []byte) error {
	var list []*float32
	if err := json.Unmarshal(data, &list); err != nil {
		return err
	}
	*s = make(Series, len(list))
	for i, v := range list {
		if v == nil {
			(*s)[i] = float32(math.NaN())
		} else {
			(*s)[i] = *v
		}
	}
	return nil
}
