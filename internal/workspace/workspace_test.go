package workspace

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// sh runs a shell script in a directory, as a user would with an environment of their own.
func sh(t *testing.T, dir, script string) string {
	t.Helper()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// user gives this test a user with a name, whose git knows nothing else.
func user(t *testing.T, more string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gitconfig")
	content := "[user]\n\tname = Ada\n\temail = ada@example.com\n[init]\n\tdefaultBranch = main\n" +
		"[protocol \"file\"]\n\tallow = always\n" + more
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GIT_CONFIG_GLOBAL", path)
	t.Setenv("GIT_CONFIG_NOSYSTEM", "1")
}

// repository makes a repository with the given script.
func repository(t *testing.T, script string) string {
	t.Helper()
	dir := t.TempDir()
	sh(t, dir, "git init -q; "+script)
	return dir
}

// bring plans a workspace, and returns its record and what its file system has, as a directory.
func bring(t *testing.T, home Home, o Options) (*Record, string) {
	t.Helper()
	o.Name, o.Path = "w", "/workspace"
	plan, err := home.Plan(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer plan.Drop()
	f, err := plan.Image(t.Context(), uint32(os.Getuid()), uint32(os.Getgid()))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dir := unpack(t, f)
	if err := plan.Keep("0123456789ab"); err != nil {
		t.Fatal(err)
	}
	return plan.Record, dir
}

// unpack checks a file system with e2fsck and copies its files into a directory with debugfs.
func unpack(t *testing.T, f *os.File) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	sh(t, "/", fmt.Sprintf("cp --sparse=always /proc/%d/fd/%d %s", os.Getpid(), f.Fd(), path))
	sh(t, "/", "PATH=$PATH:/sbin:/usr/sbin; e2fsck -fn "+path)
	dir := t.TempDir()
	sh(t, "/", "PATH=$PATH:/sbin:/usr/sbin; debugfs -R 'rdump / "+dir+"' "+path+" 2>&1")
	os.RemoveAll(filepath.Join(dir, "lost+found"))
	return dir
}

// each calls use for each file below a directory.
func each(t *testing.T, top string, use func(name string)) {
	t.Helper()
	err := filepath.WalkDir(top, func(path string, _ fs.DirEntry, err error) error {
		if path != top {
			use(strings.TrimPrefix(path, top+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// layer returns the tar of what a directory has that another one has not, as the agent sends it.
func layer(t *testing.T, before, after string) *bytes.Buffer {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	gone := map[string]bool{}
	each(t, before, func(name string) {
		if content(filepath.Join(after, name)) != "" {
			return
		}
		if gone[name] = true; !gone[filepath.Dir(name)] {
			w.WriteHeader(&tar.Header{Name: filepath.Join(filepath.Dir(name), ".wh."+filepath.Base(name)),
				Typeflag: tar.TypeReg, Format: tar.FormatPAX})
		}
	})
	each(t, after, func(name string) {
		now, was := content(filepath.Join(after, name)), content(filepath.Join(before, name))
		if now == was || now == "dir" {
			return
		}
		h := &tar.Header{Name: name, Mode: 0o644, Typeflag: tar.TypeReg, Format: tar.FormatPAX}
		kind, data, _ := strings.Cut(now, " ")
		switch kind {
		case "link":
			h.Typeflag, h.Linkname, data = tar.TypeSymlink, data, ""
		case "program":
			h.Mode = 0o755
		}
		h.Size = int64(len(data))
		w.WriteHeader(h)
		w.Write([]byte(data))
	})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &out
}

// content returns what a file is, in one string, or "".
func content(at string) string {
	st, err := os.Lstat(at)
	switch {
	case err != nil:
		return ""
	case st.Mode()&fs.ModeSymlink != 0:
		target, _ := os.Readlink(at)
		return "link " + target
	case st.IsDir():
		return "dir"
	}
	data, _ := os.ReadFile(at)
	if st.Mode()&0o100 != 0 {
		return "program " + string(data)
	}
	return "file " + string(data)
}

// capture works on a copy of what the guest has, and takes the changes.
func capture(t *testing.T, home Home, r *Record, lower, script string) *Capture {
	t.Helper()
	upper := filepath.Join(t.TempDir(), "work")
	sh(t, "/", "cp -a "+lower+" "+upper)
	sh(t, upper, script)
	c, err := home.Capture(t.Context(), r, layer(t, lower, upper))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// files lists a directory without repositories, one line for each file.
func files(t *testing.T, dir string) string {
	t.Helper()
	var list strings.Builder
	each(t, dir, func(name string) {
		if now := content(filepath.Join(dir, name)); now != "dir" && !strings.HasPrefix(name+"/", ".git/") &&
			!strings.Contains(name+"/", "/.git/") {
			fmt.Fprintf(&list, "%q %q\n", name, now)
		}
	})
	return list.String()
}

// TestARepositoryComesAsItIs: the guest gets what git tracks, with the changes that are not committed, and a
// repository of its own in which git sees the same state.
func TestARepositoryComesAsItIs(t *testing.T) {
	user(t, "")
	repo := repository(t, `mkdir sub; echo one >a; echo two >sub/b; printf 'x\000y' >bin; echo run >run; chmod 755 run
		ln -s sub/b link; ln -s /nowhere dangling; echo odd >"$(printf 'odd\nname')"; echo bytes >"$(printf 'by\377te')"
		echo 'ignored' >.gitignore; echo secret >ignored; echo kept >kept; echo gone >gone
		git add .; git commit -qm first; echo more >>a; git commit -qam second
		echo changed >>sub/b; git rm -q gone; echo new >staged; git add staged; echo later >>staged; echo loose >untracked
		chmod 755 kept`)
	home := Home{t.TempDir()}
	record, lower := bring(t, home, Options{Source: filepath.Join(repo, "sub"), Depth: 50})
	sh(t, repo, "rm ignored untracked")
	if got, want := files(t, lower), files(t, repo); got != want {
		t.Errorf("the guest has\n%s\nand the host\n%s", got, want)
	}
	for _, ask := range []string{"git status --porcelain", "git log --format=%H%an%s", "git diff --cached",
		"git rev-parse HEAD", "git symbolic-ref HEAD", "git fsck --strict 2>&1"} {
		if got, want := sh(t, lower, ask), sh(t, repo, ask); got != want {
			t.Errorf("%s says in the guest\n%s\nand on the host\n%s", ask, got, want)
		}
	}
	if record.Source != repo || record.Branch != "main" || record.Lower == "" || record.Lower != record.Baseline {
		t.Errorf("the record is %+v", record)
	}
	if again, err := home.Get(record.ID); err != nil || again.Lower != record.Lower {
		t.Errorf("the stored record is %+v, %v", again, err)
	}
}

// TestTheChangesComeOut as a list, as a patch that git takes, and as a branch.
func TestTheChangesComeOut(t *testing.T) {
	user(t, "")
	repo := repository(t, `mkdir d; for f in a b c d/e d/f; do seq 1 20 >$f; done; git add .; git commit -qm first
		echo dirty >>c`)
	home := Home{t.TempDir()}
	record, lower := bring(t, home, Options{Source: repo, Depth: 50})
	c := capture(t, home, record, lower, `sed -i s/^5$/five/ a; git rm -q b
		git -c user.name=Eve -c user.email=eve@example.com commit -qm 'work of the guest' -a
		echo loose >new; printf 'b\000in' >binary; rm -r d; mkdir d; echo g >d/g; chmod 755 a; ln -s a l`)
	changes, err := c.Changes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, ch := range changes {
		list = append(list, ch.Status+" "+ch.Path)
	}
	if got, want := strings.Join(list, "\n"), "M\ta\nD\tb"; !strings.HasPrefix(strings.ReplaceAll(got, " ", "\t"), want) {
		t.Errorf("the changes are\n%s", got)
	}
	var patch bytes.Buffer
	if err := c.Patch(t.Context(), &patch, false); err != nil {
		t.Fatal(err)
	}
	state := "git rev-parse HEAD; git status --porcelain; cat .git/config; md5sum .git/index"
	before := sh(t, repo, state)
	e, err := c.Export(t.Context(), "from-guest", false)
	if err != nil {
		t.Fatal(err)
	}
	if after := sh(t, repo, state); after != before {
		t.Errorf("the repository was\n%s\nand is\n%s", before, after)
	}
	if got := sh(t, repo, "git log --format='%an %s' from-guest; git fsck --strict 2>&1"); got !=
		"Ada Uncommitted changes of workspace w\nEve work of the guest\nAda first\n" {
		t.Errorf("the branch is\n%s", got)
	}
	if e.Commits != 1 || !e.Remaining {
		t.Errorf("the export says %+v", e)
	}
	if _, err := c.Export(t.Context(), "from-guest", false); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("the branch again: %v", err)
	}
	if _, err := c.Export(t.Context(), "main", true); err == nil || !strings.Contains(err.Error(), "checked out") {
		t.Errorf("the branch that is checked out: %v", err)
	}
	if err := os.WriteFile(filepath.Join(repo, ".git/the.patch"), patch.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	sh(t, repo, "git apply .git/the.patch; git add -A; test $(git write-tree) = $(git rev-parse from-guest^{tree})")
}

// TestPull merges the guest's changes with those that the host has made meanwhile, or changes nothing.
func TestPull(t *testing.T) {
	user(t, "")
	repo := repository(t, `for f in a b c; do seq 1 20 >$f; done; git add .; git commit -qm first`)
	home := Home{t.TempDir()}
	record, lower := bring(t, home, Options{Source: repo, Depth: 50})
	sh(t, repo, "sed -i s/^1$/host/ a; echo host >h; chmod 600 b")
	c := capture(t, home, record, lower, `sed -i s/^20$/guest/ a; echo x >>b; rm c; mkdir .vscode
		echo {} >.vscode/tasks.json; ln -s /etc/passwd p`)
	p, err := c.Pull(t.Context())
	if err != nil || len(p.Conflicts) > 0 {
		t.Fatalf("%v, %+v", err, p)
	}
	if len(p.Hazards) != 2 {
		t.Errorf("the hazards are %+v", p.Hazards)
	}
	state := "md5sum .git/index; find .git/objects | sort"
	before := sh(t, repo, state)
	if err := p.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now := sh(t, repo, state); now != before {
		t.Error("the index or the objects have changed")
	}
	if got := sh(t, repo, "head -n 1 a; tail -n 1 a; tail -n 1 b; stat -c %a b; ls -A; readlink p"); got !=
		"host\nguest\nx\n600\n.git\n.vscode\na\nb\nh\np\n/etc/passwd\n" {
		t.Errorf("the tree is\n%s", got)
	}

	sh(t, repo, "git checkout -q -f .; rm -rf .vscode p; sed -i s/^20$/other/ a; echo there >new")
	before = files(t, repo)
	c = capture(t, home, record, lower, `sed -i s/^20$/guest/ a; echo x >>b; echo y >new`)
	p, err = c.Pull(t.Context())
	if err != nil || len(p.Conflicts) != 1 || p.Conflicts[0].Path != "a" {
		t.Fatalf("%v, %+v", err, p.Conflicts)
	}
	if err := p.Apply(t.Context()); err == nil {
		t.Error("a pull with conflicts was applied")
	}
	if after := files(t, repo); after != before {
		t.Errorf("the tree was\n%s\nand is\n%s", before, after)
	}
	sh(t, repo, "git checkout -q -f a")
	if p, err = c.Pull(t.Context()); err != nil || len(p.Conflicts) != 1 || p.Conflicts[0].Path != "new" {
		t.Fatalf("an untracked file in the way: %v, %+v", err, p.Conflicts)
	}
}
