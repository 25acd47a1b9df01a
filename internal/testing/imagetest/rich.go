package imagetest

import (
	"archive/tar"
	"time"
)

// Rich returns an image of three layers with every kind of file.
func Rich() []Layer {
	su := File("bin/su", "setuid")
	su.Mode, su.Uid, su.Gid = 0o4755, 0, 4
	su.PAXRecords = map[string]string{
		"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20" +
			"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"SCHILY.xattr.user.origin":       "here",
		"SCHILY.xattr.trusted.overlay.x": "dropped",
	}
	sudo := HardLink("bin/sudo", "bin/su")
	sudo.Mode, sudo.Uid, sudo.Gid = su.Mode, su.Uid, su.Gid
	old := File("home/old", "old")
	old.Uid, old.Gid, old.ModTime = 1000, 3000000000, time.Unix(1000000000, 0)
	null := Entry{Header: tar.Header{Typeflag: tar.TypeChar, Name: "dev/null", Mode: 0o666, Devmajor: 1, Devminor: 3}}
	disk := Entry{Header: tar.Header{Typeflag: tar.TypeBlock, Name: "dev/disk", Mode: 0o600, Devmajor: 8, Devminor: 300}}
	fifo := Entry{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "dev/fifo", Mode: 0o600}}
	tmp := Dir("tmp")
	tmp.Mode = 0o1777
	return []Layer{
		Packed(Gzip, Dir("./"), Dir("bin"), su, sudo, Symlink("sbin", "bin"),
			Dir("home"), old, Dir("dev"), null, disk, fifo, tmp,
			File("gone", "1"), Dir("goneDir"), File("goneDir/f", "1"),
			Dir("opaque"), File("opaque/below", "1"), File("becomesDir", "1"), Dir("becomesLink"), File("becomesLink/f", "1")),
		Packed(Gzip, File(".wh.gone", ""), File(".wh.goneDir", ""),
			Dir("opaque"), File("opaque/.wh..wh..opq", ""), File("opaque/above", "2"),
			Dir("becomesDir"), File("becomesDir/f", "2"), Symlink("becomesLink", "home")),
		Packed(Gzip, File("sbin/tool", "through the link"), File("home/old", "new")),
	}
}

// RichListing is what Listing returns of the file system of Rich, in the form of WantListing.
const RichListing = `
		/ directory 0755 0:0
		/becomesDir directory 0755 0:0
		/becomesDir/f regular 0644 0:0 "2"
		/becomesLink symlink 0777 0:0 -> home
		/bin directory 0755 0:0
		/bin/su regular 04755 0:4 "setuid" [user.origin (4) = "here"]` +
	` [security.capability (20) = 01 00 00 02 00 20 00 00 00 00 00 00 00 00 00 00 00 00 00 00 ]
		/bin/sudo = /bin/su
		/bin/tool regular 0644 0:0 "through the link"
		/dev directory 0755 0:0
		/dev/disk block-special 0600 0:0 dev=08:300
		/dev/fifo FIFO 0600 0:0
		/dev/null character-special 0666 0:0 dev=01:03
		/home directory 0755 0:0
		/home/old regular 0644 0:0 "new"
		/opaque directory 0755 0:0
		/opaque/above regular 0644 0:0 "2"
		/sbin symlink 0777 0:0 -> bin
		/tmp directory 01777 0:0
		`
