package accept_test

import (
	"errors"
	"net"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"banger/internal/accept"
)

// script is a listener whose Accept returns one error after the other, and then a connection.
type script struct {
	net.Listener
	errs  []error
	calls []time.Time
}

func (s *script) Accept() (net.Conn, error) {
	s.calls = append(s.calls, time.Now())
	if len(s.errs) == 0 {
		conn, _ := net.Pipe()
		return conn, nil
	}
	err := s.errs[0]
	s.errs = s.errs[1:]
	return nil, err
}

func (s *script) Close() error { return nil }

// TestAcceptIsTriedAgain checks that Accept survives errors of each kind, and how long each wait is.
func TestAcceptIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		for range 5 {
			s.errs = append(s.errs, &net.OpError{Op: "accept", Err: syscall.EMFILE}, syscall.ECONNABORTED, syscall.ENOBUFS)
		}
		if _, err := accept.Retry(s).Accept(); err != nil {
			t.Fatal(err)
		}
		var waits []time.Duration
		for i := range len(s.calls) - 1 {
			waits = append(waits, s.calls[i+1].Sub(s.calls[i]))
		}
		want := []time.Duration{5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000, 1000, 1000, 1000, 1000}
		for i := range want {
			want[i] *= time.Millisecond
		}
		if !slices.Equal(waits, want) {
			t.Errorf("it waits %v, and should wait %v", waits, want)
		}
	})
}

// TestCloseEndsAccept closes the listener while Accept waits to try again.
func TestCloseEndsAccept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := accept.Retry(&script{errs: slices.Repeat([]error{syscall.EMFILE}, 1000)})
		ended := make(chan error)
		go func() {
			_, err := ln.Accept()
			ended <- err
		}()
		synctest.Wait()
		ln.Close()
		began := time.Now()
		if err := <-ended; !errors.Is(err, net.ErrClosed) || !time.Now().Equal(began) {
			t.Errorf("Accept ends with %v, %s after Close", err, time.Since(began))
		}
	})
}
