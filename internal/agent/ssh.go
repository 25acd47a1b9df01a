package agent

import (
	"context"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"banger"
)

// Limits of the SSH server.
const (
	sshHandshake    = 30 * time.Second
	sshConnections  = 64  // of the guest
	sshChannels     = 256 // of a connection
	sshListeners    = 64  // of a connection
	sshAuthTries    = 2 * banger.MaxSSHKeys
	sshForwardLimit = 30 * time.Second // to reach the far end of a forward
)

// sshConnection is one client's connection. Everything of it ends with it: its
// commands are hung up, its listeners closed.
type sshConnection struct {
	s       *server
	request banger.SSH
	keys    map[string]bool // in wire form
	slots   chan struct{}   // one for each open channel
	wg      sync.WaitGroup  // of all goroutines but the one of serve
	ctx     context.Context // ends with the connection
	conn    *ssh.ServerConn
	user    string // as lookUp takes it
	id      identity

	mu        sync.Mutex
	listeners map[string]net.Listener
	agent     string // socket of the forwarded agent, "" while there is none
}

// ssh serves the SSH protocol on the stream, once the request is answered. It holds
// to the request alone who may log in.
func (s *server) ssh(stream net.Conn, request *banger.SSH) {
	c, config, err := s.prepareSSH(request)
	if err != nil {
		sendError(stream, err)
		return
	}
	select {
	case s.sshSlots <- struct{}{}:
		defer func() { <-s.sshSlots }()
	default:
		sendError(stream, banger.Errorf(banger.CodeUnavailable, "%d SSH connections are open already", sshConnections))
		return
	}
	if banger.WriteJSONFrame(stream, banger.FrameResponse, info()) == nil {
		c.serve(stream, config)
	}
}

// prepareSSH checks the request.
func (s *server) prepareSSH(request *banger.SSH) (*sshConnection, *ssh.ServerConfig, error) {
	if request == nil {
		return nil, nil, banger.Errorf(banger.CodeInvalid, "no keys are given")
	}
	if err := request.Check(); err != nil {
		return nil, nil, err
	}
	c := &sshConnection{s: s, request: *request, keys: map[string]bool{}, slots: make(chan struct{}, sshChannels), listeners: map[string]net.Listener{}}
	for _, line := range request.Keys {
		key, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil || len(options) > 0 || len(rest) > 0 {
			return nil, nil, banger.Errorf(banger.CodeInvalid, "%.40q is not a public key without options", line)
		}
		c.keys[string(key.Marshal())] = true
	}
	s.mu.Lock()
	hostKey := s.config.SSHHostKey
	s.mu.Unlock()
	signer, err := ssh.ParsePrivateKey([]byte(hostKey))
	if err != nil {
		return nil, nil, banger.Errorf(banger.CodeConflict, "this VM has no SSH host key yet").WithHint("stop and start it")
	}
	config := &ssh.ServerConfig{ServerVersion: "SSH-2.0-banger", MaxAuthTries: sshAuthTries, PublicKeyCallback: c.authorise, BannerCallback: c.banner}
	config.AddHostKey(signer)
	return c, config, nil
}

// authorise takes exactly the keys of the request, for any user of the image: who
// may ask for this connection may also run a command as any.
func (c *sshConnection) authorise(meta ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	if !c.keys[string(key.Marshal())] {
		return nil, banger.Errorf(banger.CodeDenied, "this key is not among those given")
	}
	_, _, err := sshUser(meta.User())
	return nil, err
}

// banner says why a login will fail, which SSH itself does not.
func (c *sshConnection) banner(meta ssh.ConnMetadata) string {
	if _, _, err := sshUser(meta.User()); err != nil {
		return "banger: " + err.Error() + "\r\n"
	}
	return ""
}

// sshUser looks a user up; root is one of every image.
func sshUser(name string) (string, identity, error) {
	id, err := lookUp(name)
	if err != nil && name == "root" {
		name = "0"
		id, err = lookUp(name)
	}
	return name, id, err
}

func (c *sshConnection) serve(stream net.Conn, config *ssh.ServerConfig) {
	stream.SetDeadline(time.Now().Add(c.s.sshLimit))
	conn, channels, requests, err := ssh.NewServerConn(stream, config)
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
	if c.user, c.id, err = sshUser(conn.User()); err != nil {
		return
	}
	c.wg.Go(func() { c.globalRequests(requests) })
	for channel := range channels { // ends with the connection
		c.open(channel)
	}
}

// open starts what the client asks for in a channel of its own.
func (c *sshConnection) open(n ssh.NewChannel) {
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

// take takes one of the connection's places for a channel, if any is left.
func (c *sshConnection) take() bool {
	select {
	case c.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

func (c *sshConnection) release() { <-c.slots }
