package registry

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"banger"
	"banger/internal/testing/registrytest"
)

// three are a registry and two mirrors that all have team/app:v1, under their names in files.
type three struct {
	h    *host
	at   map[string]*registrytest.Server
	fill func(string) string
}

func startThree(t *testing.T) three {
	v := three{h: newHost(t), at: map[string]*registrytest.Server{}}
	var names []string
	for _, n := range []string{"REG", "ONE", "TWO"} {
		s := start(t)
		s.AddImage("team/app", "v1", layer(n))
		v.at[n] = s
		names = append(names, n, s.Addr())
	}
	v.fill = strings.NewReplacer(names...).Replace
	return v
}

// digestAt returns which server has the image with a digest.
func (v three) digestAt(t *testing.T, digest string) string {
	t.Helper()
	for n, s := range v.at {
		if d := s.AddImage("team/app", "v1", layer(n)); d == digest {
			return n
		}
	}
	return "nobody"
}

// TestWhoIsAskedFirst checks files in the forms of docker, podman and containerd, and which server
// then delivers registry.test/team/app:v1, or the image REF if there is one.
func TestWhoIsAskedFirst(t *testing.T) {
	for name, c := range map[string]struct {
		file, content string
		ref, from     string
	}{
		"the server is a host, too": {"etc/containerd/certs.d/REG/hosts.toml",
			"server = \"http://TWO\"\n[host.\"http://ONE\"]\n[host.\"http://TWO\"]\n", "REG/team/app:v1", "ONE"},
		"a comment names a host first": {"etc/containerd/certs.d/REG/hosts.toml",
			"# was [host.\"http://TWO\"]\n[host.\"http://ONE\"]\n[host.\"http://TWO\"]\n", "REG/team/app:v1", "ONE"},
		"hosts in single quotes": {"etc/containerd/certs.d/REG/hosts.toml",
			"[host.'http://ONE']\n[host.\"http://TWO\"]\n", "REG/team/app:v1", "ONE"},
		"hosts in single quotes, the other way": {"etc/containerd/certs.d/REG/hosts.toml",
			"[host.\"http://ONE\"]\n[host.'http://TWO']\n", "REG/team/app:v1", "ONE"},
		"a host that says v2": {"etc/containerd/certs.d/REG/hosts.toml",
			"[host.\"http://ONE/v2\"]\n", "REG/team/app:v1", "ONE"},
		"a host that says v2 and a slash": {"etc/containerd/certs.d/REG/hosts.toml",
			"[host.\"http://ONE/v2/\"]\n", "REG/team/app:v1", "ONE"},
		"a host that says v2 and that this is all": {"etc/containerd/certs.d/REG/hosts.toml",
			"[host.\"http://ONE/v2\"]\noverride_path = true\n", "REG/team/app:v1", "ONE"},
		"a server elsewhere": {"etc/containerd/certs.d/REG/hosts.toml",
			"server = \"http://ONE\"\n", "REG/team/app:v1", "ONE"},
		"a server that says v2": {"etc/containerd/certs.d/REG/hosts.toml",
			"server = \"http://ONE/v2\"\n", "REG/team/app:v1", "ONE"},
		"capabilities in capitals": {"etc/containerd/certs.d/REG/hosts.toml",
			"[host.\"http://ONE\"]\ncapabilities = [\"Pull\", \"Resolve\"]\n", "REG/team/app:v1", "ONE"},
		"registries.conf, the first mirror first": {"etc/containers/registries.conf",
			"[[registry]]\nlocation = \"REG\"\n[[registry.mirror]]\nlocation = \"ONE\"\n[[registry.mirror]]\nlocation = \"TWO\"\n", "REG/team/app:v1", "ONE"},
		"mirrors by digest only, for a tag": {"etc/containers/registries.conf",
			"[[registry]]\nlocation = \"REG\"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = \"ONE\"\n",
			"REG/team/app:v1", "REG"},
		"a domain that is elsewhere": {"etc/containers/registries.conf",
			"[[registry]]\nprefix = \"*.test\"\nlocation = \"ONE\"\n", "registry.test/team/app:v1", "ONE"},
		"a domain with a mirror": {"etc/containers/registries.conf",
			"[[registry]]\nprefix = \"*.test\"\n[[registry.mirror]]\nlocation = \"ONE\"\n", "registry.test/team/app:v1", "ONE"},
		"files of the user": {"home/.config/containers/registries.conf",
			"[[registry]]\nlocation = \"REG\"\n[[registry.mirror]]\nlocation = \"ONE\"\n", "REG/team/app:v1", "ONE"},
		"drop-in files of the user": {"home/.config/containers/registries.conf.d/a.conf",
			"[[registry]]\nlocation = \"REG\"\n[[registry.mirror]]\nlocation = \"ONE\"\n", "REG/team/app:v1", "ONE"},
	} {
		t.Run(name, func(t *testing.T) {
			v := startThree(t)
			v.h.write(v.fill(c.file), v.fill(c.content))
			m, err := v.h.client().Manifest(bg, v.fill(c.ref))
			if err != nil {
				t.Fatal(err)
			}
			if from := v.digestAt(t, m.Digest); from != c.from {
				t.Errorf("%s gave it, not %s", from, c.from)
			}
		})
	}
}

// TestADropInFileReplacesTheMainOne checks that a drop-in file for the same prefix replaces the
// main one.
func TestADropInFileReplacesTheMainOne(t *testing.T) {
	v := startThree(t)
	for file, mirror := range map[string]string{
		"registries.conf":          "TWO",
		"registries.conf.d/1.conf": "REG",
		"registries.conf.d/2.conf": "ONE",
	} {
		v.h.write("etc/containers/"+file,
			v.fill("[[registry]]\nlocation = \"REG\"\n[[registry.mirror]]\nlocation = \""+mirror+"\"\n"))
	}
	m, err := v.h.client().Manifest(bg, v.fill("REG/team/app:v1"))
	if err != nil {
		t.Fatal(err)
	}
	if from := v.digestAt(t, m.Digest); from != "ONE" {
		t.Errorf("%s gave it", from)
	}
}

// TestMirrorsThatFail checks that the registry is asked last, whatever is wrong with a mirror.
func TestMirrorsThatFail(t *testing.T) {
	for name, fail := range map[string]func(s *registrytest.Server, h *host){
		"it answers 500": func(s *registrytest.Server, _ *host) {
			s.FailNext(registrytest.Manifest, 100, 500, nil)
		},
		"it wants a password":       func(s *registrytest.Server, _ *host) { s.RequireBasic("me", "secret") },
		"it wants another password": wrongPassword,
		"it sends us away": func(s *registrytest.Server, _ *host) {
			s.Redirect(registrytest.Manifest, "http://169.254.169.254")
		},
		"it sends us round": func(s *registrytest.Server, _ *host) { s.Redirect(registrytest.Manifest, s.URL()) },
		"it is closed":      func(s *registrytest.Server, _ *host) { s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			v := startThree(t)
			v.h.write("etc/containers/registries.conf",
				v.fill("[[registry]]\nlocation = \"REG\"\n[[registry.mirror]]\nlocation = \"ONE\"\n"))
			fail(v.at["ONE"], v.h)
			m, err := v.h.client(v.fill("REG/team/app:v1")).Manifest(bg, v.fill("REG/team/app:v1"))
			if err != nil {
				t.Fatal(err)
			}
			if from := v.digestAt(t, m.Digest); from != "REG" {
				t.Errorf("%s gave it", from)
			}
		})
	}
}

func wrongPassword(s *registrytest.Server, h *host) {
	h.write("home/.docker/config.json", auths(s.Addr(), "me", "wrong"))
	s.RequireBasic("me", "secret")
}

// TestAMirrorDoesNotGetTheRegistrysPassword checks that a mirror gets its own password and not the
// registry's.
func TestAMirrorDoesNotGetTheRegistrysPassword(t *testing.T) {
	v := startThree(t)
	v.h.write("etc/containers/registries.conf",
		v.fill("[[registry]]\nlocation = \"REG\"\n[[registry.mirror]]\nlocation = \"ONE\"\n"))
	v.h.write("home/.docker/config.json", auths(v.at["REG"].Addr(), "me", "secret"))
	v.at["ONE"].RequireBasic("me", "secret")
	v.at["REG"].RequireBasic("me", "secret")
	if _, err := v.h.client(v.fill("REG/team/app:v1")).Manifest(bg, v.fill("REG/team/app:v1")); err != nil {
		t.Fatal(err)
	}
	if log := v.at["ONE"].Log(); slices.ContainsFunc(log, func(l string) bool { return strings.HasSuffix(l, "Basic") }) {
		t.Errorf("the mirror got %q", log)
	}
}

// TestABlockedPath checks that a blocked part of a registry does not block the rest.
func TestABlockedPath(t *testing.T) {
	v := startThree(t)
	v.at["REG"].AddImage("other/app", "v1", layer("x"))
	v.h.write("etc/containers/registries.conf",
		v.fill("[[registry]]\nprefix = \"REG/team\"\nlocation = \"REG/team\"\nblocked = true\n"))
	_, err := v.h.client().Manifest(bg, v.fill("REG/team/app:v1"))
	wantCode(t, err, banger.CodeDenied, "is blocked by")
	if _, err := v.h.client().Manifest(bg, v.fill("REG/other/app:v1")); err != nil {
		t.Error(err)
	}
}

// TestHostsAreComparedByLabels checks that a blocked host is blocked in every spelling, and that
// similar names of other hosts are not.
func TestHostsAreComparedByLabels(t *testing.T) {
	for _, c := range []struct {
		prefix, ref string
		blocked     bool
	}{
		{"bad.test", "bad.test/a", true},
		{"bad.test", "BAD.Test/a", true},
		{"bad.test", "bad.test./a", true},
		{"BAD.test", "bad.test/a", true},
		{"bad.test", "bad.test:5000/a", false}, // containers-registries.conf(5): the port is of the name
		{"bad.test:5000", "bad.test.:5000/a", true},
		{"bad.test", "notbad.test/a", false},
		{"bad.test", "bad.test.example/a", false},
		{"*.bad.test", "a.bad.test/a", true},
		{"*.bad.test", "b.a.bad.test/a", true},
		{"*.bad.test", "A.BAD.test./a", true},
		{"*.bad.test", "a.bad.test:5000/a", true},
		{"*.bad.test", "bad.test/a", false},
		{"*.bad.test", "notbad.test/a", false},
		{"bad.test/team", "BAD.test/team/a", true},
		{"bad.test/team", "bad.test/teams/a", false},
	} {
		h := newHost(t)
		h.write("etc/containers/registries.conf",
			fmt.Sprintf("[[registry]]\nprefix = %q\nlocation = %q\nblocked = true\n", c.prefix, "x.test"))
		r, err := parse(c.ref)
		if err != nil {
			t.Fatal(err)
		}
		_, err = h.client().endpoints(r)
		if got := banger.CodeOf(err) == banger.CodeDenied; got != c.blocked {
			t.Errorf("with %s blocked, %s is blocked: %v (%v)", c.prefix, c.ref, got, err)
		}
	}
}
