// Package sshd serves the SSH protocol in a guest: logins, commands, terminals,
// forwards and sftp. It needs no user database but the image's own files, and no
// program of the image but those that a client runs.
//
// The package must not know how a connection comes from the host, nor how it was
// asked for: it gets a stream and what may be done on it.
package sshd

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"banger"
	"banger/internal/agent/command"
)

// Limits of the server.
const (
	handshakeLimit = 30 * time.Second
	maxConnections = 64  // of the guest
	maxChannels    = 256 // of a connection
	maxListeners   = 64  // of a connection
	maxAuthTries   = 2 * banger.MaxSSHKeys
	forwardLimit   = 30 * time.Second // to reach the far end of a forward
)

// Starter starts commands.
type Starter interface {
	Start(*banger.Exec, command.Options) (*command.Process, error)
}

// Server serves the SSH connections of a guest.
type Server struct {
	commands  Starter
	places    chan struct{} // one for each connection
	handshake time.Duration // how long one may take
}

// New returns a server whose clients' commands are started by commands.
func New(commands Starter) *Server {
	return &Server{commands: commands, places: make(chan struct{}, maxConnections), handshake: handshakeLimit}
}

// Connection is one client's connection. Everything of it ends with it: its commands
// are hung up, its listeners closed.
type Connection struct {
	server  *Server
	config  *ssh.ServerConfig
	request banger.SSH
	keys    map[string]bool // those that may log in, in wire form
	places  chan struct{}   // one for each open channel
	wg      sync.WaitGroup  // of all goroutines but that of Serve
	ctx     context.Context // ends with the connection
	conn    *ssh.ServerConn
	login   string // of the user, as command.LookUp takes it
	user    command.User

	mu        sync.Mutex
	sessions  map[ssh.Channel]bool
	listeners map[string]net.Listener
	agent     string // socket of the forwarded agent, "" while there is none
}

// Open checks a request for a connection, and takes one of the server's places for it.
// Only the request's keys may log in. hostKey is the private key of the host, in PEM.
// The caller closes the connection.
func (s *Server) Open(request *banger.SSH, hostKey string) (*Connection, error) {
	c, err := s.prepare(request, hostKey)
	if err != nil {
		return nil, err
	}
	select {
	case s.places <- struct{}{}:
		return c, nil
	default:
		return nil, banger.Errorf(banger.CodeUnavailable, "%d SSH connections are open already", maxConnections)
	}
}

// Close gives the connection's place back. It must be called once.
func (c *Connection) Close() { <-c.server.places }

// Announce prints a sentence in all sessions of the client, beside what their commands print. A client that reads
// nothing is given up after limit.
func (c *Connection) Announce(sentence string, limit time.Duration) {
	c.mu.Lock()
	channels := slices.Collect(maps.Keys(c.sessions))
	c.mu.Unlock()
	var told sync.WaitGroup
	for _, channel := range channels {
		told.Go(func() { fmt.Fprintf(channel.Stderr(), "\r\nbanger: %s\r\n", sentence) }) // ends with the channel
	}
	done := make(chan struct{})
	go func() {
		told.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(limit):
	}
}

func (s *Server) prepare(request *banger.SSH, hostKey string) (*Connection, error) {
	if request == nil {
		return nil, banger.Errorf(banger.CodeInvalid, "no keys are given")
	}
	if err := request.Check(); err != nil {
		return nil, err
	}
	c := &Connection{
		server:    s,
		request:   *request,
		keys:      map[string]bool{},
		places:    make(chan struct{}, maxChannels),
		sessions:  map[ssh.Channel]bool{},
		listeners: map[string]net.Listener{},
	}
	for _, line := range request.Keys {
		key, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil || len(options) > 0 || len(rest) > 0 {
			return nil, banger.Errorf(banger.CodeInvalid, "%.40q is not a public key without options", line)
		}
		c.keys[string(key.Marshal())] = true
	}
	signer, err := ssh.ParsePrivateKey([]byte(hostKey))
	if err != nil {
		return nil, banger.Errorf(banger.CodeConflict, "this VM has no SSH host key yet").WithHint("stop and start it")
	}
	c.config = &ssh.ServerConfig{
		ServerVersion:     "SSH-2.0-banger",
		MaxAuthTries:      maxAuthTries,
		PublicKeyCallback: c.authorise,
		BannerCallback:    c.banner,
	}
	c.config.AddHostKey(signer)
	return c, nil
}

// authorise accepts exactly the keys of the request, for any user of the image: a client
// that may ask for this connection may also run a command as any user.
func (c *Connection) authorise(meta ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	if !c.keys[string(key.Marshal())] {
		return nil, banger.Errorf(banger.CodeDenied, "this key is not among those given")
	}
	_, _, err := lookUp(meta.User())
	return nil, err
}

// banner says why a login will fail, which SSH itself does not.
func (c *Connection) banner(meta ssh.ConnMetadata) string {
	if _, _, err := lookUp(meta.User()); err != nil {
		return "banger: " + err.Error() + "\r\n"
	}
	return ""
}

// lookUp looks a user up; every image has root.
func lookUp(name string) (string, command.User, error) {
	user, err := command.LookUp(name)
	if err != nil && name == "root" {
		name = "0"
		user, err = command.LookUp(name)
	}
	return name, user, err
}

// Serve serves the client behind stream until either side ends the connection. The
// caller closes stream.
func (c *Connection) Serve(stream net.Conn) {
	stream.SetDeadline(time.Now().Add(c.server.handshake))
	conn, channels, requests, err := ssh.NewServerConn(stream, c.config)
	if err != nil {
		return
	}
	stream.SetDeadline(time.Time{})
	ctx, cancel := context.WithCancel(context.Background())
	c.conn, c.ctx = conn, ctx
	defer func() {
		conn.Close()
		cancel()
		c.closeListeners()
		c.wg.Wait()
	}()
	if c.login, c.user, err = lookUp(conn.User()); err != nil {
		return
	}
	c.wg.Go(func() { c.globalRequests(requests) })
	for channel := range channels { // ends with the connection
		c.open(channel)
	}
}

// open starts what the client asks for in a channel of its own.
func (c *Connection) open(n ssh.NewChannel) {
	handlers := map[string]func(ssh.NewChannel){
		"session":                        c.session,
		"direct-tcpip":                   c.directTCP,
		"direct-streamlocal@openssh.com": c.directUnix,
	}
	handle, known := handlers[n.ChannelType()]
	switch {
	case !known:
		n.Reject(ssh.UnknownChannelType, "unknown channel type")
	case !c.take():
		n.Reject(ssh.ResourceShortage, "too many channels")
	default:
		c.wg.Go(func() {
			defer c.release()
			handle(n)
		})
	}
}

// take takes one of the connection's places for a channel, and reports whether there was one.
func (c *Connection) take() bool {
	select {
	case c.places <- struct{}{}:
		return true
	default:
		return false
	}
}

func (c *Connection) release() { <-c.places }
