package workspace

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// sameInGit checks that git sees the same state in the guest's copy as on the host.
func sameInGit(t *testing.T, repo, lower string, ask ...string) {
	t.Helper()
	ask = append(ask, "git status --porcelain", "git rev-parse HEAD", "git fsck --strict --no-dangling 2>&1")
	for _, ask := range ask {
		if got, want := sh(t, lower, ask), sh(t, repo, ask); got != want {
			t.Errorf("%s says in the guest\n%s\nand on the host\n%s", ask, got, want)
		}
	}
}

// TestKindsOfRepositories brings each in, changes it there, and takes the changes home as a branch.
func TestKindsOfRepositories(t *testing.T) {
	user(t, "")
	for name, tt := range map[string]struct{ make, dir, change, want string }{
		"sha256":        {`git init -q --object-format=sha256 .; echo a >a; git add .; git commit -qm first`, ".", `echo b >>a`, "M\ta"},
		"a worktree":    {`git init -q main; cd main; echo a >a; git add .; git commit -qm first; git worktree add -q ../side -b side; echo s >>../side/a`, "side", `echo b >>a`, "M\ta"},
		"sparse":        {`git init -q .; mkdir in out; echo a >in/a; echo b >out/b; git add .; git commit -qm first; git sparse-checkout set --cone in`, ".", `echo b >>in/a`, "M\tin/a"},
		"no commit yet": {`git init -q .; echo a >a; git add .`, ".", `echo b >>a`, "A\ta"},
		"detached":      {`git init -q .; echo a >a; git add .; git commit -qm first; git checkout -q --detach`, ".", `echo b >>a`, "M\ta"},
		"a split index": {`git init -q .; echo a >a; git add .; git commit -qm first; git update-index --split-index; echo c >c; git add c`, ".", `echo b >>a`, "M\ta\nA\tc"},
		"assumed unchanged": {`git init -q .; echo a >a; echo x >x; git add .; git commit -qm first; git update-index --assume-unchanged a; echo changed >a`,
			".", `echo b >>x`, "M\ta\nM\tx"},
		"intent to add": {`git init -q .; echo a >a; git add .; git commit -qm first; echo b >b; git add -N b`, ".",
			`echo b >>a`, "M\ta\nA\tb"},
		"a conflict": {`git init -q .; echo a >a; git add .; git commit -qm first; git checkout -qb other; echo o >a
			git commit -qam o; git checkout -q main; echo m >a; git commit -qam m; git merge -q other >/dev/null 2>&1 || true`,
			".", `echo merged >a`, "M\ta"},
		"a new directory": {`git init -q .; echo a >a; git add .; git commit -qm first; mkdir d; echo d >d/d`, ".",
			`mkdir -p e/f; echo f >e/f/g; mkdir empty; ln -s e/f l; chmod 755 a`, "M\ta\nA\te/f/g\nA\tl"},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			sh(t, top, tt.make)
			repo := filepath.Join(top, tt.dir)
			home := Home{t.TempDir()}
			record, lower := bring(t, home, Options{Source: repo, Depth: 50})
			if name != "no commit yet" && name != "assumed unchanged" && name != "a new directory" {
				sameInGit(t, repo, lower)
			}
			c := capture(t, home, record, lower, tt.change)
			e, err := c.Export(t.Context(), "from-guest", false)
			if err != nil {
				t.Fatal(err)
			}
			base := "HEAD"
			if name == "no commit yet" {
				base = "$(git hash-object -t tree /dev/null)"
			}
			if got := strings.TrimSpace(sh(t, repo, "git diff --name-status --no-renames "+base+" from-guest")); got != tt.want {
				t.Errorf("the branch changes\n%s\nnot\n%s", got, tt.want)
			}
			if !e.Remaining {
				t.Errorf("the export says %+v", e)
			}
		})
	}
}

// TestLineEnds: the guest gets the bytes of the working tree, and the branch the bytes that git keeps.
func TestLineEnds(t *testing.T) {
	for name, settings := range map[string]string{"autocrlf": "[core]\n\tautocrlf = true\n", "attributes": ""} {
		t.Run(name, func(t *testing.T) {
			user(t, settings)
			repo := repository(t, `printf 'one\ntwo\n' >a; printf 'x\000\r\n' >b; printf 'one\n' >c
				[ '`+name+`' = autocrlf ] || echo '*.txt text eol=crlf' >.gitattributes; cp a d.txt; cp c e.txt
				git add .; git commit -qm first 2>/dev/null; rm *; git checkout -q .; git status --porcelain`)
			home := Home{t.TempDir()}
			record, lower := bring(t, home, Options{Source: repo, Depth: 50})
			if got, want := files(t, lower), files(t, repo); got != want || !strings.Contains(got, `one\r\n`) {
				t.Errorf("the guest has\n%s\nand the host\n%s", got, want)
			}
			sameInGit(t, repo, lower)
			c := capture(t, home, record, lower, `printf 'three\r\n' >>d.txt`)
			if _, err := c.Export(t.Context(), "from-guest", false); err != nil {
				t.Fatal(err)
			}
			if got := sh(t, repo, "git diff --stat=80 HEAD from-guest; git cat-file blob from-guest:d.txt | od -c | head -3"); !strings.Contains(got, "1 file changed, 1 insertion(+)\n") || strings.Contains(got, `\r`) {
				t.Errorf("the branch is\n%s", got)
			}
		})
	}
}

// TestSubmodules: their files come in and go out by pull. A branch keeps the commits that it had.
func TestSubmodules(t *testing.T) {
	user(t, "")
	inner := repository(t, `echo inner >i; git add .; git commit -qm inner`)
	middle := repository(t, `echo middle >m; git submodule -q add `+inner+` in; git add .; git commit -qm middle`)
	repo := repository(t, `echo outer >o; git submodule -q add `+middle+` lib; git submodule -q update --init --recursive
		git submodule -q add `+inner+` absent; git add .; git commit -qm outer; git submodule -q deinit -f absent
		echo dirty >>lib/in/i`)
	home := Home{t.TempDir()}
	record, lower := bring(t, home, Options{Source: repo, Depth: 50})
	got := sh(t, lower, "cat lib/m lib/in/i; ls -A absent; cat .gitmodules")
	if got != "middle\ninner\ndirty\n"+sh(t, repo, "cat .gitmodules") {
		t.Errorf("the guest has\n%s", got)
	}
	if got := sh(t, lower, "git status --porcelain"); got != "" {
		t.Errorf("git says in the guest\n%s", got)
	}
	c := capture(t, home, record, lower, `echo more >>lib/in/i; echo more >>o`)
	e, err := c.Export(t.Context(), "from-guest", false)
	if err != nil {
		t.Fatal(err)
	}
	if got := sh(t, repo, "git diff --name-only HEAD from-guest"); got != "o\n" || len(e.Modules) != 1 {
		t.Errorf("the branch changes %q, %+v", got, e)
	}
	p, err := c.Pull(t.Context())
	if err != nil || len(p.Conflicts) > 0 || p.Apply(t.Context()) != nil {
		t.Fatalf("%v, %+v", err, p)
	}
	got = sh(t, repo, "cat lib/in/i o; git -C lib/in status --porcelain")
	if got != "inner\ndirty\nmore\nouter\nmore\n M i\n" {
		t.Errorf("the host has\n%s", got)
	}
}

// TestFilesOfGitLFS come as they are in the working tree, and a changed one goes home as Git LFS keeps it.
func TestFilesOfGitLFS(t *testing.T) {
	if out, err := exec.Command("git", "lfs", "version").CombinedOutput(); err != nil {
		t.Fatalf("git-lfs is needed: %v %s", err, out)
	}
	user(t, "[filter \"lfs\"]\n\tclean = git-lfs clean -- %f\n\tsmudge = git-lfs smudge -- %f\n\tprocess = git-lfs filter-process\n\trequired = true\n")
	repo := repository(t, `echo '*.big filter=lfs diff=lfs merge=lfs -text' >.gitattributes; seq 1 5000 >a.big; seq 1 9 >b.big
		git add .; git commit -qm first; git status --porcelain`)
	home := Home{t.TempDir()}
	record, lower := bring(t, home, Options{Source: repo, Depth: 50})
	if got, want := files(t, lower), files(t, repo); got != want {
		t.Errorf("the guest has other files than the host")
	}
	c := capture(t, home, record, lower, `seq 1 7000 >a.big`)
	if _, err := c.Export(t.Context(), "from-guest", false); err != nil {
		t.Fatal(err)
	}
	if got := sh(t, repo, "git diff --name-only HEAD from-guest; git checkout -q from-guest; tail -n 1 a.big b.big; git lfs fsck"); !strings.Contains(got, "a.big\n") || !strings.Contains(got, "7000\n") || !strings.Contains(got, "Git LFS fsck OK") {
		t.Errorf("the host has\n%s", got)
	}
}

// TestADirectoryThatIsNoRepository comes and goes by its files.
func TestADirectoryThatIsNoRepository(t *testing.T) {
	user(t, "")
	dir := t.TempDir()
	sh(t, dir, `mkdir -p d/e empty; echo a >a; echo b >d/e/b; ln -s a l; printf 'odd' >"$(printf 'o\nd')"`)
	home := Home{t.TempDir()}
	record, lower := bring(t, home, Options{Source: dir})
	if got, want := sh(t, lower, "find . | sort"), sh(t, dir, "find . | sort"); got != want {
		t.Errorf("the guest has\n%s\nand the host\n%s", got, want)
	}
	c := capture(t, home, record, lower, `echo a2 >a; rm -r d; echo n >n`)
	if _, err := c.Export(t.Context(), "x", false); err == nil || !strings.Contains(err.Error(), "without a repository") {
		t.Errorf("a branch: %v", err)
	}
	p, err := c.Pull(t.Context())
	if err != nil || len(p.Conflicts) > 0 || p.Apply(t.Context()) != nil {
		t.Fatalf("%v, %+v", err, p)
	}
	if got := sh(t, dir, "cat a n; ls"); got != "a2\nn\na\nempty\nl\nn\no\nd\n" {
		t.Errorf("the host has\n%s", got)
	}
}

// TestTwentyThousandFiles come in at once, and a few changes come out.
func TestTwentyThousandFiles(t *testing.T) {
	user(t, "")
	if st, err := os.Stat("/dev/shm"); err == nil && st.IsDir() {
		t.Setenv("TMPDIR", "/dev/shm") // files take a millisecond each on some disks
	}
	repo := repository(t, `for d in $(seq 200); do mkdir d$d; for f in 1 2 3 4 5 6 7 8 9 0; do for g in 1 2 3 4 5 6 7 8 9 0; do
		echo $d $f $g >d$d/$f$g; done; done; done; git add .; git commit -qm first; git rm -q --cached -r d1; echo x >d2/11`)
	home := Home{t.TempDir()}
	plan, err := home.Plan(t.Context(), Options{Source: repo, Name: "w", Depth: 50, Untracked: true})
	if err != nil || plan.Files != 20_000 {
		t.Fatalf("%+v, %v", plan, err)
	}
	defer plan.Drop()
	image, err := plan.Image(t.Context(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	got := sh(t, "/", fmt.Sprintf("PATH=$PATH:/sbin:/usr/sbin; e2fsck -fn /proc/%d/fd/%d", os.Getpid(), image.Fd()))
	if !strings.Contains(got, ": 20") { // files and directories
		t.Errorf("the file system has %s", got)
	}
	if err := plan.Keep("0123456789ab"); err != nil {
		t.Fatal(err)
	}
	record := plan.Record
	c, err := home.Capture(t.Context(), record, hostileTar(t, []file{{".wh.d3", 0, ""}, {"d4/11", 0, "y\n"}}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if changes, err := c.Changes(t.Context()); err != nil || len(changes) != 101 {
		t.Errorf("%d changes, %v", len(changes), err)
	}
}

// TestThisRepository comes in and out as it is.
func TestThisRepository(t *testing.T) {
	top, err := exec.Command("git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		t.Skip("this is not a checkout of git")
	}
	user(t, "")
	repo := t.TempDir()
	sh(t, repo, "git clone -q --no-local "+strings.TrimSpace(string(top))+" .; echo more >>README.md")
	home := Home{t.TempDir()}
	record, lower := bring(t, home, Options{Source: repo, Depth: 50})
	if got, want := files(t, lower), files(t, repo); got != want {
		t.Error("the guest has other files than the host")
	}
	sameInGit(t, repo, lower, "git log -20 --format=%H")
	c := capture(t, home, record, lower, `echo more >>LICENSE; rm -r docs/adr`)
	if _, err := c.Export(t.Context(), "from-guest", false); err != nil {
		t.Fatal(err)
	}
	if got := sh(t, repo, "git diff --name-only HEAD from-guest -- README.md LICENSE"); got != "LICENSE\nREADME.md\n" {
		t.Errorf("the branch changes %s", got)
	}
	if got := sh(t, repo, "git ls-tree from-guest docs/adr"); got != "" {
		t.Errorf("the branch has %s", got)
	}
}
