package spec

import (
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"banger"
	"banger/internal/host"
	"banger/internal/secret"
)

// Secrets is a user's words for secrets: NAME, NAME=env:VARIABLE or NAME=file:PATH.
type Secrets struct {
	Files     []string // become files alone
	Variables []string // become variables of the command too
}

// Register adds the flags for secrets.
func (s *Secrets) Register(fs *pflag.FlagSet) {
	fs.StringArrayVar(&s.Files, "secret", nil, "NAME[=env:VARIABLE|file:PATH]: a key, which the VM gets as the file "+
		banger.SecretsDir+"/NAME, and which no disk of this host ever has")
	fs.StringArrayVar(&s.Variables, "secret-env", nil, "like --secret, and NAME is a variable of this command too")
}

// Given are the values that a user gives to a VM.
type Given struct {
	Values map[string][]byte // by name
	Env    []string          // names of those that the command wants as variables
	Kept   []string          // those of Env without a value: the VM has them already
}

// Read reads the values. stdin is what file:- reads; nil means that it is not free. With running, a name of Variables
// may be one that the VM has already, where this process has no such variable. Variables that were read are gone from
// the environment then, so that a daemon that this process starts does not have them.
func (s Secrets) Read(stdin io.Reader, running bool) (g Given, err error) {
	g.Values = map[string][]byte{}
	taken, variables := map[string]bool{}, []string{}
	for i, word := range append(s.Files[:len(s.Files):len(s.Files)], s.Variables...) {
		name, source, explicit := strings.Cut(word, "=")
		if err := banger.CheckSecrets(name); err != nil {
			return g, err
		}
		if taken[name] {
			return g, banger.Errorf(banger.CodeInvalid, "the secret %s is given twice", name).
				WithHint("--secret-env gives the file too")
		}
		taken[name] = true
		if !explicit {
			source = "env:" + name
		}
		variable := i >= len(s.Files)
		if variable {
			g.Env = append(g.Env, name)
		}
		if _, here := os.LookupEnv(name); variable && running && !explicit && !here {
			g.Kept = append(g.Kept, name)
			continue
		}
		if g.Values[name], err = readSource(name, source, stdin); err != nil {
			return g, err
		}
		if from, ok := strings.CutPrefix(source, "env:"); ok {
			variables = append(variables, from)
		}
		if source == "file:-" { // it is read once
			stdin = nil
		}
	}
	for _, name := range variables {
		os.Unsetenv(name)
	}
	if err := secret.Check(g.Values); err != nil {
		return g, err
	}
	return g, secret.CheckVariables(g.Values, g.Env)
}

// readSource reads the value of a secret from env:VARIABLE or file:PATH, where - is stdin.
func readSource(name, source string, stdin io.Reader) ([]byte, error) {
	kind, from, _ := strings.Cut(source, ":")
	switch {
	case kind == "env" && from != "":
		value, ok := os.LookupEnv(from)
		if !ok {
			return nil, banger.Errorf(banger.CodeInvalid, "the variable %.80q, which has the secret %s, is not set", from,
				name).WithHint("set and export it, or name a file: %s=file:PATH", name)
		}
		return []byte(value), nil
	case kind == "file" && from == "-" && stdin == nil:
		return nil, banger.Errorf(banger.CodeInvalid, "the secret %s cannot come from stdin, which something else reads",
			name).WithHint("name a file: %s=file:PATH", name)
	case kind == "file" && from == "-":
		return readSecret(name, "stdin", stdin)
	case kind == "file" && from != "":
		f, err := os.Open(from)
		if err != nil {
			return nil, banger.Errorf(banger.CodeInvalid, "the file %s, which has the secret %s, cannot be read: %w", from,
				name, banger.Cause(err))
		}
		defer f.Close()
		return readSecret(name, from, f)
	}
	host.HideArgument(name + "=" + source) // it may be the value itself
	return nil, banger.Errorf(banger.CodeInvalid, "the secret %s comes from neither env:VARIABLE nor file:PATH", name).
		WithHint("a value on a command line is seen by all users of this host: put it into a variable or a file")
}

func readSecret(name, from string, r io.Reader) ([]byte, error) {
	value, err := io.ReadAll(io.LimitReader(r, secret.MaxValue+1)) // what is longer is refused later
	if err != nil {
		return nil, banger.Errorf(banger.CodeInvalid, "the secret %s cannot be read from %s: %w", name, from,
			banger.Cause(err))
	}
	return value, nil
}
