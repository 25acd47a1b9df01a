package firecracker

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

// TestASymlinkIsNoSocketOfTheVMM: a subverted VMM may put a symlink in place of its socket.
func TestASymlinkIsNoSocketOfTheVMM(t *testing.T) {
	dir := t.TempDir()
	socket, link, file := filepath.Join(dir, "socket"), filepath.Join(dir, "link"), filepath.Join(dir, "file")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if err := os.Symlink(socket, link); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, ok := range map[string]bool{socket: true, link: false, file: false, filepath.Join(dir, "none"): false} {
		conn, err := dialSocket(t.Context(), path)
		if err == nil {
			conn.Close()
		}
		if (err == nil) != ok {
			t.Errorf("%s: %v", path, err)
		}
	}
}
