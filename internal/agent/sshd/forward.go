package sshd

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/crypto/ssh"

	"banger"
	"banger/internal/accept"
)

// address is a host and port in the form of RFC 4254, 7.
type address struct {
	Host string
	Port uint32
}

// forwardPayload is the payload of direct-tcpip and forwarded-tcpip.
type forwardPayload struct {
	Host       string
	Port       uint32
	OriginHost string
	OriginPort uint32
}

func (a address) join(host string) string {
	return net.JoinHostPort(host, strconv.Itoa(int(a.Port)))
}

// directTCP carries a forward of the client's (ssh -L, -D, -W) to its address as seen
// from the guest.
func (c *Connection) directTCP(n ssh.NewChannel) {
	var f forwardPayload
	if ssh.Unmarshal(n.ExtraData(), &f) != nil || f.Port > 1<<16-1 {
		n.Reject(ssh.ConnectionFailed, "no such address")
		return
	}
	c.direct(n, "tcp", address{f.Host, f.Port}.join(f.Host))
}

// directUnix carries a forward to a socket of the guest's file system.
func (c *Connection) directUnix(n ssh.NewChannel) {
	var to struct {
		Path     string
		Reserved string
		Port     uint32
	}
	if ssh.Unmarshal(n.ExtraData(), &to) != nil {
		n.Reject(ssh.ConnectionFailed, "no such socket")
		return
	}
	c.direct(n, "unix", to.Path)
}

func (c *Connection) direct(n ssh.NewChannel, network, to string) {
	d := net.Dialer{Timeout: forwardLimit}
	conn, err := d.DialContext(c.ctx, network, to)
	if err != nil {
		n.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	channel, requests, err := n.Accept()
	if err != nil {
		conn.Close()
		return
	}
	c.carry(channel, requests, conn)
}

// carry copies both ways until both directions have ended, or the connection has.
func (c *Connection) carry(channel ssh.Channel, requests <-chan *ssh.Request, conn net.Conn) {
	c.wg.Go(func() { ssh.DiscardRequests(requests) })
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := io.Copy(conn, channel)
		half, ok := conn.(interface{ CloseWrite() error })
		if err != nil || !ok || half.CloseWrite() != nil || c.ctx.Err() != nil {
			conn.Close()
		}
	})
	stop := make(chan struct{})
	wg.Go(func() { // so that a goroutine that is not reading notices the end
		select {
		case <-c.ctx.Done():
			conn.Close()
		case <-stop:
		}
	})
	if _, err := io.Copy(channel, conn); err != nil {
		channel.Close()
	} else {
		channel.CloseWrite()
	}
	close(stop)
	wg.Wait()
	channel.Close()
	conn.Close()
}

// globalRequests answers what concerns the whole connection.
func (c *Connection) globalRequests(requests <-chan *ssh.Request) {
	for r := range requests { // ends with the connection
		ok, reply := true, []byte(nil)
		switch r.Type {
		case "tcpip-forward":
			reply, ok = c.listenTCP(r.Payload)
		case "streamlocal-forward@openssh.com":
			ok = c.listenUnix(r.Payload)
		case "cancel-tcpip-forward":
			var a address
			ok = ssh.Unmarshal(r.Payload, &a) == nil && c.closeListener("tcp "+a.join(a.Host))
		case "cancel-streamlocal-forward@openssh.com":
			var a struct{ Path string }
			ok = ssh.Unmarshal(r.Payload, &a) == nil && c.closeListener("unix "+a.Path)
		default:
			ok = r.Type == "keepalive@openssh.com"
		}
		if r.WantReply {
			r.Reply(ok, reply)
		}
	}
}

// listenTCP listens in the guest for the client (ssh -R), on loopback unless the
// client names an address.
func (c *Connection) listenTCP(payload []byte) (reply []byte, ok bool) {
	var a address
	if ssh.Unmarshal(payload, &a) != nil || a.Port > 1<<16-1 {
		return nil, false
	}
	host := a.Host
	switch host {
	case "localhost":
		host = "127.0.0.1"
	case "*":
		host = ""
	}
	l, err := net.Listen("tcp", a.join(host))
	if err != nil {
		return nil, false
	}
	asked := a.Port
	a.Port = uint32(l.Addr().(*net.TCPAddr).Port)
	if !c.keepListener("tcp "+a.join(a.Host), l, func(conn net.Conn) (string, []byte) {
		origin := address{}
		if from, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
			origin = address{from.IP.String(), uint32(from.Port)}
		}
		return "forwarded-tcpip", ssh.Marshal(forwardPayload{a.Host, a.Port, origin.Host, origin.Port})
	}) {
		return nil, false
	}
	if asked == 0 {
		reply = ssh.Marshal(struct{ Port uint32 }{a.Port})
	}
	return reply, true
}

// listenUnix listens on a socket that belongs to the user.
func (c *Connection) listenUnix(payload []byte) bool {
	var a struct{ Path string }
	if ssh.Unmarshal(payload, &a) != nil || !filepath.IsAbs(a.Path) {
		return false
	}
	l, err := c.listenSocket(a.Path)
	return err == nil && c.keepListener("unix "+a.Path, l, func(net.Conn) (string, []byte) {
		return "forwarded-streamlocal@openssh.com", ssh.Marshal(struct{ Path, Reserved string }{a.Path, ""})
	})
}

func (c *Connection) listenSocket(path string) (net.Listener, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err = os.Chmod(path, 0o600); err == nil && os.Geteuid() == 0 {
		err = os.Lchown(path, int(c.user.UID), int(c.user.GID))
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// keepListener takes l over: each of its connections becomes a channel to the client,
// with the type and payload that describe returns. It reports false, and closes l, if
// the key is taken or there are too many listeners.
func (c *Connection) keepListener(key string, l net.Listener, describe func(net.Conn) (string, []byte)) bool {
	l = accept.Retry(l)
	c.mu.Lock()
	_, taken := c.listeners[key]
	if taken || len(c.listeners) >= maxListeners || c.ctx.Err() != nil {
		c.mu.Unlock()
		l.Close()
		return false
	}
	c.listeners[key] = l
	c.mu.Unlock()
	c.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if !c.take() {
				conn.Close()
				continue
			}
			c.wg.Go(func() {
				defer c.release()
				kind, payload := describe(conn)
				channel, requests, err := c.conn.OpenChannel(kind, payload)
				if err != nil {
					conn.Close()
					return
				}
				c.carry(channel, requests, conn)
			})
		}
	})
	return true
}

func (c *Connection) closeListener(key string) bool {
	c.mu.Lock()
	l, ok := c.listeners[key]
	delete(c.listeners, key)
	c.mu.Unlock()
	if ok {
		l.Close()
	}
	return ok
}

func (c *Connection) closeListeners() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.listeners {
		l.Close()
	}
	clear(c.listeners)
	if c.agent != "" {
		os.RemoveAll(filepath.Dir(c.agent))
	}
}

// forwardAgent makes the socket by which the user's programs reach the keys of the
// client, if the request allows that.
func (c *Connection) forwardAgent() error {
	if !c.request.ForwardAgent {
		return banger.Errorf(banger.CodeDenied, "the client's agent is not to be forwarded")
	}
	if c.agentSocket() != "" {
		return nil
	}
	dir, err := os.MkdirTemp("/run", "banger-ssh-")
	if err != nil {
		if dir, err = os.MkdirTemp("", "banger-ssh-"); err != nil {
			return err
		}
	}
	if os.Geteuid() == 0 {
		err = os.Chown(dir, int(c.user.UID), int(c.user.GID))
	}
	path := filepath.Join(dir, "agent")
	var l net.Listener
	if err == nil {
		l, err = c.listenSocket(path)
	}
	if err != nil {
		os.RemoveAll(dir)
		return err
	}
	if !c.keepListener("unix "+path, l, func(net.Conn) (string, []byte) { return "auth-agent@openssh.com", nil }) {
		os.RemoveAll(dir)
		return banger.Errorf(banger.CodeUnavailable, "too many listeners")
	}
	c.mu.Lock()
	c.agent = path
	c.mu.Unlock()
	return nil
}

func (c *Connection) agentSocket() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.agent
}
