package command

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// ownedGroup is the control group of one command, beside the group of the others. A nil ownedGroup stands for a command
// without one.
type ownedGroup struct {
	all  *Group
	name string   // the path below the root of the hierarchy
	dir  *os.File // open while the command starts
}

// makeOwn makes the group of one command, which it opens.
func (g *Group) makeOwn(name string) (*ownedGroup, error) {
	o := &ownedGroup{all: g, name: ownGroup + "/" + name}
	if err := unix.Mkdirat(g.root, o.name, 0o755); err != nil && err != unix.EEXIST {
		return nil, err
	}
	dir, err := g.openFile(o.name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	o.dir = dir
	return o, nil
}

// read returns what a file of the group says.
func (o *ownedGroup) read(file string) []byte {
	f, err := o.all.openFile(o.name+"/"+file, unix.O_RDONLY)
	if err != nil {
		return nil
	}
	defer f.Close()
	buf := make([]byte, 256)
	n, _ := f.Read(buf)
	return buf[:n]
}

// frozen reports whether somebody has frozen the group.
func (o *ownedGroup) frozen() bool {
	return bytes.Contains(o.read("cgroup.events"), []byte("frozen 1"))
}

// peak returns the most memory that the group has used at once, in bytes; 0 if the kernel does not say (before 5.19).
func (o *ownedGroup) peak() int64 {
	if o == nil {
		return 0
	}
	n, _ := strconv.ParseInt(string(bytes.TrimSpace(o.read("memory.peak"))), 10, 64)
	return n
}

// kill ends all processes of the group (cgroup-v2.rst, cgroup.kill).
func (o *ownedGroup) kill() error {
	if o == nil {
		return nil
	}
	return o.all.write(o.name+"/cgroup.kill", "1")
}

// remove removes the group if no process is in it.
func (o *ownedGroup) remove() {
	if o != nil {
		unix.Unlinkat(o.all.root, o.name, unix.AT_REMOVEDIR)
	}
}
