// Package spec turns what a user wrote for a new VM into a banger.Spec: sizes, environment files, ports, policies,
// proxies and certificates. Its only input are files, stdin and this process's environment.
//
// It must not know the daemon, nor which command has the flags.
package spec

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"banger"
	"banger/internal/config"
	"banger/internal/notation"
)

// Options are the user's words for a VM. Spec holds those that need no parsing, with the environment of -e in Env.
type Options struct {
	Spec banger.Spec

	CPUs         string // a number, which may have a fraction
	Memory, Disk string // sizes like 512m
	SessionDisk  string
	EnvFiles     []string // files of KEY=VALUE lines
	Labels       []string // KEY=VALUE

	Publish     []string       // [IP:]HOST:GUEST[/udp]
	Policy      string         // allow, deny, a file or -; "" for the default
	Allow, Deny []string       // rules without their action, before those of the policy
	Base        *config.Policy // what counts where Policy is ""; may be nil
	Proxy       string         // a URL, or FromEnvironment; "" for no proxy
	CA          []string       // files of certificates

	Hosts       []string // NAME:ADDRESS
	Tmpfs       []string // PATH[:OPTION,...]
	Ulimits     []string // NAME=SOFT[:HARD]
	SecurityOpt []string // docker's words
	Privileged  bool
	StopTimeout int    // seconds; -1 for the default
	Restart     string // no, on-failure[:N] or always
	TTL, Idle   string // TIME[=ACTION]

	Ready Ready

	Tell  func(text string) // prints what the user should know, but is no error; may be nil
	Stdin io.Reader         // where the policy - comes from
}

// Preset puts what counts in files into the options whose flags were not given. The policy of an untrusted VM comes
// from flags alone, and a VM without a network has none.
func (o *Options) Preset(given func(flag string) bool, m config.Merged) {
	for _, v := range []struct {
		flag string
		to   *string
		word string
	}{
		{"cpus", &o.CPUs, string(m.CPUs)}, {"memory", &o.Memory, string(m.Memory)}, {"disk", &o.Disk, string(m.Disk)},
		{"network", &o.Spec.Network, m.Network}, {"warm", &o.Spec.Warm, m.Warm}, {"idle", &o.Idle, m.Idle},
	} {
		if !given(v.flag) {
			*v.to = v.word
		}
	}
	if !o.Spec.Untrusted && o.Spec.Network != banger.NetworkNone {
		o.Base = m.Policy
	}
}

// Resolve returns the spec of a VM from image that runs command. The daemon sets the fields that have defaults.
func (o Options) Resolve(image string, command []string) (banger.Spec, error) {
	s := o.Spec
	s.Image, s.Cmd = AbsoluteReference(image), command
	if len(s.Cmd) > 0 && s.Cmd[0] == "--" {
		s.Cmd = s.Cmd[1:]
	}
	var err error
	if s.Memory, err = parseSize("memory", o.Memory); err != nil {
		return s, err
	}
	if s.Disk, err = parseSize("disk", o.Disk); err != nil {
		return s, err
	}
	if o.SessionDisk != "" {
		if s.Confine.SessionDisk, err = parseSize("session-disk", o.SessionDisk); err != nil {
			return s, err
		}
	}
	if s.CPUs, s.Confine.CPU, err = notation.CPUs(o.CPUs); err != nil {
		return s, err
	}
	if err := o.guest(&s); err != nil {
		return s, err
	}
	if s.Env, err = Env(o.EnvFiles, s.Env); err != nil {
		return s, err
	}
	s.Labels = map[string]string{}
	for _, l := range o.Labels {
		k, v, _ := strings.Cut(l, "=")
		s.Labels[k] = v
	}
	if err := o.network(&s); err != nil {
		return s, err
	}
	check := s
	return s, check.Normalize()
}

// guest puts the options about the guest into s.
func (o *Options) guest(s *banger.Spec) (err error) {
	if s.Hosts, err = parseAll(o.Hosts, hostEntry); err != nil {
		return err
	}
	if s.Tmpfs, err = parseAll(o.Tmpfs, tmpfs); err != nil {
		return err
	}
	if s.Confine.Ulimits, err = parseAll(o.Ulimits, ulimit); err != nil {
		return err
	}
	if s.Restart, err = notation.Restart(o.Restart); err != nil {
		return err
	}
	if s.TTL, err = notation.TTL(o.TTL); err != nil {
		return err
	}
	if s.Idle, err = notation.Idle(o.Idle); err != nil {
		return err
	}
	if s.Ready, s.NoReady, err = o.Ready.Resolve(); err != nil {
		return err
	}
	if o.StopTimeout >= 0 {
		s.StopTimeout = &o.StopTimeout
	}
	return o.security(s)
}

func parseAll[T any](texts []string, parse func(string) (T, error)) (list []T, err error) {
	for _, text := range texts {
		one, err := parse(text)
		if err != nil {
			return nil, err
		}
		list = append(list, one)
	}
	return list, nil
}

func parseSize(name, text string) (int64, error) {
	n, err := banger.ParseSize(text)
	if err != nil {
		return 0, fmt.Errorf("--%s: %w", name, err)
	}
	return n, nil
}

// AbsoluteReference makes the path in a file reference absolute, because the daemon has another working directory.
func AbsoluteReference(ref string) string {
	for _, scheme := range []string{"oci:", "oci-archive:", "docker-archive:"} {
		if path, ok := strings.CutPrefix(ref, scheme); ok && path != "" && !filepath.IsAbs(path) {
			if abs, err := filepath.Abs(path); err == nil {
				return scheme + abs
			}
		}
	}
	return ref
}
