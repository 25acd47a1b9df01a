package workspace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"banger"
	"banger/internal/git"
	"banger/internal/hazard"
	"banger/internal/tree"
)

// Stat counts what a branch has changed.
type Stat struct {
	Name           string
	Commits, Files int
	Added, Removed int      // lines
	Only           []string // files that no other branch of the list has changed; a few
}

// maxOnly is how many files a Stat names.
const maxOnly = 5

// CheckBranch returns an error unless a branch of the user's repository can be made, or moved with force.
func (h Home) CheckBranch(ctx context.Context, r *Record, branch string, force bool) error {
	repo, err := r.repository(ctx)
	if err == nil {
		_, err = freeBranch(ctx, repo, branch, force)
	}
	return err
}

// Stat counts what a branch of the user's repository has changed since the guest's checkout began.
func (h Home) Stat(ctx context.Context, r *Record, branch string) (s Stat, err error) {
	s, _, err = h.stat(ctx, r, branch)
	return s, err
}

func (h Home) stat(ctx context.Context, r *Record, branch string) (s Stat, paths []string, err error) {
	repo, err := r.repository(ctx)
	if err != nil {
		return s, nil, err
	}
	s.Name = branch
	ref := "refs/heads/" + branch
	args := []string{"rev-list", "--count", ref}
	for _, known := range r.commits() {
		args = append(args, "^"+known)
	}
	counted, err := repo.Output(ctx, args...)
	if err != nil {
		return s, nil, missingBranch(err, branch)
	}
	fmt.Sscan(counted, &s.Commits)
	base := emptyTree(ctx, repo)
	if known := r.latest(); known != "" {
		if base, err = repo.Output(ctx, "merge-base", known, ref); err != nil {
			base = known
		}
	}
	fields, err := repo.Fields(ctx, "", "diff", "--numstat", "-z", "--no-renames", "--no-ext-diff", "--no-textconv",
		base, ref)
	if err != nil {
		return s, nil, missingBranch(err, branch)
	}
	for _, line := range fields {
		words := strings.SplitN(line, "\t", 3)
		if len(words) != 3 {
			continue
		}
		var added, removed int
		fmt.Sscan(words[0], &added) // "-" for a binary file
		fmt.Sscan(words[1], &removed)
		s.Files, s.Added, s.Removed = s.Files+1, s.Added+added, s.Removed+removed
		paths = append(paths, words[2])
	}
	return s, paths, nil
}

func emptyTree(ctx context.Context, r *git.Repository) string {
	oid, _ := r.Filter(ctx, "", "hash-object", "-t", "tree", "--stdin")
	return oid
}

func missingBranch(err error, branch string) error {
	var failed *git.Failure
	if errors.As(err, &failed) {
		return banger.Errorf(banger.CodeNotFound, "the repository has no branch %s", branch).
			WithHint("see: git branch --list 'banger/*'")
	}
	return err
}

// Branches counts what the branches with a prefix have changed.
func (h Home) Branches(ctx context.Context, r *Record, prefix string) (list []Stat, err error) {
	repo, err := r.repository(ctx)
	if err != nil {
		return nil, err
	}
	names, err := repo.Output(ctx, "for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads/"+prefix)
	if err != nil || names == "" {
		return nil, err
	}
	all, times := [][]string{}, map[string]int{}
	for name := range strings.SplitSeq(names, "\n") {
		s, paths, err := h.stat(ctx, r, name)
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			times[path]++
		}
		list, all = append(list, s), append(all, paths)
	}
	for i := range list {
		for _, path := range all[i] {
			if times[path] == 1 && len(list[i].Only) < maxOnly {
				list[i].Only = append(list[i].Only, tree.Quoted(path))
			}
		}
	}
	return list, nil
}

// BranchHazards returns the files of a branch that were changed and that tools of the host may obey.
func (h Home) BranchHazards(ctx context.Context, r *Record, branch string) (list []Hazard, err error) {
	_, paths, err := h.stat(ctx, r, branch)
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		if why := hazard.Of(path); why != "" {
			list = append(list, Hazard{path, why})
		}
	}
	return list, nil
}

// Take merges a branch into that of the user's HEAD, or checks it out. The user's own git does it, with the user's
// configuration and hooks, as if the user had typed it.
func (h Home) Take(ctx context.Context, r *Record, branch string, checkout bool, stdout, stderr io.Writer) error {
	args := []string{"merge", "--no-edit", branch}
	if checkout {
		args = []string{"checkout", branch, "--"}
	}
	if err := git.AsUser(ctx, r.Source, stdout, stderr, args...); err != nil {
		return banger.Errorf(banger.CodeConflict, "git did not take the branch %s, so all tries stay", branch).
			WithHint("see what git says above, and: git merge --abort")
	}
	return nil
}

// RemoveBranch removes a branch of the user's repository, unless it is checked out.
func (h Home) RemoveBranch(ctx context.Context, r *Record, branch string) error {
	repo, err := r.repository(ctx)
	if err != nil {
		return err
	}
	return repo.Run(ctx, nil, nil, "branch", "-D", "--", branch)
}
