package config

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"banger"
	"banger/internal/notation"
)

// common checks what both files may say.
func (f file) common(c Common) error {
	return cmp.Or(
		f.spec("image", c.Image, func(s *banger.Spec) { s.Image = c.Image }),
		f.word("cpus", string(c.CPUs), func() error { _, _, err := notation.CPUs(string(c.CPUs)); return err }),
		f.size("memory", c.Memory, func(s *banger.Spec, n int64) { s.Memory = n }),
		f.size("disk", c.Disk, func(s *banger.Spec, n int64) { s.Disk = n }),
		f.spec("network", c.Network, func(s *banger.Spec) { s.Network = c.Network }),
		f.policy(c.Policy),
	)
}

// word checks one value, which must not be empty if it is there.
func (f file) word(key, value string, check func() error) error {
	if !f.lines.Has(key) {
		return nil
	}
	err := errors.New("it is empty")
	if value != "" {
		err = check()
	}
	if err != nil {
		return f.bad(err, key)
	}
	return nil
}

// spec checks a value as a VM's is checked.
func (f file) spec(key, value string, set func(*banger.Spec)) error {
	return f.word(key, value, func() error {
		s := banger.Spec{Image: "image"}
		set(&s)
		return s.Normalize()
	})
}

func (f file) size(key string, value Word, set func(*banger.Spec, int64)) error {
	return f.word(key, string(value), func() error {
		n, err := banger.ParseSize(string(value))
		if err != nil {
			return err
		}
		s := banger.Spec{Image: "image"}
		set(&s, n)
		return s.Normalize()
	})
}

func (f file) policy(p *Policy) error {
	if p == nil {
		return nil
	}
	if f.lines.Has("policy", "default") && p.Default != banger.Allow && p.Default != banger.Deny {
		return f.bad(fmt.Errorf("it is %.40q, but must be allow or deny", p.Default), "policy", "default")
	}
	for key, part := range map[string]Policy{"allow": {Allow: p.Allow}, "deny": {Deny: p.Deny}} {
		if _, err := part.Resolve(); err != nil {
			return f.bad(err, "policy", key)
		}
	}
	if _, err := p.Resolve(); err != nil {
		return f.bad(err, "policy")
	}
	return nil
}

func (u User) checkBudget() error {
	if u.file.lines.Has("budget", "running") && (u.Budget.Running < 1 || u.Budget.Running > 10_000) {
		return u.file.bad(fmt.Errorf("it is %d, but must be between 1 and 10000", u.Budget.Running), "budget", "running")
	}
	if u.file.lines.Has("budget", "memory") {
		if _, err := banger.ParseSize(string(u.Budget.Memory)); err != nil {
			return u.file.bad(err, "budget", "memory")
		}
	}
	return nil
}

func (u User) checkGit() error {
	for _, v := range []struct{ key, text string }{{"name", u.Git.Name}, {"email", u.Git.Email}} {
		if err := line(v.text, 200, "<>"); err != nil {
			return u.file.bad(err, "git", v.key)
		}
	}
	return nil
}

// line returns an error for a text that is not one line of printable characters.
func line(text string, max int, without string) error {
	switch {
	case len(text) > max:
		return fmt.Errorf("it has more than %d bytes", max)
	case !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl):
		return errors.New("it has a control character, or is not UTF-8")
	case without != "" && strings.ContainsAny(text, without):
		return fmt.Errorf("it must not have one of %s", without)
	}
	return nil
}

// owner matches user[:group], by names or numbers.
var owner = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})?$`)

func (u User) checkFiles() error {
	if len(u.FileSync) > maxList {
		return u.file.bad(fmt.Errorf("there are more than %d", maxList), "file_sync")
	}
	for i, s := range u.FileSync {
		at := func(err error, key string) error { return u.file.bad(err, "file_sync", strconv.Itoa(i), key) }
		if err := place(s.Host); err != nil {
			return at(err, "host")
		}
		if err := place(s.Guest); err != nil {
			return at(err, "guest")
		}
		if n, err := strconv.ParseUint(s.Mode, 8, 16); s.Mode != "" && (err != nil || n > 0o777) {
			return at(fmt.Errorf("it is %.20q, but must be octal and at most 0777, like 0600", s.Mode), "mode")
		}
		if s.Owner != "" && !owner.MatchString(s.Owner) {
			return at(fmt.Errorf("%.80q is not a user, or a user and a group like root:root", s.Owner), "owner")
		}
	}
	return nil
}

// place checks a path that is absolute or below the home.
func place(name string) error {
	rest, ok := strings.CutPrefix(name, "~/")
	if !ok {
		rest, ok = strings.CutPrefix(name, "/")
	}
	if !ok || rest == "" || path.Clean("/"+rest) != "/"+rest {
		return fmt.Errorf("%.200q is not a plain path below / or ~/", name)
	}
	return line(name, banger.MaxPath, "")
}

func (u User) checkAgents() error {
	if len(u.Agents) > maxList {
		return u.file.bad(fmt.Errorf("there are more than %d", maxList), "agents")
	}
	for _, name := range sorted(u.Agents) {
		err := banger.CheckSession(name)
		if err == nil {
			_, err = u.Agents[name].Own()
		}
		if err == nil {
			err = rules(u.Agents[name].Allow)
		}
		if err != nil {
			return u.file.bad(err, "agents", name)
		}
	}
	return nil
}

func rules(allow []string) error {
	_, err := Policy{Allow: allow}.Resolve()
	return err
}
