package host

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// Paths are where banger keeps things for the user who runs it.
type Paths struct {
	State string // durable: database, images, disks
	Run   string // sockets
}

// maxSocketDir leaves room for "/vms/0123456789ab/channel.sock" and a NUL in
// sun_path (unix(7): 108 bytes).
const maxSocketDir = 108 - len("/vms/0123456789ab/channel.sock") - 1

// Socket returns the path of the daemon's API socket.
func (p Paths) Socket() string { return filepath.Join(p.Run, "api.sock") }

// FindPaths follows BANGER_STATE_DIR and BANGER_RUN_DIR, then the XDG base
// directories, or /var/lib and /run for root. It returns an error when the run
// directory's path is too long for sockets.
func FindPaths() (Paths, error) {
	p := Paths{State: os.Getenv("BANGER_STATE_DIR"), Run: os.Getenv("BANGER_RUN_DIR")}
	if p.State == "" {
		p.State = defaultState()
	}
	if p.Run == "" {
		p.Run = defaultRun()
	}
	for _, dir := range []*string{&p.State, &p.Run} {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return p, err
		}
		*dir = abs
	}
	if len(p.Run) > maxSocketDir {
		return p, fmt.Errorf("the path %s is too long for sockets; set BANGER_RUN_DIR to one of at most %d bytes", p.Run, maxSocketDir)
	}
	return p, nil
}

func defaultState() string {
	if os.Geteuid() == 0 {
		return "/var/lib/banger"
	}
	if dir := os.Getenv("XDG_DATA_HOME"); dir != "" {
		return filepath.Join(dir, "banger")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = filepath.Join(os.TempDir(), fmt.Sprintf("banger-home-%d", os.Getuid()))
	}
	return filepath.Join(home, ".local", "share", "banger")
}

func defaultRun() string {
	if os.Geteuid() == 0 {
		return "/run/banger"
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "banger")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("banger-%d", os.Getuid()))
}

// MakeRun makes the run directory, and refuses one that another user made first
// under a guessable name.
func (p Paths) MakeRun() error {
	if err := os.MkdirAll(p.Run, 0o711); err != nil {
		return err
	}
	info, err := os.Lstat(p.Run)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s does not belong to this user; set BANGER_RUN_DIR to another directory", p.Run)
	}
	return nil
}

// FreeBytes returns what an ordinary user may still write to the file system of
// dir or of its nearest existing parent.
func FreeBytes(dir string) (int64, error) {
	for {
		var st syscall.Statfs_t
		err := syscall.Statfs(dir, &st)
		if err == nil {
			return int64(st.Bavail) * st.Bsize, nil
		}
		if parent := filepath.Dir(dir); parent != dir {
			dir = parent
			continue
		}
		return 0, err
	}
}
