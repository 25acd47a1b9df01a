//go:build bench

package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// The bounds of the promises about workspaces, for a repository of so many files.
const (
	filesOfARepository = 10_000
	maxPrepareSeconds  = 3
	maxAgainSeconds    = 1.5
	maxChangesSeconds  = 1.5
)

// workspaces measures a repository that goes into a VM and is looked at there, beside rsync and git over banger's SSH.
func (b *bench) workspaces() {
	repo := b.repository()
	vm := b.cli("create", "-q", "--init=agent", "debian-bookworm-lab", "--", "sleep", "infinity")
	b.removeAtEnd(vm)
	b.cli("start", "-q", vm)
	b.cli("ssh", vm, "true")
	var first, again, diff, rsync, rsyncAgain, clone []float64
	for i := range b.pairs {
		turns := []func(){
			func() {
				first = append(first, b.seconds(b.command("workspace", "prepare", "-q", vm, repo)))
				again = append(again, b.seconds(b.command("workspace", "prepare", "-q", vm, repo)))
				b.cli("exec", vm, "--", "sh", "-c", "echo x >>d1/f1; rm d2/f2; echo new >new")
				diff = append(diff, b.seconds(b.command("workspace", "diff", vm)))
				b.cli("workspace", "rm", "-f", vm)
			},
			func() {
				copied := func() []string { return []string{"-a", "-e", b.binary + " ssh", repo + "/", vm + ":/root/copied/"} }
				rsync = append(rsync, b.seconds(exec.Command("rsync", copied()...)))
				rsyncAgain = append(rsyncAgain, b.seconds(exec.Command("rsync", copied()...)))
				b.cli("exec", vm, "--", "rm", "-rf", "/root/copied")
			},
			func() {
				b.cli("exec", vm, "--", "git", "init", "-q", "-b", "main", "/root/cloned")
				b.cli("exec", vm, "--", "git", "-C", "/root/cloned", "config", "receive.denyCurrentBranch", "updateInstead")
				push := exec.Command("git", "-C", repo, "push", "-q", "ssh://"+vm+"/root/cloned", "main")
				push.Env = append(os.Environ(), "GIT_SSH_COMMAND="+b.binary+" ssh", "GIT_SSH_VARIANT=simple")
				clone = append(clone, b.seconds(push))
				b.cli("exec", vm, "--", "rm", "-rf", "/root/cloned")
			},
		}
		for j := range turns {
			turns[(i+j)%len(turns)]()
		}
		b.Logf("workspace %d of %d: prepare %.1f s, rsync %.1f s, git push %.1f s", i+1, b.pairs, first[i], rsync[i], clone[i])
	}
	files := fmt.Sprintf("%d files: ", filesOfARepository)
	b.addPairs(files+"workspace prepare, beside rsync over banger ssh", "s", first, rsync, 0, false)
	b.addPairs(files+"workspace prepare, beside git push and a checkout", "s", first, clone, 0, false)
	b.addPairs(files+"workspace prepare again, beside rsync again", "s", again, rsyncAgain, 0, false)
	b.addSpread(files+"workspace prepare", "s", first, maxPrepareSeconds)
	b.addSpread(files+"workspace prepare again", "s", again, maxAgainSeconds)
	b.addSpread(files+"workspace diff of three changes", "s", diff, maxChangesSeconds)
	b.cli("rm", "-f", vm)
}

// repository makes a repository with many files.
func (b *bench) repository() string {
	b.Helper()
	repo := filepath.Join(b.scratch, "repo")
	b.must(os.MkdirAll(repo, 0o755))
	script := fmt.Sprintf(`git init -q -b main
		for d in $(seq %d); do mkdir d$d; for f in $(seq 100); do seq $d $((d + f * 7)) >d$d/f$f; done; done
		find . -name 'f*' -exec touch -d '1 hour ago' {} + # an index as old as its files would make git read them all
		git add .; git -c user.name=x -c user.email=x@x commit -qm all`, filesOfARepository/100)
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir, cmd.Stderr = repo, os.Stderr
	b.must(cmd.Run())
	return repo
}

// seconds returns how long a command takes that must succeed.
func (b *bench) seconds(cmd *exec.Cmd) float64 {
	b.Helper()
	cmd.Stderr = os.Stderr
	return timed(func() { b.must(cmd.Run()) }).Seconds()
}
