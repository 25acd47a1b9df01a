package registry

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"banger"
	"banger/internal/testing/registrytest"
)

// TestMirrors checks files of the host, with REG and MIR for a registry and its mirror, and which
// of the two is asked for REG/team/app:v1.
func TestMirrors(t *testing.T) {
	for name, c := range map[string]struct {
		file, content string
		mirror        string // repository there; "": it has nothing
		asked         []string
	}{
		"none": {"etc/other", "", "team/app", []string{"REG"}},
		"registries.conf": {"etc/containers/registries.conf",
			"[[registry]]\nlocation = \"REG\"\n[[registry.mirror]]\nlocation = \"MIR\"\ninsecure = true\n", "team/app",
			[]string{"MIR"}},
		"a mirror below a path": {"etc/containers/registries.conf.d/1.conf",
			"[[registry]]\nprefix = \"REG/team\"\nlocation = \"REG/team\"\n[[registry.mirror]]\nlocation = \"MIR/copies\"\n",
			"copies/app", []string{"MIR"}},
		"a mirror without the image": {"etc/containers/registries.conf",
			"[[registry]]\nlocation = \"REG\"\n[[registry.mirror]]\nlocation = \"MIR\"\n", "", []string{"MIR", "REG"}},
		"a mirror that nobody runs": {"etc/containers/registries.conf",
			"[[registry]]\nlocation = \"REG\"\n[[registry.mirror]]\nlocation = \"127.0.0.1:1\"\n", "", []string{"REG"}},
		"only for digests": {"etc/containers/registries.conf",
			"[[registry]]\nlocation = \"REG\"\n[[registry.mirror]]\nlocation = \"MIR\"\npull-from-mirror = \"digest-only\"\n",
			"team/app", []string{"REG"}},
		"the longest prefix": {"etc/containers/registries.conf",
			"[[registry]]\nlocation = \"REG\"\n[[registry.mirror]]\nlocation = \"127.0.0.1:1\"\n[[registry]]\nprefix = \"REG/team\"\nlocation = \"REG/team\"\n[[registry.mirror]]\nlocation = \"MIR/team\"\n", "team/app", []string{"MIR"}},
		"half a name is no prefix": {"etc/containers/registries.conf",
			"[[registry]]\nprefix = \"REG/tea\"\nlocation = \"MIR/tea\"\n", "team/app", []string{"REG"}},
		"another location": {"etc/containers/registries.conf",
			"[[registry]]\nprefix = \"REG/team\"\nlocation = \"MIR/moved\"\n", "moved/app", []string{"MIR"}},
		"hosts.toml": {"etc/containerd/certs.d/REG/hosts.toml",
			"server = \"http://REG\"\n[host.\"http://MIR\"]\ncapabilities = [\"pull\", \"resolve\"]\n", "team/app",
			[]string{"MIR"}},
		"hosts.toml of all": {"etc/containerd/certs.d/_default/hosts.toml",
			"[host.\"http://MIR\"]\n", "team/app", []string{"MIR"}},
		"a host that resolves no tags": {"etc/containerd/certs.d/REG/hosts.toml",
			"[host.\"http://MIR\"]\ncapabilities = [\"pull\"]\n", "team/app", []string{"REG"}},
		"hosts in their order": {"etc/containerd/certs.d/REG/hosts.toml",
			"[host.\"http://MIR\"]\n[host.\"http://127.0.0.1:1\"]\n", "team/app", []string{"MIR"}},
	} {
		t.Run(name, func(t *testing.T) {
			reg, mirror, h := start(t), start(t), newHost(t)
			fill := strings.NewReplacer("REG", reg.Addr(), "MIR", mirror.Addr()).Replace
			reg.AddImage("team/app", "v1", layer("of the registry"))
			if c.mirror != "" {
				mirror.AddImage(c.mirror, "v1", layer("of the mirror"))
			}
			h.write(fill(c.file), fill(c.content))
			if _, err := h.client().Manifest(bg, reg.Ref("team/app", "v1")); err != nil {
				t.Fatal(err)
			}
			var asked []string
			for at, s := range map[string]*registrytest.Server{"MIR": mirror, "REG": reg} {
				if s.Requests(registrytest.Manifest) > 0 {
					asked = append(asked, at)
				}
			}
			slices.Sort(asked)
			if !slices.Equal(asked, c.asked) {
				t.Errorf("%v were asked, not %v", asked, c.asked)
			}
		})
	}
}

func TestABlockedRegistryIsNotAsked(t *testing.T) {
	s, h := start(t), newHost(t)
	h.write("etc/containers/registries.conf", fmt.Sprintf("[[registry]]\nlocation = %q\nblocked = true\n", s.Addr()))
	_, err := h.client().Manifest(bg, s.Ref("a", "v1"))
	wantCode(t, err, banger.CodeDenied, "is blocked by")
	if log := s.Log(); len(log) > 0 {
		t.Errorf("it got %q", log)
	}
}

// TestBrokenFilesAreNamed checks that the error about a mistake in a file names the file.
func TestBrokenFilesAreNamed(t *testing.T) {
	for _, file := range []string{"etc/containers/registries.conf", "etc/containers/registries.conf.d/x.conf",
		"etc/containerd/certs.d/REG/hosts.toml"} {
		t.Run(file, func(t *testing.T) {
			s, h := start(t), newHost(t)
			path := h.write(strings.Replace(file, "REG", s.Addr(), 1), "[[")
			_, err := h.client().Manifest(bg, s.Ref("a", "v1"))
			wantCode(t, err, banger.CodeInvalid, path)
		})
	}
}

// TestContainerdsMirrorIsToldTheRegistry checks that a mirror of containerd gets the name of the
// registry.
func TestContainerdsMirrorIsToldTheRegistry(t *testing.T) {
	mirror, h := start(t), newHost(t)
	mirror.AddImage("library/app", "v1", layer("x"))
	h.write("etc/containerd/certs.d/docker.io/hosts.toml", fmt.Sprintf("[host.%q]\n", mirror.URL()))
	if _, err := h.client().Manifest(bg, "docker.io/library/app:v1"); err != nil {
		t.Fatal(err)
	}
}

// TestAMirrorThatIsWrongIsPassedOver checks that a mirror which delivers something else than
// requested is skipped.
func TestAMirrorThatIsWrongIsPassedOver(t *testing.T) {
	reg, mirror, h := start(t), start(t), newHost(t)
	digest := reg.AddImage("app", "v1", layer("right"))
	mirror.AddManifest("app", digest, "application/vnd.oci.image.manifest.v1+json", []byte("{}"))
	h.write("etc/containers/registries.conf",
		fmt.Sprintf("[[registry]]\nlocation = %q\n[[registry.mirror]]\nlocation = %q\n", reg.Addr(), mirror.Addr()))
	m, err := h.client().Manifest(bg, reg.Addr()+"/app@"+digest)
	if err != nil || m.Digest != digest {
		t.Errorf("%s, %v", m.Digest, err)
	}
}
