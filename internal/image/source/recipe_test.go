package source

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banger"
)

// bootstrapBy makes an image by a script in place of mmdebstrap. It returns what the script writes and which steps are
// told.
func bootstrapBy(t *testing.T, ctx context.Context, script string) (out string, told []step, err error) {
	t.Helper()
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "mmdebstrap"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":/usr/bin:/bin")
	r := recipe{"bookworm", []string{"one", "two"}}
	tar, err := r.bootstrap(ctx, "debian-bookworm", t.TempDir(), func(s step) { told = append(told, s) })
	if err != nil {
		t.Fatal(err)
	}
	defer tar.Close()
	p, err := io.ReadAll(tar)
	return string(p), told, err
}

// TestARecipeTellsItsSteps checks what becomes of mmdebstrap's lines. Those that nobody knows are not told.
func TestARecipeTellsItsSteps(t *testing.T) {
	out, told, err := bootstrapBy(t, t.Context(), `echo "$@"
exec >&2
echo 'I: chroot architecture amd64 is equal to the host'"'"'s architecture'
echo 'I: running apt-get update...'
echo 'Get:1 a list'
printf 'I: downloading packages with apt...\n2 upgraded, 2 newly installed, 0 to remove and 1 not upgraded.\n'
printf 'Get:1 one\nGet:'; printf '2 two\nI: extracting archives...\nUnpacking one\n'
printf 'I: installing essential packages...\nSetting up one\nSetting up two\nSetting up a surprise\n'
printf 'I: installing remaining packages inside the chroot...\n0 upgraded, 9 newly installed\nGet:1 n\nSetting up n\n'`)
	if err != nil || !strings.Contains(out, "--include=one,two ") {
		t.Errorf("it is called with %q, %v", out, err)
	}
	first, second := "setting up packages, 1 of 2", "setting up packages, 2 of 2"
	want := []step{{text: "reading package lists"},
		{text: "downloading packages"}, {"downloading packages", 1, 2}, {"downloading packages", 2, 2},
		{text: "unpacking packages"}, {text: first}, {first, 1, 2}, {first, 2, 2}, {first, 2, 2},
		{text: second}, {second, 1, 9}}
	if !slices.Equal(told, want) {
		t.Errorf("told is %v", told)
	}
}

// TestTheGuestsDpkgIsCareful checks that the haste of the making is not left in the image.
func TestTheGuestsDpkgIsCareful(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "etc/dpkg/dpkg.cfg.d/99mmdebstrap")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("force-unsafe-io\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, _, err := bootstrapBy(t, t.Context(), `for o in "$@"; do case $o in
--dpkgopt=*) echo hasty ;;
--customize-hook=*) sh -c "${o#*=}" exec `+dir+` ;;
esac; done`) // as mmdebstrap calls a hook
	if _, stat := os.Stat(file); err != nil || out != "hasty\n" || stat == nil {
		t.Errorf("the file is still there, or the making is slow: %q, %v, %v", out, err, stat)
	}
}

// TestAFailedRecipeSaysWhy checks that the error has mmdebstrap's own last error.
func TestAFailedRecipeSaysWhy(t *testing.T) {
	_, _, err := bootstrapBy(t, t.Context(), "echo 'E: no packages' >&2; echo 'I: cleaning up' >&2; exit 1")
	const want = "debian-bookworm cannot be made: mmdebstrap failed: E: no packages"
	if banger.CodeOf(err) != banger.CodeUnavailable || err.Error() != want {
		t.Errorf("the error is %v", err)
	}
}

// TestMmdebstrapGetsTheProxiesOfTheRequest checks that it runs with these, and with none of this process's own.
func TestMmdebstrapGetsTheProxiesOfTheRequest(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://own:1")
	ctx := banger.WithRegistryAccess(t.Context(), banger.RegistryAccess{HTTPSProxy: "http://theirs:1"})
	out, _, err := bootstrapBy(t, ctx, "env\n")
	env := strings.Split(out, "\n")
	if err != nil || !slices.Contains(env, "https_proxy=http://theirs:1") || strings.Contains(out, "own:1") {
		t.Errorf("its environment is %q, %v", env, err)
	}
}
