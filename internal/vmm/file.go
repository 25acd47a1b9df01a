package vmm

import "os"

// OpenFiles returns a copy of c in which the kernel, the initramfs and the disks are open. It opens
// those that are not open yet. The caller calls done once the VMM has them; done closes what
// OpenFiles opened.
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
		c.Drives[i].Base = append([]Layer(nil), d.Base...)
		for k, l := range d.Base {
			c.Drives[i].Base[k].File = open(l.File, l.Path, os.O_RDONLY)
		}
	}
	if err != nil {
		done()
	}
	return c, done, err
}

// DriveFiles returns the number of the files of all drives.
func (c Config) DriveFiles() int {
	n := len(c.Drives)
	for _, d := range c.Drives {
		n += len(d.Base)
	}
	return n
}

// WithFiles returns c with all its files but those of From, in the order of Files. next returns the next file, whose
// name is path.
func (c Config) WithFiles(next func(path string) *os.File) Config {
	c.KernelFile, c.InitrdFile = next(c.Kernel), next(c.Initrd)
	c.Drives = append([]Drive(nil), c.Drives...)
	for i, d := range c.Drives {
		c.Drives[i].File = next(d.Path)
		c.Drives[i].Base = append([]Layer(nil), d.Base...)
		for k, l := range d.Base {
			c.Drives[i].Base[k].File = next(l.Path)
		}
	}
	return c
}

// flag returns the flag with which the disk is opened.
func (d Drive) flag() int {
	if d.ReadOnly {
		return os.O_RDONLY
	}
	return os.O_RDWR
}

// Files returns the open files of c: the kernel, the initramfs, each disk with what is beneath it, and those of From.
func (c Config) Files() []*os.File {
	files := []*os.File{c.KernelFile, c.InitrdFile}
	for _, d := range c.Drives {
		files = append(files, d.File)
		for _, l := range d.Base {
			files = append(files, l.File)
		}
	}
	if c.From != nil {
		files = append(files, c.From.Files()...)
	}
	return files
}

// statFile returns what stat says about file, or about path if file is nil.
func statFile(path string, file *os.File) (os.FileInfo, error) {
	if file != nil {
		return file.Stat()
	}
	return os.Stat(path)
}
