package network

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

// Exchange sends one DNS message to a resolver and returns the answer. With
// stream the answer may be longer than a datagram.
type Exchange func(ctx context.Context, query []byte, stream bool) ([]byte, error)

// ResolvConf is the file with the host's resolvers (resolv.conf(5)).
const ResolvConf = "/etc/resolv.conf"

const (
	resolverTry  = 3 * time.Second // per server
	maxResolvers = 3               // resolv.conf(5), MAXNS
)

// Resolver asks the resolvers of the host. It looks at their file before each
// question, so a changed one counts at once.
type Resolver struct {
	path string

	mu      sync.Mutex
	seen    os.FileInfo
	servers []netip.AddrPort
}

// NewResolver returns a resolver that follows the file at path.
func NewResolver(path string) *Resolver { return &Resolver{path: path} }

// current returns the servers of the file as it is now. A file that cannot be read
// or names none means a resolver on this host, as it does to the C library.
func (r *Resolver) current() []netip.AddrPort {
	r.mu.Lock()
	defer r.mu.Unlock()
	info, err := os.Stat(r.path)
	if err == nil && r.seen != nil && os.SameFile(info, r.seen) && info.ModTime().Equal(r.seen.ModTime()) &&
		info.Size() == r.seen.Size() {
		return r.servers
	}
	r.servers, r.seen = nil, nil
	if err == nil {
		if data, err := os.ReadFile(r.path); err == nil {
			r.servers, r.seen = parseResolvConf(string(data)), info
		}
	}
	if len(r.servers) == 0 {
		r.servers = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}
	}
	return r.servers
}

func parseResolvConf(text string) []netip.AddrPort {
	var out []netip.AddrPort
	for _, line := range strings.Split(text, "\n") {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "nameserver" || len(out) == maxResolvers {
			continue
		}
		if a, err := netip.ParseAddr(words[1]); err == nil {
			out = append(out, netip.AddrPortFrom(a, 53))
		}
	}
	return out
}

// Exchange asks one server after the other until one answers. It implements the
// type of the same name.
func (r *Resolver) Exchange(ctx context.Context, query []byte, stream bool) ([]byte, error) {
	err := errors.New("no resolver")
	for _, server := range r.current() {
		var answer []byte
		if answer, err = ask(ctx, server, query, stream); err == nil {
			return answer, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

func ask(ctx context.Context, server netip.AddrPort, query []byte, stream bool) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, resolverTry)
	defer cancel()
	transport := "udp"
	if stream {
		transport = "tcp"
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, transport, server.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	if stream {
		if err := WriteMessage(conn, query); err != nil {
			return nil, err
		}
		return ReadMessage(conn)
	}
	if _, err := conn.Write(query); err != nil {
		return nil, err
	}
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		if n >= 12 && buf[0] == query[0] && buf[1] == query[1] { // RFC 5452, 9.1
			return buf[:n], nil
		}
	}
}

// MaxMessage bounds a DNS message, in bytes.
const MaxMessage = 64 << 10

// ReadMessage reads one DNS message from a stream, behind its length (RFC 1035, 4.2.2).
func ReadMessage(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}

// WriteMessage writes one DNS message to a stream, behind its length. It refuses a message of
// MaxMessage bytes or more.
func WriteMessage(w io.Writer, m []byte) error {
	if len(m) >= MaxMessage {
		return errors.New("the message is too long")
	}
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...))
	return err
}
