// Package session keeps commands that outlive their clients: it starts them, again if their policy says so, stores what
// they write and how they end, and lets any number of clients attach to them. All of it is in a directory, so that a
// later boot of the guest still has it.
//
// The package must not know where that directory is, nor how clients reach the agent.
package session

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"banger"
	"banger/internal/agent/command"
	"banger/internal/agent/console"
	"banger/internal/agent/transcript"
	"banger/internal/feed"
)

// These limits bound what sessions take. The bytes are of the disk, without file system overhead.
const (
	maxSessions  = 256 // those that have ended included
	maxDisk      = 64 << 20
	DefaultTotal = 256 << 20 // for the output of all sessions together
	keptChanges  = 1024      // for clients of Events that come back
)

// Starter starts a command.
type Starter func(*banger.Exec, command.Options) (*command.Process, error)

// Manager has the sessions of one guest.
type Manager struct {
	start  Starter
	quota  *transcript.Quota
	events func() *feed.Feed[string] // names of sessions that have changed or are gone

	mu       sync.Mutex
	dir      string // "" before Open
	sessions map[string]*session
	closing  bool
}

// New returns a manager without sessions.
func New(start Starter) *Manager {
	return &Manager{start: start, quota: transcript.NewQuota(DefaultTotal, maxDisk), sessions: map[string]*session{},
		events: sync.OnceValue(func() *feed.Feed[string] { return feed.New[string](keptChanges) })}
}

// Open makes dir the directory of the sessions, and reads those that are there. The commands of an earlier boot have
// ended; again says that some are to start again by Adopt. total is the room for the output of all sessions in bytes; 0
// means DefaultTotal.
func (m *Manager) Open(dir string, total int64) (again bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if total > 0 {
		m.quota.Set(total)
	}
	m.dir = dir
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if len(m.sessions) == maxSessions {
			break
		}
		if banger.CheckSession(e.Name()) != nil || !e.IsDir() {
			continue
		}
		s, err := m.load(e.Name())
		if err != nil {
			console.Warn(fmt.Errorf("the session %s of an earlier boot: %w", e.Name(), err))
			continue
		}
		m.sessions[e.Name()] = s
		again = again || !s.isOver()
	}
	return again, nil
}

// Adopt starts the sessions of an earlier boot again whose policy is always. It is called when commands may start.
func (m *Manager) Adopt() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.sessions {
		if s.adopted() {
			go s.run(nil)
		}
	}
}

// Start starts a session. Nothing is left of one that could not start.
func (m *Manager) Start(spec banger.SessionSpec) (banger.Session, error) {
	if err := spec.Check(); err != nil {
		return banger.Session{}, err
	}
	s, err := m.add(&spec)
	if err != nil {
		return banger.Session{}, err
	}
	p, err := s.startCommand()
	if err != nil {
		s.finish() // somebody may wait for its end
		s.remove()
		m.forget(s)
		return banger.Session{}, err
	}
	s.began(p)
	go s.run(p)
	return s.describe(), nil
}

// add makes a session that does not run yet. It sets the name of spec if that is empty.
func (m *Manager) add(spec *banger.SessionSpec) (*session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closing:
		return nil, banger.Errorf(banger.CodeConflict, "the VM is shutting down")
	case m.dir == "":
		return nil, banger.Errorf(banger.CodeConflict, "the VM is still starting")
	case len(m.sessions) >= maxSessions:
		return nil, banger.Errorf(banger.CodeConflict, "the VM has %d sessions, and can have no more", maxSessions).
			WithHint("remove those that have ended: banger session rm VM SESSION")
	case spec.Name == "":
		spec.Name = m.freeName(spec.Command.Args[0])
	case m.sessions[spec.Name] != nil:
		return nil, banger.Errorf(banger.CodeConflict, "the VM has a session %s already", spec.Name).
			WithHint("use another name, or remove it: banger session rm VM %s", spec.Name)
	}
	s, err := m.create(*spec)
	if err != nil {
		return nil, banger.Errorf(banger.CodeGuest, "the session %s cannot be stored: %w", spec.Name, banger.Cause(err))
	}
	m.sessions[spec.Name] = s
	return s, nil
}

var notInName = regexp.MustCompile(`[^a-z0-9]+`)

// freeName makes a name of a command. m.mu is held.
func (m *Manager) freeName(program string) string {
	base := strings.Trim(notInName.ReplaceAllString(strings.ToLower(filepath.Base(program)), "-"), "-")
	if len(base) > 50 {
		base = strings.Trim(base[:50], "-")
	}
	if base == "" {
		base = "session"
	}
	name := base
	for i := 2; m.sessions[name] != nil; i++ {
		name = fmt.Sprintf("%s-%d", base, i)
	}
	return name
}

// forget takes a session out of the list.
func (m *Manager) forget(s *session) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.sessions, s.info.Name)
	s.changed()
}

// find returns the session with a name.
func (m *Manager) find(name string) (*session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.sessions[name]; s != nil {
		return s, nil
	}
	return nil, banger.Errorf(banger.CodeNotFound, "the VM has no session %.80q", name).
		WithHint("see: banger session ls VM")
}

// List returns all sessions, the newest first.
func (m *Manager) List() []banger.Session {
	m.mu.Lock()
	list := make([]banger.Session, 0, len(m.sessions))
	for _, s := range m.sessions {
		list = append(list, s.describe())
	}
	m.mu.Unlock()
	slices.SortFunc(list, func(a, b banger.Session) int {
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	return list
}

// Get returns one session.
func (m *Manager) Get(name string) (banger.Session, error) {
	s, err := m.find(name)
	if err != nil {
		return banger.Session{}, err
	}
	return s.describe(), nil
}

// Signal sends a signal to a session's command and its process group.
func (m *Manager) Signal(name string, sig syscall.Signal) error {
	s, err := m.find(name)
	if err != nil {
		return err
	}
	p := s.process()
	if p == nil {
		return s.notRunning()
	}
	return p.Signal(sig)
}

// Stop ends a session for good: by SIGTERM, or SIGHUP if it has a terminal, and after grace by SIGKILL. It returns when
// the session has ended.
func (m *Manager) Stop(name string, grace time.Duration) error {
	s, err := m.find(name)
	if err != nil {
		return err
	}
	s.end(grace)
	return nil
}

// Remove removes a session that has ended or, with force, ends it at once. It kills what the command has left behind.
func (m *Manager) Remove(name string, force bool) error {
	s, err := m.find(name)
	if err != nil {
		return err
	}
	if !force && !s.isOver() {
		return banger.Errorf(banger.CodeConflict, "the session %s has not ended", name).
			WithHint("stop it first, or use --force")
	}
	s.end(0)
	if err := s.remove(); err != nil {
		return banger.Errorf(banger.CodeGuest, "the session %s cannot be removed: %w", name, banger.Cause(err))
	}
	m.forget(s)
	return nil
}

// Wait returns a channel that is closed when a session has ended for good, and a function that then says how.
func (m *Manager) Wait(name string) (<-chan struct{}, func() banger.Session, error) {
	s, err := m.find(name)
	if err != nil {
		return nil, nil, err
	}
	return s.over, s.describe, nil
}

// Ready returns when a session is ready. The error says why it is not, when ctx or the session ends before.
func (m *Manager) Ready(ctx context.Context, name string) (banger.Session, error) {
	s, err := m.find(name)
	if err != nil {
		return banger.Session{}, err
	}
	if s.watch == nil {
		return s.describe(), nil
	}
	if err := s.watch.Await(ctx, s.over); err != nil {
		return banger.Session{}, banger.Errorf(banger.CodeOf(err), "the session %s is not ready: %w", name, err)
	}
	return s.describe(), nil
}

// Close ends all sessions before the guest ends. They have grace to end by themselves; the rest is killed. Those whose
// policy is always start again at the next boot.
func (m *Manager) Close(grace time.Duration) {
	m.mu.Lock()
	m.closing = true
	all := make([]*session, 0, len(m.sessions))
	for _, s := range m.sessions {
		all = append(all, s)
	}
	m.mu.Unlock()
	var wg sync.WaitGroup
	for _, s := range all {
		wg.Go(func() { s.shutDown(grace) })
	}
	wg.Wait()
}
