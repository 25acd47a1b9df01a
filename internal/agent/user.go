package agent

import (
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"banger"
)

// maxUserFile bounds what is read of the image's passwd and group files.
const maxUserFile = 4 << 20

// identity is who a command runs as.
type identity struct {
	uid, gid uint32
	groups   []uint32
	home     string
}

// allGroups are the supplementary groups as initgroups(3) sets them: the primary
// one is among them, so that giving up the gid does not give new rights.
func (id identity) allGroups() []uint32 {
	all := []uint32{id.gid}
	for _, g := range id.groups {
		if g != id.gid {
			all = append(all, g)
		}
	}
	return all
}

// lookUp resolves "user[:group]", names or numbers, as docker does: a number
// need not be in passwd, a name must be. Supplementary groups are those that
// list the user, unless a group is given.
func lookUp(spec string) (identity, error) { return lookUpIn("/etc/passwd", "/etc/group", spec) }

func lookUpIn(passwd, groups, spec string) (identity, error) {
	user, group, hasGroup := strings.Cut(spec, ":")
	id := identity{home: "/"}
	name := ""
	if user == "" {
		user = "0"
	}
	found := eachEntry(passwd, 7, func(f []string) bool {
		if f[0] != user && f[2] != user {
			return false
		}
		uid, err1 := strconv.ParseUint(f[2], 10, 32)
		gid, err2 := strconv.ParseUint(f[3], 10, 32)
		if err1 != nil || err2 != nil {
			return false
		}
		name, id.uid, id.gid, id.home = f[0], uint32(uid), uint32(gid), f[5]
		return true
	})
	if !found {
		uid, err := strconv.ParseUint(user, 10, 32)
		if err != nil {
			return id, banger.Errorf(banger.CodeCannotRun, "the image has no user %q", user)
		}
		id.uid = uint32(uid)
		if uid == 0 {
			id.home = "/root"
		}
	}
	if !hasGroup {
		eachEntry(groups, 4, func(f []string) bool {
			gid, err := strconv.ParseUint(f[2], 10, 32)
			if err == nil && name != "" && slices.Contains(strings.Split(f[3], ","), name) {
				id.groups = append(id.groups, uint32(gid))
			}
			return false
		})
		return id, nil
	}
	found = eachEntry(groups, 4, func(f []string) bool {
		gid, err := strconv.ParseUint(f[2], 10, 32)
		if err != nil || f[0] != group && f[2] != group {
			return false
		}
		id.gid = uint32(gid)
		return true
	})
	if !found {
		gid, err := strconv.ParseUint(group, 10, 32)
		if err != nil {
			return id, banger.Errorf(banger.CodeCannotRun, "the image has no group %q", group)
		}
		id.gid = uint32(gid)
	}
	return id, nil
}

// eachEntry calls f with the fields of each line until it returns true.
func eachEntry(path string, fields int, f func([]string) bool) bool {
	for line := range strings.Lines(readUserFile(path)) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", fields+1)
		if len(parts) == fields && f(parts) {
			return true
		}
	}
	return false
}

// readUserFile returns the file's first maxUserFile bytes, or nothing when it is
// no regular file. Bare calls: this is on every command's way.
func readUserFile(path string) string {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0) // a pipe must not hold us
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
