package workspace

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/command"
	"banger/internal/exchange"
	"banger/internal/git"
	"banger/internal/workspace"
)

// scheme begins the addresses that git hands to this program.
const scheme = "banger://"

// working is the reference of the guest's working tree, with what it has not committed.
const working = "refs/banger/working"

// NewRemote returns the command that git runs as git-remote-banger, with the name of a remote and its address
// (gitremote-helpers(7)).
func NewRemote(a *command.App) *cobra.Command {
	return &cobra.Command{
		Use:    "git-remote-banger REMOTE URL",
		Hidden: true,
		Args:   command.Usage(cobra.ExactArgs(2)),
		Short:  "Let git fetch from a workspace: git fetch banger://VM[/WORKSPACE]",
		RunE: a.WithClient(func(ctx context.Context, c *client.Client, args []string) error {
			a.Quiet = true
			r := &remote{app: a, client: c, url: args[1]}
			defer r.close()
			return r.serve(ctx, a.Stdin, a.Stdout)
		}),
	}
}

// remote answers git's requests about one address.
type remote struct {
	app     *command.App
	client  *client.Client
	url     string
	capture *workspace.Capture
}

func (r *remote) close() {
	if r.capture != nil {
		r.capture.Close()
	}
}

// serve answers line after line, until git says no more.
func (r *remote) serve(ctx context.Context, in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	var wanted []string
	for lines.Scan() {
		line := lines.Text()
		var err error
		switch word, rest, _ := strings.Cut(line, " "); word {
		case "capabilities":
			_, err = io.WriteString(out, "fetch\noption\n\n")
		case "option":
			_, err = io.WriteString(out, "unsupported\n")
		case "list":
			err = r.list(ctx, out)
		case "fetch":
			oid, _, _ := strings.Cut(rest, " ")
			wanted = append(wanted, oid)
		case "":
			if len(wanted) == 0 {
				return nil
			}
			if err = r.fetch(ctx, wanted); err == nil {
				_, err = io.WriteString(out, "\n")
			}
			wanted = nil
		default:
			err = banger.Errorf(banger.CodeInvalid, "git asks %q, which a workspace cannot do", word).
				WithHint("bring changes into it by: banger workspace sync VM")
		}
		if err != nil {
			return err
		}
	}
	return lines.Err()
}

// list says which references the workspace has.
func (r *remote) list(ctx context.Context, out io.Writer) error {
	where, ok := strings.CutPrefix(r.url, scheme)
	if !ok || where == "" {
		return banger.Errorf(banger.CodeInvalid, "%q is no address of a workspace", r.url).
			WithHint("use: banger://VM/WORKSPACE")
	}
	p, err := exchange.Find(ctx, homeOf(r.app), r.client, strings.TrimSuffix(where, "/"))
	if err != nil {
		return err
	}
	r.close()
	if r.capture, err = p.Capture(ctx, exchange.All); err != nil {
		return err
	}
	c := r.capture
	for _, b := range c.Heads {
		fmt.Fprintf(out, "%s refs/heads/%s\n", b.Commit, b.Name)
	}
	final, _, err := c.Final(ctx, nil)
	if err != nil {
		return err
	}
	if final != "" {
		fmt.Fprintf(out, "%s %s\n", final, working)
	}
	switch {
	case c.Branch != "":
		fmt.Fprintf(out, "@refs/heads/%s HEAD\n", c.Branch)
	case c.Head != "":
		fmt.Fprintf(out, "%s HEAD\n", c.Head)
	}
	_, err = io.WriteString(out, "\n")
	return err
}

// fetch brings commits into the repository in which git runs this program.
func (r *remote) fetch(ctx context.Context, commits []string) error {
	if r.capture == nil {
		return banger.Errorf(banger.CodeInvalid, "git fetches before it has listed")
	}
	to := git.Git{Dir: "."}
	if dir := os.Getenv("GIT_DIR"); dir != "" {
		to.Env = []string{"GIT_DIR=" + dir}
	}
	return r.capture.Send(ctx, to, commits...)
}
