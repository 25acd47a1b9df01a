package spec

import (
	"github.com/spf13/pflag"

	"banger"
	"banger/internal/notation"
)

// Changes are the user's words for what changes of a VM. What is empty stays as it is.
type Changes struct {
	CPUs, Memory, Restart, TTL, Idle string
}

// Register adds the flags of a change to fs.
func (c *Changes) Register(fs *pflag.FlagSet) {
	fs.StringVar(&c.CPUs, "cpus", "", "virtual CPUs; a fraction, like 0.5, bounds what all commands use together")
	fs.StringVarP(&c.Memory, "memory", "m", "", "memory, like 512m or 2g")
	fs.StringVar(&c.Restart, "restart", "", RestartUsage)
	fs.StringVar(&c.TTL, "ttl", "", TTLUsage)
	fs.StringVar(&c.Idle, "idle", "", IdleUsage)
}

// Resolve returns what the words mean.
func (c Changes) Resolve() (u banger.Update, err error) {
	if c.CPUs != "" {
		whole, thousandths, err := notation.CPUs(c.CPUs)
		if err != nil {
			return u, err
		}
		u.CPUs, u.CPU = &whole, thousandths
	}
	if c.Memory != "" {
		n, err := parseSize("memory", c.Memory)
		if err != nil {
			return u, err
		}
		u.Memory = &n
	}
	if u.Restart, err = given(c.Restart, notation.Restart); err != nil {
		return u, err
	}
	if u.TTL, err = given(c.TTL, notation.TTL); err != nil {
		return u, err
	}
	u.Idle, err = given(c.Idle, notation.Idle)
	return u, err
}

// given parses text unless it is empty.
func given[T any](text string, parse func(string) (T, error)) (*T, error) {
	if text == "" {
		return nil, nil
	}
	v, err := parse(text)
	return &v, err
}
