package server

import (
	"context"
	"errors"
	"net"
	"time"

	"banger/internal/mux"
	"banger/internal/vmm"
)

// keepMux keeps a multiplexed session on the agent's channel. A session that fails, because a guest broke the
// protocol, is replaced by a new one.
func (s *server) keepMux(ctx context.Context, ch vmm.Channeler) {
	for ctx.Err() == nil {
		m, err := s.connectMux(ctx, ch)
		if err != nil {
			if ctx.Err() == nil {
				s.log.Warn("agent channel", "err", err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(500 * time.Millisecond): // back-off: a broken guest must not cause a busy loop
			}
			continue
		}
		s.setMux(m)
		select {
		case <-m.Done():
			s.log.Warn("agent session ended", "err", m.Err())
		case <-ctx.Done():
		}
		s.setMux(nil)
		m.Close()
	}
}

func (s *server) connectMux(ctx context.Context, ch vmm.Channeler) (*mux.Mux, error) {
	conn, err := ch.OpenChannel(ctx)
	if err != nil {
		return nil, err
	}
	m, err := mux.Connect(ctx, conn)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return m, nil
}

func (s *server) setMux(m *mux.Mux) {
	s.muxMu.Lock()
	defer s.muxMu.Unlock()
	s.mux = m
	close(s.muxNext)
	s.muxNext = make(chan struct{})
}

func (s *server) currentMux() (*mux.Mux, <-chan struct{}) {
	s.muxMu.Lock()
	defer s.muxMu.Unlock()
	return s.mux, s.muxNext
}

// dial opens a stream to a port of the agent. If necessary, it waits for the agent.
func (s *server) dial(ctx context.Context, port uint32) (net.Conn, error) {
	if d, ok := s.proc.(vmm.Dialer); ok {
		return d.Dial(ctx, port)
	}
	for {
		m, changed := s.currentMux()
		if m != nil {
			return m.Dial(ctx, port)
		}
		select {
		case <-ctx.Done():
			return nil, errors.New("the agent does not answer")
		case <-s.proc.Done():
			return nil, errors.New("the VM has ended")
		case <-changed:
		}
	}
}
