package session

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"time"

	"banger"
	"banger/internal/agent/probe"
	"banger/internal/agent/screen"
	"banger/internal/agent/transcript"
)

// The files of a session in its directory. The output is in a directory of its own.
const (
	specFile  = "spec.json"
	stateFile = "state"
	outputDir = "output"
)

// The state is written over and over, also when the disk has no room left. So its file has its size from the start,
// with two places that are written in turn: a power cut leaves one of them whole. A place has the CRC-32C of the rest,
// a number that grows, the length of the JSON, and the JSON.
const (
	placeSize = 4 << 10
	placeHead = 16
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// maxReason bounds the text in a state, which must fit into its place.
const maxReason = 1 << 10

// stored is the state of a session. Its command is in the file of the specification.
type stored struct {
	banger.Session
	Resume bool `json:"resume"`
}

// store is the directory of one session.
type store struct {
	dir   string
	state *os.File
	turn  uint32
}

// create makes the directory of a session that is new. What an interrupted creation has left there goes. m.mu is held.
func (m *Manager) create(spec banger.SessionSpec) (s *session, err error) {
	dir := filepath.Join(m.dir, spec.Name)
	if err := errors.Join(os.MkdirAll(m.dir, 0o700), os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	s = m.newSession(dir)
	s.info = banger.Session{State: banger.SessionRunning, Created: time.Now().UTC()}
	s.describeBy(spec)
	s.resume = spec.Restart.Name == banger.RestartAlways
	if s.store.state, err = os.OpenFile(filepath.Join(dir, stateFile), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	if _, err := s.store.state.Write(make([]byte, 2*placeSize)); err != nil {
		return nil, err
	}
	if err := s.store.save(stored{Session: s.info, Resume: s.resume}); err != nil {
		return nil, err
	}
	if s.log, err = transcript.Open(filepath.Join(dir, outputDir), m.quota); err != nil {
		return nil, err
	}
	if spec.Command.TTY {
		s.screen = screen.New(spec.Command.Rows, spec.Command.Cols)
	}
	return s, s.store.writeSpec(spec)
}

// load reads a session of an earlier boot. What ran has ended with that. m.mu is held.
func (m *Manager) load(name string) (*session, error) {
	s := m.newSession(filepath.Join(m.dir, name))
	data, err := os.ReadFile(filepath.Join(s.store.dir, specFile))
	if err != nil {
		return nil, err
	}
	var spec banger.SessionSpec
	if err := json.Unmarshal(data, &spec); err != nil {
		return nil, err
	}
	if err := spec.Check(); err != nil {
		return nil, err
	}
	if s.store.state, err = os.OpenFile(filepath.Join(s.store.dir, stateFile), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	was := s.store.read()
	s.info, s.resume = was.Session, was.Resume
	spec.Name = name
	s.describeBy(spec)
	if s.log, err = transcript.Open(filepath.Join(s.store.dir, outputDir), m.quota); err != nil {
		return nil, err
	}
	if s.info.State != banger.SessionEnded {
		s.info.PID, s.info.Exit, s.info.Reason = 0, nil, "the VM ended before it did, so how it ended is not known"
	}
	s.info.State = banger.SessionEnded
	if !s.resume {
		close(s.over)
		return s, s.log.Close()
	}
	if spec.Command.TTY {
		s.screen = screen.New(spec.Command.Rows, spec.Command.Cols)
	}
	return s, nil
}

// adopted reports whether a loaded session is to start again, and prepares it for that.
func (s *session) adopted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isOver() || s.running != nil || s.quitting {
		return false
	}
	s.info.State = banger.SessionWaiting
	s.save()
	return true
}

func (m *Manager) newSession(dir string) *session {
	return &session{m: m, store: &store{dir: dir}, quit: make(chan struct{}), over: make(chan struct{})}
}

// describeBy makes s the session of a specification.
func (s *session) describeBy(spec banger.SessionSpec) {
	s.info.SessionSpec = spec
	if spec.Ready != nil {
		s.watch = probe.New(*spec.Ready, s.tryCommand, s.changed)
	}
}

// writeSpec stores the specification, which makes the session one that a later boot knows.
func (st *store) writeSpec(spec banger.SessionSpec) error {
	data, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	name := filepath.Join(st.dir, specFile)
	f, err := os.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return errors.Join(os.Rename(name+".new", name), syncDir(st.dir), syncDir(filepath.Dir(st.dir)))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// save writes the state.
func (st *store) save(s stored) error {
	s.SessionSpec = banger.SessionSpec{}
	if len(s.Reason) > maxReason {
		s.Reason = s.Reason[:maxReason]
	}
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if placeHead+len(data) > placeSize {
		return fmt.Errorf("the state has %d bytes", len(data))
	}
	st.turn++
	place := make([]byte, placeSize)
	binary.BigEndian.PutUint32(place[4:], st.turn)
	binary.BigEndian.PutUint32(place[8:], uint32(len(data)))
	copy(place[placeHead:], data)
	binary.BigEndian.PutUint32(place, crc32.Checksum(place[4:], castagnoli))
	if _, err := st.state.WriteAt(place, int64(st.turn%2)*placeSize); err != nil {
		return err
	}
	return st.state.Sync()
}

// read returns the latest state that is whole, or that of a session of which nothing is known.
func (st *store) read() (latest stored) {
	for i := range int64(2) {
		place := make([]byte, placeSize)
		if _, err := st.state.ReadAt(place, i*placeSize); err != nil {
			continue
		}
		turn, n := binary.BigEndian.Uint32(place[4:]), binary.BigEndian.Uint32(place[8:])
		if crc32.Checksum(place[4:], castagnoli) != binary.BigEndian.Uint32(place) || n > placeSize-placeHead {
			continue
		}
		var s stored
		if json.Unmarshal(place[placeHead:][:n], &s) == nil && turn >= st.turn {
			latest, st.turn = s, turn
		}
	}
	return latest
}

// remove removes the directory, the specification last, so that an interrupted removal can be repeated.
func (st *store) remove() error {
	st.state.Close()
	spec := filepath.Join(st.dir, specFile)
	if err := errors.Join(os.RemoveAll(filepath.Join(st.dir, stateFile)), os.RemoveAll(spec)); err != nil {
		return err
	}
	return os.RemoveAll(st.dir)
}
