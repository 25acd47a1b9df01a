package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"banger"
	"banger/internal/notation"
	"banger/internal/toml"
	"banger/internal/tooling"
)

// ProjectFile is the name of a repository's file, in its root.
const ProjectFile = "banger.toml"

// Project is what a repository wants for its VM.
type Project struct {
	Common
	Ports     []string          // as --publish takes them
	Bootstrap bool              // install the tools that the repository's files ask for; preset: true
	Tools     map[string]string // versions by mise's names; they count before those of other files
	Services  map[string]banger.SessionSpec
	Tasks     map[string]Task

	file file
}

// Task is a command that a user runs by its name. Its directory is below the root of the repository; "" is the root.
type Task struct {
	Description string
	Command     banger.Exec
}

// projectFile is a banger.toml as it is written.
type projectFile struct {
	Common
	Ports     []string               `toml:"ports"`
	Bootstrap bool                   `toml:"bootstrap"`
	Tools     map[string]Word        `toml:"tools"`
	Services  map[string]serviceFile `toml:"services"`
	Tasks     map[string]taskFile    `toml:"tasks"`
}

type serviceFile struct {
	Command any               `toml:"command"` // a text for sh -c, or a list of words
	Ready   string            `toml:"ready"`
	Env     map[string]string `toml:"env"`
	Restart string            `toml:"restart"`
	Dir     string            `toml:"dir"`
}

type taskFile struct {
	Run         any               `toml:"run"` // as serviceFile.Command
	Description string            `toml:"description"`
	Env         map[string]string `toml:"env"`
	Dir         string            `toml:"dir"`
}

// LoadProject reads the file of the repository at root. Without one it returns nil. raw is the text that was read,
// which is what a user reviews. A link that leads out of the root is not followed.
func LoadProject(root string) (p *Project, raw []byte, err error) {
	raw, err = readProject(root)
	if err != nil || raw == nil {
		return nil, nil, err
	}
	p, err = ParseProject(raw)
	return p, raw, err
}

func readProject(root string) ([]byte, error) {
	cannot := func(err error) error {
		return banger.Errorf(banger.CodeInvalid, "cannot read %s in %.200q: %w", ProjectFile, root, banger.Cause(err)).
			WithHint("make it a regular file of the repository, or remove it")
	}
	dir, err := os.OpenRoot(root)
	if err != nil {
		return nil, cannot(err)
	}
	defer dir.Close()
	f, err := dir.OpenFile(ProjectFile, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, cannot(errors.New("it cannot be opened below the root"))
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, cannot(errors.New("it is not a regular file"))
	}
	raw, err := io.ReadAll(io.LimitReader(f, toml.Max+1))
	if err != nil {
		return nil, cannot(err)
	}
	return slices.Grow(raw, 1), nil // not nil, also for an empty file
}

// ParseProject returns what the text of a repository's file means.
func ParseProject(raw []byte) (*Project, error) {
	w := projectFile{Bootstrap: true}
	f, err := decode(ProjectFile, raw, &w)
	if err != nil {
		return nil, err
	}
	p := &Project{Common: w.Common, Ports: w.Ports, Bootstrap: w.Bootstrap, file: f,
		Tools: map[string]string{}, Services: map[string]banger.SessionSpec{}, Tasks: map[string]Task{}}
	if err := f.common(w.Common); err != nil {
		return nil, err
	}
	if err := p.checkPorts(); err != nil {
		return nil, err
	}
	for _, list := range []struct {
		key string
		n   int
	}{{"tools", len(w.Tools)}, {"services", len(w.Services)}, {"tasks", len(w.Tasks)}} {
		if list.n > maxList {
			return nil, f.bad(fmt.Errorf("there are more than %d", maxList), list.key)
		}
	}
	for _, name := range sorted(w.Tools) {
		if err := tooling.Check(name, string(w.Tools[name])); err != nil {
			return nil, f.bad(err, "tools", name)
		}
		p.Tools[name] = string(w.Tools[name])
	}
	for _, name := range sorted(w.Services) {
		if p.Services[name], err = f.service(name, w.Services[name]); err != nil {
			return nil, err
		}
	}
	for _, name := range sorted(w.Tasks) {
		if p.Tasks[name], err = f.task(name, w.Tasks[name]); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *Project) checkPorts() error {
	var all []banger.Forward
	for _, text := range p.Ports {
		list, err := notation.ParseForwards(text)
		if all = append(all, list...); err != nil {
			return p.file.bad(err, "ports")
		}
		if len(all) > banger.MaxForwards {
			return p.file.bad(fmt.Errorf("there are more than %d", banger.MaxForwards), "ports")
		}
	}
	if err := banger.CheckForwards(all); err != nil {
		return p.file.bad(err, "ports")
	}
	return nil
}

// service returns a service as the session that it becomes.
func (f file) service(name string, w serviceFile) (s banger.SessionSpec, err error) {
	bad := func(err error, key ...string) (banger.SessionSpec, error) {
		return s, f.bad(err, append([]string{"services", name}, key...)...)
	}
	s = banger.SessionSpec{Name: name, Command: banger.Exec{Env: environment(w.Env)},
		Restart: banger.RestartPolicy{Name: banger.RestartNo}}
	if err := banger.CheckSession(name); err != nil {
		return bad(err)
	}
	if s.Command.Args, err = words(w.Command); err != nil {
		return bad(err, "command")
	}
	if s.Command.Dir, err = directory(w.Dir); err != nil {
		return bad(err, "dir")
	}
	if w.Ready != "" {
		s.Ready = &banger.Probe{Check: w.Ready}
		if err := s.Ready.Validate(); err != nil {
			return bad(err, "ready")
		}
	}
	if w.Restart != "" {
		if s.Restart, err = notation.Restart(w.Restart); err != nil {
			return bad(err, "restart")
		}
	}
	if err := s.Check(); err != nil {
		return bad(err)
	}
	return s, nil
}

func (f file) task(name string, w taskFile) (t Task, err error) {
	bad := func(err error, key ...string) (Task, error) {
		return t, f.bad(err, append([]string{"tasks", name}, key...)...)
	}
	t = Task{Description: w.Description, Command: banger.Exec{Env: environment(w.Env)}}
	if err := banger.CheckSession(name); err != nil {
		return bad(err)
	}
	if err := line(w.Description, 500, ""); err != nil {
		return bad(err, "description")
	}
	if t.Command.Args, err = words(w.Run); err != nil {
		return bad(err, "run")
	}
	if t.Command.Dir, err = directory(w.Dir); err != nil {
		return bad(err, "dir")
	}
	if err := t.Command.Check(); err != nil {
		return bad(err)
	}
	return t, nil
}

// words returns a command line: a text is one for the shell.
func words(v any) ([]string, error) {
	switch v := v.(type) {
	case string:
		if strings.TrimSpace(v) != "" {
			return []string{"sh", "-c", v}, nil
		}
	case []any:
		var list []string
		for _, word := range v {
			w, ok := word.(string)
			if !ok {
				return nil, errors.New("a word of it is not a text")
			}
			list = append(list, w)
		}
		if len(list) > 0 && list[0] != "" {
			return list, nil
		}
	}
	return nil, errors.New(`it must be a text for the shell, or a list of words like ["make", "test"]`)
}

// environment returns a table as entries KEY=VALUE, sorted.
func environment(m map[string]string) (list []string) {
	for _, key := range sorted(m) {
		list = append(list, key+"="+m[key])
	}
	return list
}

// directory checks a directory below the root of the repository.
func directory(name string) (string, error) {
	clean := path.Clean(name)
	switch {
	case name == "" || clean == ".":
		return "", nil
	case path.IsAbs(name) || clean == ".." || strings.HasPrefix(clean, "../"):
		return "", fmt.Errorf("%.200q is not a directory below the repository's root", name)
	}
	return clean, line(name, banger.MaxPath, "")
}
