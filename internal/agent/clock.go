package agent

import (
	"net"
	"time"

	"banger/internal/frame"
	"banger/internal/guest"
)

// clock corrects the clock, if the host asks for that, and answers with what the clock shows then.
func (s *server) clock(conn net.Conn, c *guest.Correction) {
	s.mu.Lock()
	var err error
	if c != nil && c.After == s.clockSets {
		s.clockSets++
		err = s.system.CorrectClock(*c)
	}
	i := info()
	i.ClockSets, i.TimeUnixNano = s.clockSets, time.Now().UnixNano()
	s.mu.Unlock()
	if err != nil {
		sendError(conn, err)
		return
	}
	frame.WriteJSON(conn, frame.Response, i)
}
