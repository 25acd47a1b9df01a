// Package local answers what the web UI asks about the user's own files on this host, which the daemon never reads: the
// configuration, repositories, and workspaces. Its answers are those that the commands of the same names give.
//
// The package must not know who may ask: its caller lets nobody else in. It must not know what the page shows.
package local

import (
	"context"
	"net/http"

	"banger/internal/api/client"
	"banger/internal/api/wire"
	"banger/internal/config"
	"banger/internal/host"
)

// Local answers for one user of this host. The caller calls Close.
type Local struct {
	Paths  host.Paths
	Client *client.Client // of this user's daemon
	// Hold takes the lock under which this user's processes write files of the state directory.
	Hold func(ctx context.Context) (release func(), err error)

	captures captures
}

// Close closes what requests have left open. All requests must have been ended.
func (l *Local) Close() { l.captures.close() }

// Handler returns what answers requests below /ui/local/.
func (l *Local) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ui/local/presets", answered(l.presets))
	mux.HandleFunc("POST /ui/local/vms/{vm}/allow", answered(l.allow))
	l.workspaceRoutes(mux)
	return mux
}

// answered returns a handler that answers with JSON, or with the error.
func answered[T any](answer func(r *http.Request) (T, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := answer(r)
		if err == nil {
			err = wire.WriteJSON(w, v)
		}
		if err != nil {
			wire.WriteError(w, err)
		}
	}
}

// Presets are what the user's config.toml says about each VM, in the words of the flags of run. "" means that the file
// does not say it, so that what is built in counts.
type Presets struct {
	CPUs    string `json:"cpus"`
	Memory  string `json:"memory"`
	Disk    string `json:"disk"`
	Network string `json:"network"`
	Warm    string `json:"warm"`
	Idle    string `json:"idle"`
	Policy  string `json:"policy"` // as policy set reads it; it does not count for untrusted VMs
}

// presets reads the file each time, so that a change counts at once.
func (l *Local) presets(*http.Request) (p Presets, err error) {
	user, err := config.LoadUser(l.Paths.Config)
	if err != nil {
		return p, err
	}
	m := config.Merge(config.Base{}, user, nil)
	p = Presets{CPUs: string(m.CPUs), Memory: string(m.Memory), Disk: string(m.Disk), Network: m.Network, Warm: m.Warm,
		Idle: m.Idle}
	if m.Policy != nil {
		policy, err := m.Policy.Resolve()
		if err != nil {
			return p, err
		}
		p.Policy = policy.String()
	}
	return p, nil
}
