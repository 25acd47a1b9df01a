package workspace

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// bait is a repository of a user in which every program that its configuration names, and every hook, leaves a
// canary.
func bait(t *testing.T) (repo, canary string) {
	t.Helper()
	canary = filepath.Join(t.TempDir(), "canary")
	sing := filepath.Join(t.TempDir(), "sing")
	if err := os.WriteFile(sing, []byte("#!/bin/sh\necho \"$0 $*\" >>"+canary+"\ncat\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	user(t, "[core]\n\tfsmonitor = "+sing+"\n\tpager = "+sing+"\n\thooksPath = /nowhere\n[diff]\n\texternal = "+sing+"\n")
	repo = repository(t, `mkdir sub; echo one >a; echo two >sub/b; git add .; git -c core.fsmonitor=false commit -qm first
		for h in pre-commit post-checkout post-merge post-index-change reference-transaction pre-auto-gc post-rewrite \
			update pre-receive post-update fsmonitor-watchman; do cp `+sing+` .git/hooks/$h; done
		for k in filter.x.clean filter.x.smudge filter.x.process diff.x.command diff.x.textconv merge.x.driver \
			core.fsmonitor \
			core.sshCommand core.gitProxy core.askPass core.alternateRefsCommand uploadpack.packObjectsHook gpg.program \
			credential.helper core.editor sequence.editor; do git -c core.fsmonitor=false config $k `+sing+`; done
		git -c core.fsmonitor=false config filter.x.required true
		echo '* filter=x diff=x merge=x' >.git/info/attributes`)
	os.Remove(canary)
	return repo, canary
}

// quiet is git in such a repository without what leaves a canary.
const quiet = "git -c core.fsmonitor=false -c core.hooksPath=/dev/null -c filter.x.smudge= -c filter.x.process= " +
	"-c filter.x.clean= -c filter.x.required=false -c log.showSignature=false "

// file is one entry of a hostile tar.
type file struct {
	name string
	kind byte // 0 is a regular file
	text string
}

func hostileTar(t *testing.T, files []file) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Typeflag: f.kind, Mode: 0o755, Format: tar.FormatPAX}
		switch f.kind {
		case 0:
			h.Typeflag, h.Size = tar.TypeReg, int64(len(f.text))
		case tar.TypeSymlink, tar.TypeLink:
			h.Linkname, f.text = f.text, ""
		default:
			f.text = ""
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatalf("%q: %v", f.name, err)
		}
		io.WriteString(w, f.text)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// TestNothingOfAGuestRuns takes hostile changes all the way: a list, a patch, a branch and a merge. Nothing on this
// host may execute, and nothing outside of the working tree, and nothing in the repository's own directory, may
// change.
func TestNothingOfAGuestRuns(t *testing.T) {
	repo, canary := bait(t)
	home := Home{t.TempDir()}
	record, _ := bring(t, home, Options{Source: repo, Depth: 50})
	outside := t.TempDir()
	run := "#!/bin/sh\ntouch " + canary + "\n"
	config := "[core]\n\tfsmonitor = touch " + canary + "\n\thooksPath = .\n" +
		"[filter \"x\"]\n\tclean = touch " + canary + "\n"
	state := "find .git -type f ! -path '.git/objects/*' ! -name from-guest | sort | xargs md5sum; cat .git/HEAD"
	for name, files := range map[string][]file{
		"paths": {{"../x", 0, run}, {"/x", 0, run}, {"a/../../x", 0, run}, {"./x/./y", 0, run}, {"x//y", 0, run},
			{"a\\..\\x", 0, run}, {strings.Repeat("d/", 300) + "x", 0, run}, {strings.Repeat("n", 300), 0, run}},
		"its own directory": {{".git/config", 0, config}, {".git/hooks/post-checkout", 0, run},
			{".git/info/attributes", 0, "* filter=x"},
			{".git/objects/info/alternates", 0, "/etc\n"}, {".git/commondir", 0, outside}, {".git/worktrees/x/gitdir", 0, "/"},
			{".git/index", 0, "DIRC"}, {".git/HEAD.lock", 0, ""}, {".git/shallow", 0, "0\n"}},
		"odd spellings": {{".GIT/config", 0, config}, {".git./config", 0, config}, {".git /config", 0, config},
			{"git~1/config", 0, config}, {".g\u200cit/config", 0, config}, {".git::$INDEX_ALLOCATION/config", 0, config},
			{"sub/.Git/hooks/pre-commit", 0, run}, {".git", tar.TypeSymlink, outside}, {"sub/.git", 0, "gitdir: " + outside}},
		"ways out": {{"d", tar.TypeSymlink, outside}, {"d/x", 0, run}, {"e", tar.TypeSymlink, "../../../../.."},
			{"e/x", 0, run},
			{"h", tar.TypeLink, "../../etc/passwd"}, {"h2", tar.TypeLink, ".git/config"}},
		"no files": {{"fifo", tar.TypeFifo, ""}, {"null", tar.TypeChar, ""}, {"disk", tar.TypeBlock, ""}},
		"attributes": {{".gitattributes", 0, "* filter=x diff=x merge=x text eol=crlf ident working-tree-encoding=UTF-16\n"},
			{"a", 0, "$Id$\n"}, {"sub/.gitattributes", 0, "* merge=x\n"}, {"sub/b", 0, "three\n"}},
		"references": {{".git/refs/heads/-x", 0, record.Head}, {".git/refs/heads/a/../../../x", 0, record.Head},
			{".git/refs/heads/a b", 0, record.Head}, {".git/refs/heads/x.lock", 0, record.Head},
			{".git/refs/heads/@{", 0, record.Head},
			{".git/packed-refs", 0, record.Head + " refs/hooks/x\n" + record.Head + " refs/heads/..\n-x refs/heads/y\n"},
			{".git/HEAD", 0, "ref: ../../../etc/passwd\n"}},
		"hard to show": {{"\x1b]0;title\a", 0, "x"}, {"a\nb", 0, "x"}, {"\"q\"", 0, "x"}, {"-rf", 0, "x"},
			{"--help", 0, "x"}},
		"whiteouts": {{".wh...", 0, ""}, {".wh..git", 0, ""}, {".wh..wh..opq", 0, ""},
			{"sub/.wh...", 0, ""}, {".wh.", 0, ""}},
	} {
		t.Run(name, func(t *testing.T) {
			before := sh(t, repo, state)
			c, err := home.Capture(t.Context(), record, hostileTar(t, files))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Changes(t.Context()); err != nil {
				t.Error(err)
			}
			if err := c.Patch(t.Context(), io.Discard, false); err != nil {
				t.Error(err)
			}
			if _, err := c.Hazards(t.Context()); err != nil {
				t.Error(err)
			}
			e, err := c.Export(t.Context(), "from-guest", true)
			if err != nil {
				t.Error(err)
			}
			out := sh(t, repo, quiet+"ls-tree -r --name-only "+e.Commit)
			if strings.Contains(strings.ToLower(out), ".git/") || strings.Contains(out, "..") {
				t.Errorf("the branch has %s", out)
			}
			p, err := c.Pull(t.Context())
			if err == nil && len(p.Conflicts) == 0 {
				err = p.Apply(t.Context())
			}
			if err != nil {
				t.Error(err)
			}
			if said, err := os.ReadFile(canary); err == nil {
				t.Fatalf("this ran: %s", said)
			}
			if after := sh(t, repo, state); after != before {
				t.Errorf("the repository's own directory was\n%s\nand is\n%s", before, after)
			}
			if left, _ := os.ReadDir(outside); len(left) > 0 {
				t.Errorf("outside is %v", left)
			}
			sh(t, repo, "find . -mindepth 1 -maxdepth 1 ! -name .git -exec rm -r {} +; "+quiet+"checkout -q -f HEAD -- .")
			os.Remove(canary)
		})
	}
	sh(t, repo, "git status >/dev/null 2>&1 || true")
	if _, err := os.Stat(canary); err != nil {
		t.Error("the user's own git runs nothing in this repository, so the test proves nothing")
	}
}

// TestDamagedCommitsAreNotTaken: objects that git's own checks refuse, and references to nothing.
func TestDamagedCommitsAreNotTaken(t *testing.T) {
	user(t, "")
	repo := repository(t, `echo one >a; git add .; git commit -qm first`)
	home := Home{t.TempDir()}
	record, lower := bring(t, home, Options{Source: repo, Depth: 50})
	commit := `tree=$(cat); git update-ref refs/heads/main $(git -c user.name=E -c user.email=e@x commit-tree $tree -p HEAD -m x)`
	for name, script := range map[string]string{
		"a tree with .git":        `b=$(echo x | git hash-object -w --stdin); printf '100644 blob %s\t.git\n' $b | git mktree | (` + commit + `)`,
		"a tree with ..":          `b=$(git mktree </dev/null); printf '040000 tree %s\t..\n' $b | git mktree --missing | (` + commit + `)`,
		"a submodule that runs":   `printf '[submodule "x"]\n\tpath = x\n\turl = -u./x\n' >.gitmodules; git add .gitmodules; git write-tree | (` + commit + `)`,
		"a submodule's name":      `printf '[submodule "../../x"]\n\tpath = x\n\turl = x\n' >.gitmodules; git add .gitmodules; git write-tree | (` + commit + `)`,
		"a symlinked .gitmodules": `b=$(printf /etc/passwd | git hash-object -w --stdin); printf '120000 blob %s\t.gitmodules\n' $b | git mktree | (` + commit + `)`,
		"a commit that is absent": `echo 0123456789012345678901234567890123456789 >.git/refs/heads/main`,
		"a blob that is absent":   `printf '100644 blob 0123456789012345678901234567890123456789\tx\n' | git mktree --missing | (` + commit + `)`,
		"a damaged object":        `echo y >y; git add y; git write-tree | (` + commit + `); f=.git/objects/$(git rev-parse main | sed 's|^..|&/|'); chmod 600 $f; echo rubbish >$f`,
		"another name":            `echo y >y; git add y; git write-tree | (` + commit + `); f=.git/objects/$(git rev-parse main:y | sed 's|^..|&/|'); rm y; chmod 600 $f; printf 'blob 1\0z' | python3 -c 'import sys,zlib;sys.stdout.buffer.write(zlib.compress(sys.stdin.buffer.read()))' >$f`,
		"a damaged pack":          `echo y >y; git add y; git write-tree | (` + commit + `); git repack -qad; for p in .git/objects/pack/*.pack; do chmod 600 $p; echo rubbish >>$p; done`,
	} {
		t.Run(name, func(t *testing.T) {
			upper := filepath.Join(t.TempDir(), "work")
			sh(t, "/", "cp -a "+lower+" "+upper)
			sh(t, upper, script)
			before := sh(t, repo, "find .git | sort; git for-each-ref")
			c, err := home.Capture(t.Context(), record, layer(t, lower, upper))
			if err == nil {
				defer c.Close()
				_, err = c.Export(t.Context(), "from-guest", true)
			}
			if err == nil || !strings.Contains(err.Error(), "damaged or hostile") {
				t.Errorf("the error is %v", err)
			}
			if after := sh(t, repo, "find .git | sort; git for-each-ref"); after != before {
				t.Errorf("the repository was\n%s\nand is\n%s", before, after)
			}
			sh(t, repo, "git fsck --strict")
		})
	}
}

// TestWhatIsTooMuch is refused before it fills the disk.
func TestWhatIsTooMuch(t *testing.T) {
	user(t, "")
	repo := repository(t, `echo one >a; git add .; git commit -qm first`)
	home := Home{t.TempDir()}
	record, _ := bring(t, home, Options{Source: repo, Depth: 50})
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Name: "huge", Typeflag: tar.TypeReg, Size: maxContent + 1, Format: tar.FormatPAX})
	for name, changes := range map[string]io.Reader{
		"a size":      &b,
		"no tar":      strings.NewReader(strings.Repeat("rubbish", 1000)),
		"a cut entry": io.LimitReader(hostileTar(t, []file{{"a", 0, strings.Repeat("x", 100_000)}}), 10_000),
	} {
		if c, err := home.Capture(t.Context(), record, changes); err == nil {
			c.Close()
			t.Errorf("%s: it was taken", name)
		} else if strings.Contains(err.Error(), "fast-import") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(home.Dir, "*", "store.git", "tmp-*")); len(left) > 0 {
		t.Errorf("left are %q", left)
	}
}

// TestAPullGoesThroughNoSymlink, whichever side has it.
func TestAPullGoesThroughNoSymlink(t *testing.T) {
	user(t, "")
	outside := t.TempDir()
	repo := repository(t, `ln -s `+outside+` out; echo one >a; git add .; git commit -qm first`)
	home := Home{t.TempDir()}
	record, lower := bring(t, home, Options{Source: repo, Depth: 50})
	sh(t, repo, "ln -s "+outside+" mine")
	c := capture(t, home, record, lower, `rm out; mkdir out mine; echo x >out/x; echo x >mine/x`)
	p, err := c.Pull(t.Context())
	if err != nil || len(p.Conflicts) != 1 || p.Conflicts[0].Path != "mine/x" {
		t.Fatalf("%v, %+v", err, p)
	}
	sh(t, repo, "rm mine")
	if p, err = c.Pull(t.Context()); err != nil || len(p.Conflicts) > 0 {
		t.Fatalf("%v, %+v", err, p)
	}
	if err := p.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := sh(t, repo, "cat out/x mine/x; ls "+outside); got != "x\nx\n" {
		t.Errorf("the trees are %q", got)
	}
}
