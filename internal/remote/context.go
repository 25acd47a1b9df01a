// Package remote reaches the daemon of another host by the user's own ssh, and remembers such hosts as contexts. All
// connections of one process go through one ssh, whose far end is: banger dial-stdio.
//
// The package must not know what the daemon is asked for, nor which commands there are.
package remote

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"banger"
	"banger/internal/blob"
	"banger/internal/host"
)

// Local is the name of the context that means the daemon of this host.
const Local = host.Local

// Context is another host whose daemon commands can use.
type Context struct {
	Name    string `json:"name"`
	Address string `json:"address"`           // ssh://[USER@]HOST[:PORT]; ssh's own configuration says the rest
	Program string `json:"program,omitempty"` // the path of banger there; "" means that it is in PATH
}

// maxContexts bounds the contexts of a user.
const maxContexts = 1000

var (
	validName = regexp.MustCompile(`^[a-z0-9][a-z0-9_.-]{0,62}$`)
	validHost = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,254}$`)
	validUser = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.@$-]{0,254}$`)
)

// Check returns an *Error of CodeInvalid for a context that cannot be used. No part of it can be an option of ssh.
func (c Context) Check() error {
	if !validName.MatchString(c.Name) || c.Name == Local {
		return banger.Errorf(banger.CodeInvalid, "%.100q cannot be the name of a context", c.Name).
			WithHint("use up to 63 of a-z, 0-9, _, . and -; %q is this host", Local)
	}
	_, err := c.destination()
	if err == nil && c.Program != "" && !filepath.IsAbs(c.Program) {
		err = banger.Errorf(banger.CodeInvalid, "%.200q is no absolute path of a program", c.Program)
	}
	return err
}

// destination returns ssh's arguments for the host.
func (c Context) destination() ([]string, error) {
	u, err := url.Parse(c.Address)
	if err != nil || u.Scheme != "ssh" || !validHost.MatchString(u.Hostname()) || u.Path != "" || u.RawQuery != "" ||
		u.Fragment != "" {
		return nil, badAddress(c.Address)
	}
	var args []string
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, badAddress(c.Address)
		}
		args = append(args, "-p", port)
	}
	if u.User != nil {
		if _, secret := u.User.Password(); secret || !validUser.MatchString(u.User.Username()) {
			return nil, badAddress(c.Address)
		}
		args = append(args, "-l", u.User.Username())
	}
	return append(args, "--", u.Hostname()), nil
}

func badAddress(address string) error {
	return banger.Errorf(banger.CodeInvalid, "%.200q is no address of a host", address).
		WithHint("for example: ssh://user@host, or ssh://host:2222; passwords and keys are ssh's own matter")
}

// File is the file with the contexts of a user, which need not exist.
type File struct{ Path string }

// contexts is the text of the file.
type contexts struct {
	Current  string    `json:"current,omitempty"` // "" means Local
	Contexts []Context `json:"contexts"`
}

// read returns what the file says. A file that is damaged is an error, as commands would else go to another host.
func (f File) read() (c contexts, err error) {
	text, err := os.ReadFile(f.Path)
	if errors.Is(err, fs.ErrNotExist) || f.Path == "" {
		return c, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	for _, one := range c.Contexts {
		err = errors.Join(err, one.Check())
	}
	if err != nil {
		return contexts{}, banger.Errorf(banger.CodeInvalid, "the file with contexts, %s, cannot be read", f.Path).
			WithHint("mend it, or remove it and add the contexts again")
	}
	return c, nil
}

// write stores the contexts durably.
func (f File) write(c contexts) error {
	if f.Path == "" {
		return banger.Errorf(banger.CodeInvalid, "this user has no home directory").WithHint("set HOME or XDG_CONFIG_HOME")
	}
	err := os.MkdirAll(filepath.Dir(f.Path), 0o700)
	if err == nil {
		err = blob.WriteJSON(f.Path, c)
	}
	if err != nil {
		return banger.Errorf(banger.CodeUnavailable, "cannot write %s: %w", f.Path, banger.Cause(err)).
			WithHint("see if you may write there, and if there is room")
	}
	return nil
}

// List returns the contexts by their names, and the name of the current one.
func (f File) List() (list []Context, current string, err error) {
	c, err := f.read()
	slices.SortFunc(c.Contexts, func(a, b Context) int { return strings.Compare(a.Name, b.Name) })
	if current = c.Current; current == "" {
		current = Local
	}
	return c.Contexts, current, err
}

// Get returns the context with a name.
func (f File) Get(name string) (Context, error) {
	c, err := f.read()
	if err != nil {
		return Context{}, err
	}
	i := slices.IndexFunc(c.Contexts, func(one Context) bool { return one.Name == name })
	if i < 0 {
		return Context{}, absent(name)
	}
	return c.Contexts[i], nil
}

func absent(name string) error {
	return banger.Errorf(banger.CodeNotFound, "there is no context %.100q", name).
		WithHint("see: banger context ls")
}

// Add adds a context. The caller makes sure that one process changes the file at a time, also for Use and Remove.
func (f File) Add(one Context) error {
	if err := one.Check(); err != nil {
		return err
	}
	c, err := f.read()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(c.Contexts, func(other Context) bool { return other.Name == one.Name }) {
		return banger.Errorf(banger.CodeConflict, "there is a context %q already", one.Name).
			WithHint("remove it first: banger context rm %s", one.Name)
	}
	if len(c.Contexts) >= maxContexts {
		return banger.Errorf(banger.CodeConflict, "there are %d contexts, and there may be no more", maxContexts)
	}
	c.Contexts = append(c.Contexts, one)
	return f.write(c)
}

// Use makes a context the current one. Local is this host.
func (f File) Use(name string) error {
	c, err := f.read()
	if err != nil {
		return err
	}
	if c.Current = ""; name != Local {
		if !slices.ContainsFunc(c.Contexts, func(one Context) bool { return one.Name == name }) {
			return absent(name)
		}
		c.Current = name
	}
	return f.write(c)
}

// Remove removes a context, unless it is the current one.
func (f File) Remove(name string) error {
	c, err := f.read()
	if err != nil {
		return err
	}
	rest := slices.DeleteFunc(slices.Clone(c.Contexts), func(one Context) bool { return one.Name == name })
	switch {
	case len(rest) == len(c.Contexts):
		return absent(name)
	case c.Current == name:
		return banger.Errorf(banger.CodeConflict, "the context %q is the current one", name).
			WithHint("use another one first: banger context use %s", Local)
	}
	c.Contexts = rest
	return f.write(c)
}
