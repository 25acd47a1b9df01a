package account

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/cli/command"
	"banger/internal/cli/render"
	"banger/internal/credential"
	"banger/internal/registry"
)

// hub is the name that a person reads of docker's own registry, which is meant if a command names no registry.
const hub = "docker.io"

// place is a registry as a command line names it.
type place struct {
	host  string // as references have it
	shown string // for a person
}

// placeIn returns the registry that the arguments of login or logout name.
func placeIn(args []string) (p place, err error) {
	typed := strings.Join(args, "")
	if typed == "" {
		typed = hub
	}
	bare := strings.TrimPrefix(strings.TrimPrefix(typed, "https://"), "http://")
	bare, _, _ = strings.Cut(bare, "/")
	if p.host, err = registry.Host(bare); err != nil {
		return p, err
	}
	p.shown = p.host
	if len(args) == 0 {
		p.shown = hub
	}
	return p, nil
}

// loginOptions are the flags of login.
type loginOptions struct {
	user     string
	password string
	given    bool // the password, even an empty one
	stdin    bool
}

// NewLogin returns the command that stores a login at a registry.
func NewLogin(a *command.App) *cobra.Command {
	var o loginOptions
	c := &cobra.Command{
		Use:   "login [REGISTRY]",
		Short: "Log in at a registry, for banger and docker",
		Long: "Log in at a registry, docker.io if none is named. The login is tried there, and stored where docker " +
			"stores it:\nin config.json of DOCKER_CONFIG or ~/.docker, or in the credential helper that this file names.",
		Args: command.Usage(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			o.given = c.Flags().Changed("password")
			return runLogin(c.Context(), a, o, args)
		},
	}
	c.Flags().StringVarP(&o.user, "username", "u", "", "name of the user")
	c.Flags().StringVarP(&o.password, "password", "p", "", "password or token, which other programs can see")
	c.Flags().BoolVar(&o.stdin, "password-stdin", false, "read the password or token from stdin")
	return c
}

// NewLogout returns the command that removes a login at a registry.
func NewLogout(a *command.App) *cobra.Command {
	return &cobra.Command{
		Use:   "logout [REGISTRY]",
		Short: "Remove the login at a registry",
		Args:  command.Usage(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			at, err := placeIn(args)
			if err != nil {
				return err
			}
			if err := credential.New(os.Getenv).Erase(c.Context(), at.host); err != nil {
				return err
			}
			a.Say("Removing login credentials for " + at.shown)
			return nil
		},
	}
}

func runLogin(ctx context.Context, a *command.App, o loginOptions, args []string) error {
	switch {
	case o.given && o.stdin:
		return command.UsageErrorf("--password and --password-stdin exclude each other")
	case o.stdin && o.user == "":
		return command.UsageErrorf("--password-stdin needs the user: --username USER")
	case o.given:
		fmt.Fprintln(a.Stderr, "WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
	}
	at, err := placeIn(args)
	if err != nil {
		return err
	}
	store := credential.New(os.Getenv)
	if o.user == "" && !o.given {
		if done, err := tryStored(ctx, a, store, at); done {
			return err
		}
	}
	l, err := o.complete(ctx, a, at)
	if err != nil {
		return err
	}
	if err := try(ctx, store, at, l); err != nil {
		return err
	}
	path, err := store.Save(ctx, at.host, l)
	if err != nil {
		return err
	}
	if path != "" {
		fmt.Fprintf(a.Stderr, "WARNING! Your password is stored unencrypted in %s.\n"+
			"A credential helper keeps it elsewhere: credsStore in that file names one.\n", path)
	}
	a.Say("Login Succeeded")
	return nil
}

// tryStored tries the login that is stored, as docker does. It reports whether nothing is left to do: the login is
// good, or there is no terminal to ask for another one.
func tryStored(ctx context.Context, a *command.App, store *credential.Store, at place) (done bool, err error) {
	l, ok, err := store.Find(ctx, at.host, "")
	if err != nil || !ok {
		return err != nil, err
	}
	fmt.Fprintln(a.Stderr, "Authenticating with existing credentials...")
	if err = try(ctx, store, at, l); err == nil {
		a.Say("Login Succeeded")
		return true, nil
	}
	if banger.CodeOf(err) != banger.CodeDenied || !isTerminal(a) {
		return true, err
	}
	render.Error(a.Stderr, err)
	return false, nil
}

// try returns an error unless a registry takes a login.
func try(ctx context.Context, store *credential.Store, at place, l credential.Login) (err error) {
	access := proxies()
	if access.Known, err = store.Hosts(); err != nil {
		return err
	}
	client := newClient(access)
	defer client.Close()
	return client.CheckLogin(ctx, at.host, loginOf(l))
}
