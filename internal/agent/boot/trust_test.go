package boot

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	ownCA   = "-----BEGIN CERTIFICATE-----\nb3du\n-----END CERTIFICATE-----\n"
	otherCA = "-----BEGIN CERTIFICATE-----\nb3RoZXI=\n-----END CERTIFICATE-----\n"
)

// TestTrustOfEachFamily gives images of each family, as their packages lay them out,
// a certificate, and looks at what programs then read.
func TestTrustOfEachFamily(t *testing.T) {
	for family, c := range map[string]struct {
		files   map[string]string // "-> TARGET": a symlink; "/": a directory
		bundle  string
		anchor  string
		openssl string // where OpenSSL's default then leads
	}{
		"Debian": {map[string]string{"etc/ssl/certs/ca-certificates.crt": otherCA, "usr/local/share/ca-certificates": "/",
			"usr/lib/ssl/certs": "-> /etc/ssl/certs"},
			"etc/ssl/certs/ca-certificates.crt", "usr/local/share/ca-certificates/banger.crt", "usr/lib/ssl/cert.pem"},
		"Debian without ca-certificates": {map[string]string{"etc/ssl": "/"}, "etc/ssl/certs/ca-certificates.crt", "",
			"etc/ssl/cert.pem"},
		"Alpine": {map[string]string{"etc/ssl/certs/ca-certificates.crt": otherCA,
			"etc/ssl/cert.pem": "-> certs/ca-certificates.crt", "usr/local/share/ca-certificates": "/"},
			"etc/ssl/certs/ca-certificates.crt", "usr/local/share/ca-certificates/banger.crt", "etc/ssl/cert.pem"},
		"Fedora": {map[string]string{"etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem": otherCA,
			"etc/pki/tls/certs/ca-bundle.crt": "-> /etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
			"etc/ssl/certs":                   "-> /etc/pki/tls/certs", "etc/pki/ca-trust/source/anchors": "/"},
			"etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "etc/pki/ca-trust/source/anchors/banger.crt", ""},
		"SUSE": {map[string]string{"var/lib/ca-certificates/ca-bundle.pem": otherCA, "etc/pki/trust/anchors": "/"},
			"var/lib/ca-certificates/ca-bundle.pem", "etc/pki/trust/anchors/banger.crt", ""},
		"Arch": {map[string]string{"etc/ca-certificates/extracted/tls-ca-bundle.pem": otherCA,
			"etc/ssl/certs/ca-certificates.crt":        "-> ../../ca-certificates/extracted/tls-ca-bundle.pem",
			"etc/ca-certificates/trust-source/anchors": "/"},
			"etc/ca-certificates/extracted/tls-ca-bundle.pem", "etc/ca-certificates/trust-source/anchors/banger.crt",
			"etc/ssl/cert.pem"},
		"a bundle elsewhere": {map[string]string{"store/bundle": otherCA,
			"etc/ssl/certs/ca-certificates.crt": "-> /store/bundle"}, "etc/ssl/certs/ca-certificates.crt", "", ""},
		"nothing at all": {nil, "etc/ssl/certs/ca-certificates.crt", "", ""},
	} {
		t.Run(family, func(t *testing.T) {
			r := rootDir(layOut(t, c.files))
			for range 2 { // two boots
				if err := r.trust(ownCA); err != nil {
					t.Fatal(err)
				}
			}
			text := read(t, r, c.bundle)
			if strings.Count(text, ownCA) != 1 || len(c.files) > 1 && !strings.Contains(text, otherCA) {
				t.Errorf("the bundle is\n%s", text)
			}
			if c.anchor != "" && read(t, r, c.anchor) != ownCA {
				t.Error("the anchor is missing")
			}
			if c.openssl != "" && !strings.Contains(read(t, r, c.openssl), ownCA) {
				t.Error("OpenSSL's default does not lead there")
			}
			if read(t, r, "etc/ssl/banger.pem") != ownCA {
				t.Error("the file of its own is missing")
			}
			if err := r.trust(otherCA + "\n"); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(read(t, r, c.bundle), ownCA) {
				t.Error("what was given before is trusted still")
			}
		})
	}
}

// TestTrustIsGoneWithoutCertificates: a VM that is given none again trusts what its
// image does.
func TestTrustIsGoneWithoutCertificates(t *testing.T) {
	r := rootDir(layOut(t, map[string]string{"etc/ssl/certs/ca-certificates.crt": otherCA}))
	for _, ca := range []string{ownCA, ""} {
		if err := r.trust(ca); err != nil {
			t.Fatal(err)
		}
	}
	if text := read(t, r, "etc/ssl/certs/ca-certificates.crt"); text != otherCA {
		t.Errorf("the bundle is\n%s", text)
	}
}

// TestTrustStaysInRoot: an image cannot have the agent write elsewhere.
func TestTrustStaysInRoot(t *testing.T) {
	outside := t.TempDir()
	r := rootDir(layOut(t,
		map[string]string{"etc/ssl": "-> ../../../../../../.." + outside, "etc/ca-certificates": "-> " + outside}))
	r.trust(ownCA) // it may fail
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("outside there is %v, %v", entries, err)
	}
}

func layOut(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if target, ok := strings.CutPrefix(text, "-> "); ok && err == nil {
			err = os.Symlink(target, path)
		} else if text == "/" && err == nil {
			err = os.MkdirAll(path, 0o755)
		} else if err == nil {
			err = os.WriteFile(path, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// read reads a file as a program in the image would.
func read(t *testing.T, r rootDir, name string) string {
	t.Helper()
	text, ok, err := r.readBundle(name, 0)
	if err != nil || !ok {
		t.Fatalf("/%s: %v, %v", name, ok, err)
	}
	return text
}
