package boot

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestAliasesOfModules(t *testing.T) {
	file := filepath.Join(t.TempDir(), "modules.alias")
	text := "# Aliases extracted from modules themselves.\nalias rtnl-link-dummy dummy\nalias fs-ext2 ext4\n" +
		"alias pci:v00001AF4d*sv*sd* virtio_pci\nalias net-pf-16-proto-4-type-* inet_diag\nalias fs-ext2 ext2\nalias x\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]string{
		"rtnl-link-dummy":          {"dummy"},
		"rtnl_link_dummy":          {"dummy"},
		"fs-ext2":                  {"ext4", "ext2"},
		"pci:v00001AF4d1sv2sd3":    {"virtio_pci"},
		"net-pf-16-proto-4-type-6": {"inet_diag"},
		"net-pf-16-proto-4":        nil,
		"[":                        nil,
		"":                         nil,
	} {
		if got, err := aliased(file, name); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q is %q, %v", name, got, err)
		}
	}
	if got, err := aliased(file+"none", "x"); err != nil || got != nil {
		t.Errorf("without a list: %q, %v", got, err)
	}
}

func TestTheKernelsRequestIsKnown(t *testing.T) {
	for want, lists := range map[bool][][]string{
		true:  {{"/proc/1/exe", "-q", "--", "dummy"}},
		false: {{"/init"}, {"/proc/1/exe"}, {"/proc/1/exe", "-q", "--"}, {"x", "-q", "--", "dummy"}},
	} {
		for _, args := range lists {
			if got := IsModprobe(args); got != want {
				t.Errorf("%q: %v", args, got)
			}
		}
	}
}
