package banger

// Listener is a socket of the guest that accepts connections or datagrams, with the ways to reach it.
type Listener struct {
	Protocol  string   `json:"protocol"` // tcp or udp
	Address   string   `json:"address"`  // in the guest: 0.0.0.0, ::, 127.0.0.1, …
	Port      uint16   `json:"port"`
	Process   string   `json:"process,omitempty"` // its name in the guest, which may give any name
	PID       int      `json:"pid,omitempty"`
	Reachable []string `json:"reachable,omitempty"` // address:port on the host
	URL       string   `json:"url,omitempty"`       // only after a probe: set if the socket seems to speak HTTP or HTTPS
	Problem   string   `json:"problem,omitempty"`   // why the host could not open its port
}
