package private

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"banger"
)

// Dial connects to the unix socket at path. It sends nothing before it has checked that Check accepts the directory,
// and that this user or root listens. Otherwise the error is a *banger.Error with CodeDenied.
func Dial(ctx context.Context, path string) (net.Conn, error) {
	if err := Check(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if info, err := os.Lstat(path); err != nil {
		return nil, err
	} else if info.Mode().Type() != fs.ModeSocket {
		return nil, banger.Errorf(banger.CodeDenied, "%s is not a socket", path).WithHint("remove it")
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	peer, err := PeerOf(conn.(*net.UnixConn))
	if err == nil && !ours(peer) {
		err = banger.Errorf(banger.CodeDenied, "user id %d, who is neither this user nor root, listens on %s",
			peer.Uid, path).
			WithHint("choose another directory with BANGER_RUN_DIR")
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// Listen listens on a unix socket at path, in a directory that Check accepts. The caller must hold the directory's
// lock; an existing socket therefore belongs to a dead process. Connections of users other than this one and root are
// closed before anything is read.
func Listen(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		return nil, err
	}
	return listener{ln}, nil
}

// listener is a net.Listener that accepts only connections of this user and root.
type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if peer, err := PeerOf(conn.(*net.UnixConn)); err == nil && ours(peer) {
			return conn, nil
		}
		conn.Close()
	}
}

func ours(peer *unix.Ucred) bool { return peer.Uid == 0 || int(peer.Uid) == os.Geteuid() }

// PeerOf returns the credentials of the process at the other end of a unix stream socket: the one that connected, or
// the one that listened (unix(7), SO_PEERCRED).
func PeerOf(conn *net.UnixConn) (cred *unix.Ucred, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return cred, errors.Join(cerr, err)
}
