package command

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"banger"
)

// maxUserFile bounds what is read of the image's passwd and group files.
const maxUserFile = 4 << 20

// User is whom a command runs as.
type User struct {
	UID, GID uint32
	Groups   []uint32 // the supplementary ones
	Home     string   // the home directory
}

// allGroups returns the supplementary groups as initgroups(3) sets them: the primary
// one is among them, so that a process that gives up its gid gets no new rights.
func (u User) allGroups() []uint32 {
	all := []uint32{u.GID}
	for _, g := range u.Groups {
		if g != u.GID {
			all = append(all, g)
		}
	}
	return all
}

// LookUp resolves "user[:group]", names or numbers, as docker does: a number need
// not be in passwd, a name must be. Supplementary groups are those that list the
// user, unless a group is given. "" is root, and "user:" is user.
func LookUp(spec string) (User, error) { return lookUpIn("/etc/passwd", "/etc/group", spec) }

func lookUpIn(passwd, groups, spec string) (User, error) {
	user, group, _ := strings.Cut(spec, ":")
	u := User{Home: "/"}
	name := ""
	if user == "" {
		user = "0"
	}
	found := eachEntry(passwd, 4, 7, func(f []string) bool {
		if f[0] != user && !sameNumber(f[2], user) {
			return false
		}
		uid, err1 := strconv.ParseUint(f[2], 10, 32)
		gid, err2 := strconv.ParseUint(f[3], 10, 32)
		if err1 != nil || err2 != nil {
			return false
		}
		name, u.UID, u.GID, u.Home = f[0], uint32(uid), uint32(gid), cmp.Or(f[5], "/")
		return true
	})
	if !found {
		uid, err := strconv.ParseUint(user, 10, 32)
		if err != nil {
			return u, banger.Errorf(banger.CodeCannotRun, "the image has no user %q", user)
		}
		u.UID = uint32(uid)
		if uid == 0 {
			u.Home = "/root"
		}
	}
	if group == "" {
		eachEntry(groups, 4, 4, func(f []string) bool {
			gid, err := strconv.ParseUint(f[2], 10, 32)
			if err == nil && name != "" && slices.Contains(strings.Split(f[3], ","), name) {
				u.Groups = append(u.Groups, uint32(gid))
			}
			return false
		})
		return u, nil
	}
	found = eachEntry(groups, 3, 4, func(f []string) bool {
		gid, err := strconv.ParseUint(f[2], 10, 32)
		if err != nil || f[0] != group && !sameNumber(f[2], group) {
			return false
		}
		u.GID = uint32(gid)
		return true
	})
	if !found {
		gid, err := strconv.ParseUint(group, 10, 32)
		if err != nil {
			return u, banger.Errorf(banger.CodeCannotRun, "the image has no group %q", group)
		}
		u.GID = uint32(gid)
	}
	return u, nil
}

// Passwd returns the login name and the shell of the first line of /etc/passwd whose
// name or number is user, and "" if there is no such line.
func Passwd(user string) (name, shell string) {
	eachEntry("/etc/passwd", 4, 7, func(f []string) bool {
		if f[0] != user && !sameNumber(f[2], user) {
			return false
		}
		name, shell = f[0], f[6]
		return true
	})
	return name, shell
}

// sameNumber reports whether both are the same number, of which one may begin with zeros.
func sameNumber(a, b string) bool {
	m, err1 := strconv.ParseUint(a, 10, 32)
	n, err2 := strconv.ParseUint(b, 10, 32)
	return err1 == nil && err2 == nil && m == n
}

// eachEntry calls f with the fields of each line until it returns true. A line has at least least fields and at most
// most of them; those that it lacks are "", as in docker.
func eachEntry(path string, least, most int, f func([]string) bool) bool {
	for line := range strings.Lines(readUserFile(path)) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", most+1)
		if len(parts) < least || len(parts) > most {
			continue
		}
		if f(append(parts, make([]string, most-len(parts))...)) {
			return true
		}
	}
	return false
}

// readUserFile returns the file's first maxUserFile bytes, or nothing when it is not
// a regular file. It makes bare system calls, since every command's start reads
// these files.
func readUserFile(path string) string {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0) // opening a pipe must not block
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return ""
	}
	b := make([]byte, min(st.Size, maxUserFile))
	have := 0
	for have < len(b) {
		n, err := unix.Read(fd, b[have:])
		if n <= 0 && err != unix.EINTR {
			break
		}
		have += max(n, 0)
	}
	return string(b[:have])
}
