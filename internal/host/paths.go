package host

import (
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"banger"
)

// Paths are the directories in which banger keeps the files of the user who runs it, and the file with what the user
// wants.
type Paths struct {
	State string // durable: database, images, disks
	Run   string // sockets
	// Config is the file with the user's configuration, which need not exist. It is "" for a user without a home.
	Config string
	// Context names another host whose daemon this process uses; "" means this host's.
	Context string
}

// Local is the context of this host's daemon, for users.
const Local = "local"

// Theirs returns the directory for what a client keeps about the VMs of its daemon: State, or a directory of its own
// for the daemon of another host.
func (p Paths) Theirs() string {
	if p.Context == "" {
		return p.State
	}
	return filepath.Join(p.State, "contexts", p.Context)
}

// maxSocketDir leaves room for "/vms/0123456789ab/channel.sock" and a NUL in
// sun_path (unix(7): 108 bytes).
const maxSocketDir = 108 - len("/vms/0123456789ab/channel.sock") - 1

// DirMode returns the mode of the state and run directories. Root's directories can be entered, because VMs have user
// ids of their own below them.
func DirMode() fs.FileMode {
	if os.Geteuid() == 0 {
		return 0o711
	}
	return 0o700
}

// Socket returns the path of the daemon's API socket.
func (p Paths) Socket() string { return filepath.Join(p.Run, "api.sock") }

// FindPaths uses BANGER_STATE_DIR and BANGER_RUN_DIR, then the XDG base directories, which must be absolute, or for
// root /var/lib and /run. It returns an error if one of our paths is not absolute, contains a control character, or
// is too long for sockets, and if the user has no home directory.
func FindPaths() (Paths, error) {
	var p Paths
	var err error
	if p.State, err = ownPath("BANGER_STATE_DIR"); err == nil && p.State == "" {
		p.State, err = defaultState()
	}
	if err != nil {
		return p, err
	}
	if p.Run, err = ownPath("BANGER_RUN_DIR"); err != nil {
		return p, err
	}
	if p.Run == "" {
		p.Run = defaultRun()
	}
	if err := checkPath("the state directory", p.State); err != nil {
		return p, err
	}
	if err := checkPath("the run directory", p.Run); err != nil {
		return p, err
	}
	if len(p.Run) > maxSocketDir {
		return p, banger.Errorf(banger.CodeInvalid, "the path %s is too long for sockets", p.Run).
			WithHint("set BANGER_RUN_DIR to one of at most %d bytes", maxSocketDir)
	}
	p.Config = configFile()
	return p, nil
}

// configFile returns where the user's configuration is, also for root.
func configFile() string {
	if dir := xdg("XDG_CONFIG_HOME"); dir != "" {
		return filepath.Join(dir, "banger", "config.toml")
	}
	home, err := HomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".config", "banger", "config.toml")
}

// ownPath returns the directory that an environment variable of banger names, or "" if it is not set.
func ownPath(name string) (string, error) {
	path := os.Getenv(name)
	if path == "" {
		return "", nil
	}
	if !filepath.IsAbs(path) {
		return "", banger.Errorf(banger.CodeInvalid, "%s is %.200q, and a relative path means another directory elsewhere",
			name, path).
			WithHint("give a path that begins with /")
	}
	return filepath.Clean(path), nil
}

// checkPath rejects names that logs, scripts and the kernel's lists of mounts and sockets cannot represent.
func checkPath(what, path string) error {
	if path == "/" {
		return banger.Errorf(banger.CodeInvalid, "%s is the root directory", what).
			WithHint("set BANGER_STATE_DIR and BANGER_RUN_DIR")
	}
	if !utf8.ValidString(path) || strings.ContainsFunc(path, unicode.IsControl) {
		return banger.Errorf(banger.CodeInvalid, "the path of %s, %.200q, holds a control character or is not UTF-8",
			what, path).
			WithHint("set BANGER_STATE_DIR and BANGER_RUN_DIR")
	}
	return nil
}

func defaultState() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/banger", nil
	}
	if dir := xdg("XDG_DATA_HOME"); dir != "" {
		return filepath.Join(dir, "banger"), nil
	}
	home, err := HomeDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(home, ".local", "share", "banger"), nil
}

// HomeDir returns HOME or, if it is not set, the directory in the user database.
func HomeDir() (string, error) {
	home := os.Getenv("HOME")
	if home == "" {
		if u, err := user.LookupId(strconv.Itoa(os.Geteuid())); err == nil {
			home = u.HomeDir
		}
	}
	if !filepath.IsAbs(home) || filepath.Clean(home) == "/" {
		return "", banger.Errorf(banger.CodeInvalid, "this user has no home directory: HOME is %.200q", os.Getenv("HOME")).
			WithHint("set HOME or BANGER_STATE_DIR")
	}
	return home, nil
}

func defaultRun() string {
	if os.Geteuid() == 0 {
		return "/run/banger"
	}
	if dir := xdg("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "banger")
	}
	tmp := os.TempDir()
	if !filepath.IsAbs(tmp) {
		tmp = "/tmp"
	}
	return filepath.Join(tmp, fmt.Sprintf("banger-%d", os.Geteuid()))
}

// xdg returns the value of an XDG base directory variable. It returns "" if the variable is not set or not absolute;
// the XDG Base Directory Specification says to ignore relative paths.
func xdg(name string) string {
	if dir := os.Getenv(name); filepath.IsAbs(dir) {
		return dir
	}
	return ""
}

// FreeBytes returns how many bytes an ordinary user may still write to the file system of dir or of its nearest
// existing parent.
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
