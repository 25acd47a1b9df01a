package boot

import (
	"errors"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
)

// The files in which distributions keep what their programs trust. Programs read the
// bundles; the distribution's own command makes the bundles from the anchors.
var (
	trustBundles = []string{
		"etc/ssl/certs/ca-certificates.crt",                // Debian, Ubuntu, Alpine, Gentoo
		"etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Fedora, RHEL
		"etc/pki/tls/certs/ca-bundle.crt",                  // RHEL before 7
		"var/lib/ca-certificates/ca-bundle.pem",            // SUSE
		"etc/ca-certificates/extracted/tls-ca-bundle.pem",  // Arch
		"etc/ssl/cert.pem",                                 // Alpine without its package
	}
	trustAnchors = []string{
		"usr/local/share/ca-certificates",          // Debian, Ubuntu, Alpine
		"etc/pki/ca-trust/source/anchors",          // Fedora, RHEL
		"etc/pki/trust/anchors",                    // SUSE
		"etc/ca-certificates/trust-source/anchors", // Arch
	}
	// OpenSSL's own default besides its directory (SSL_CTX_set_default_verify_paths(3)).
	opensslDirs = []string{"usr/lib/ssl", "etc/ssl"}
)

const (
	anchorName = "banger.crt"
	trustBegin = "# What follows was given by the host (banger --ca).\n"
	trustEnd   = "# End of what was given by the host.\n"

	maxBundle = 16 << 20 // bytes
)

// trust adds certificates in PEM to the image's trust stores. It replaces what an
// earlier boot has added, or removes that if certificates is "".
func (r rootDir) trust(certificates string) error {
	if certificates == "" && !r.exists(strings.TrimPrefix(guest.ExtraCA, "/")) { // no boot has added any
		return nil
	}
	var errs []error
	found := ""
	for _, name := range trustBundles {
		old, ok, err := r.readBundle(name, unix.O_NOFOLLOW) // the target of a symlink is in the list itself
		if err != nil || !ok {
			errs = append(errs, err)
			continue
		}
		if found == "" {
			found = name
		}
		if text := withBlock(old, certificates); text != old {
			errs = append(errs, r.writeFile(name, text))
		}
	}
	if certificates == "" {
		return errors.Join(errs...)
	}
	if found == "" { // there is no bundle, or a symlink to elsewhere
		found = trustBundles[0]
		old, _, err := r.readBundle(found, 0)
		errs = append(errs, err, r.writeFile(found, withBlock(old, certificates)))
	}
	for _, dir := range trustAnchors {
		if r.isDir(dir) {
			errs = append(errs, r.writeFile(path.Join(dir, anchorName), certificates))
		}
	}
	for _, dir := range opensslDirs {
		if name := path.Join(dir, "cert.pem"); r.isDir(dir) && !r.exists(name) {
			errs = append(errs, r.symlink("/"+found, name))
		}
	}
	return errors.Join(append(errs, r.writeFile(strings.TrimPrefix(guest.ExtraCA, "/"), certificates))...)
}

// withBlock returns a bundle with our part replaced by certificates.
func withBlock(bundle, certificates string) string {
	if before, rest, ok := strings.Cut(bundle, trustBegin); ok {
		_, after, _ := strings.Cut(rest, trustEnd)
		bundle = before + after
	}
	if certificates == "" || strings.Contains(bundle, strings.TrimSpace(certificates)) {
		return bundle
	}
	if bundle != "" && !strings.HasSuffix(bundle, "\n") {
		bundle += "\n"
	}
	return bundle + trustBegin + certificates + trustEnd
}

// readBundle reads a regular file. It returns false if there is none of at most maxBundle bytes.
func (r rootDir) readBundle(name string, flags int) (text string, ok bool, err error) {
	fd, err := r.open(name, unix.O_RDONLY|unix.O_NONBLOCK|flags)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		return "", false, nil
	}
	if err != nil {
		return "", false, &os.PathError{Op: "open", Path: "/" + name, Err: err}
	}
	f := os.NewFile(uintptr(fd), "/"+name)
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() > maxBundle {
		return "", false, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxBundle))
	return string(data), err == nil, err
}

func (r rootDir) isDir(name string) bool {
	fd, err := r.open(name, unix.O_PATH|unix.O_DIRECTORY)
	if err == nil {
		unix.Close(fd)
	}
	return err == nil
}

func (r rootDir) exists(name string) bool {
	fd, err := r.open(name, unix.O_PATH|unix.O_NOFOLLOW)
	if err == nil {
		unix.Close(fd)
	}
	return err == nil
}

func (r rootDir) symlink(target, name string) error {
	parent, base := path.Split(name)
	dir, err := r.open(parent, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if err := unix.Symlinkat(target, dir, base); err != nil {
		return &os.LinkError{Op: "symlink", Old: target, New: "/" + name, Err: err}
	}
	return nil
}
