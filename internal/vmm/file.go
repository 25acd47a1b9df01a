package vmm

import "os"

// OpenFiles opens the kernel, the initramfs and the disks of c that are not open yet. The
// caller calls done when the VMM has them.
func (c Config) OpenFiles() (opened Config, done func(), err error) {
	var ours []*os.File
	done = func() {
		for _, f := range ours {
			f.Close()
		}
	}
	open := func(have *os.File, path string, flag int) *os.File {
		if have != nil || err != nil {
			return have
		}
		var f *os.File
		if f, err = os.OpenFile(path, flag, 0); err == nil {
			ours = append(ours, f)
		}
		return f
	}
	c.KernelFile = open(c.KernelFile, c.Kernel, os.O_RDONLY)
	c.InitrdFile = open(c.InitrdFile, c.Initrd, os.O_RDONLY)
	c.Drives = append([]Drive(nil), c.Drives...)
	for i, d := range c.Drives {
		c.Drives[i].File = open(d.File, d.Path, d.flag())
	}
	if err != nil {
		done()
	}
	return c, done, err
}

// flag is how a disk is opened.
func (d Drive) flag() int {
	if d.ReadOnly {
		return os.O_RDONLY
	}
	return os.O_RDWR
}

// Files are the files of c that are open, in the order in which OpenFiles opens them.
func (c Config) Files() []*os.File {
	files := []*os.File{c.KernelFile, c.InitrdFile}
	for _, d := range c.Drives {
		files = append(files, d.File)
	}
	return files
}

// statFile tells about a file, which is open or not.
func statFile(path string, file *os.File) (os.FileInfo, error) {
	if file != nil {
		return file.Stat()
	}
	return os.Stat(path)
}
