package spec

import (
	"github.com/spf13/pflag"

	"banger"
)

// Command is a user's words for a command in a VM that runs already.
type Command struct {
	Exec     banger.Exec // without its arguments, and with the environment of -e
	EnvFiles []string    // files of KEY=VALUE lines
}

// Register adds the flags of a command.
func (c *Command) Register(fs *pflag.FlagSet) {
	registerCommand(fs, &c.Exec.Env, &c.EnvFiles, &c.Exec.Dir, &c.Exec.User, &c.Exec.TTY)
}

// registerCommand adds the flags that every command has, also the main one of a new VM.
func registerCommand(fs *pflag.FlagSet, env, envFiles *[]string, dir, user *string, tty *bool) {
	fs.StringArrayVarP(env, "env", "e", nil, "KEY=VALUE, or KEY to pass this shell's value on")
	fs.StringArrayVar(envFiles, "env-file", nil, "file of KEY=VALUE lines")
	fs.StringVarP(dir, "workdir", "w", "", "directory of the command")
	fs.StringVarP(user, "user", "u", "", "user[:group] of the command")
	fs.BoolVarP(tty, "tty", "t", false, "give the command a terminal")
}

// Resolve returns the command with its arguments and its whole environment.
func (c Command) Resolve(args []string) (e banger.Exec, err error) {
	e = c.Exec
	e.Args = args
	e.Env, err = Env(c.EnvFiles, e.Env)
	return e, err
}
