package banger

// Listener is a socket of the guest that waits for others, and how to reach it.
type Listener struct {
	Protocol  string   `json:"protocol"` // tcp or udp
	Address   string   `json:"address"`  // in the guest: 0.0.0.0, ::, 127.0.0.1, …
	Port      uint16   `json:"port"`
	Process   string   `json:"process,omitempty"` // its name in the guest, which may say anything
	PID       int      `json:"pid,omitempty"`
	Reachable []string `json:"reachable,omitempty"` // address:port on the host
	URL       string   `json:"url,omitempty"`       // when it seems to speak HTTP or HTTPS
	Problem   string   `json:"problem,omitempty"`   // why the host could not open its port
}
