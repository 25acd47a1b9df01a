package config

import (
	"fmt"
	"strings"

	"banger"
	"banger/internal/tooling"
)

// builtIn is the origin of what no file says.
const builtIn = "built in"

// Base is what counts where no file says anything.
type Base struct {
	Common
	Warm, Idle string
}

// BuiltIn returns what counts for any VM.
func BuiltIn() Base {
	return Base{Common{Image: "debian-bookworm-dev", CPUs: "1", Memory: "512m", Disk: "10g", Network: banger.NetworkUser},
		banger.WarmAuto, "none"}
}

// ForWork returns what counts for a VM to work in, which compiles, and which its user leaves and comes back to.
func ForWork() Base {
	b := BuiltIn()
	b.CPUs, b.Memory, b.Idle = "2", "2g", "15m"
	return b
}

// Setting is one value that counts.
type Setting struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Origin string `json:"origin"` // FILE:LINE, or "built in"
}

// Merged is what counts of both files. A flag of a command comes before it.
type Merged struct {
	Common     // Policy is nil if no file has one
	Warm, Idle string

	Settings []Setting // all that counts, with where it is written
}

// Merge returns what counts: that of the repository's file, or else of the user's, or else of base. project may be nil.
// A policy counts as a whole.
func Merge(base Base, user User, project *Project) Merged {
	m := Merged{Common: base.Common, Warm: base.Warm, Idle: base.Idle}
	layers := []struct {
		Common
		file file
	}{{Common: user.Common, file: user.file}}
	if project != nil {
		layers = append(layers, layers[0])
		layers[1].Common, layers[1].file = project.Common, project.file
	}
	for i, key := range commonKeys {
		to, origin := m.words()[i], builtIn
		for _, l := range layers {
			if value := *l.words()[i]; value != "" {
				*to, origin = value, l.file.origin(key)
			}
		}
		m.say(key, *to, origin)
	}
	policy := layers[0]
	for _, l := range layers {
		if l.Policy != nil {
			m.Policy, policy = l.Policy, l
		}
	}
	m.sayPolicy(policy.file)
	m.sayUser(user)
	if project != nil {
		m.sayProject(project)
	}
	return m
}

var commonKeys = []string{"image", "cpus", "memory", "disk", "network"}

// words returns the values of commonKeys.
func (c *Common) words() []*string {
	return []*string{&c.Image, (*string)(&c.CPUs), (*string)(&c.Memory), (*string)(&c.Disk), &c.Network}
}

func (m *Merged) say(key, value, origin string) {
	m.Settings = append(m.Settings, Setting{key, value, origin})
}

// sayList adds a list of texts, unless it is empty.
func (m *Merged) sayList(list []string, f file, path ...string) {
	if len(list) > 0 {
		m.say(strings.Join(path, "."), strings.Join(list, ", "), f.origin(path...))
	}
}

func (m *Merged) sayPolicy(f file) {
	if m.Policy == nil {
		m.say("policy.default", banger.Allow, builtIn)
		return
	}
	if m.Policy.Default == "" {
		m.say("policy.default", banger.Deny, builtIn)
	} else {
		m.say("policy.default", m.Policy.Default, f.origin("policy", "default"))
	}
	m.sayList(m.Policy.Allow, f, "policy", "allow")
	m.sayList(m.Policy.Deny, f, "policy", "deny")
}

// sayUser adds what only the user's file has.
func (m *Merged) sayUser(u User) {
	own := func(to *string, value, key string) {
		origin := builtIn
		if value != "" {
			*to, origin = value, u.file.origin(key)
		}
		m.say(key, *to, origin)
	}
	own(&m.Warm, u.Warm, "warm")
	own(&m.Idle, u.Idle, "idle")
	one := func(value string, path ...string) {
		if value != "" {
			m.say(strings.Join(path, "."), value, u.file.origin(path...))
		}
	}
	if u.Budget.Running > 0 {
		one(fmt.Sprint(u.Budget.Running), "budget", "running")
	}
	one(string(u.Budget.Memory), "budget", "memory")
	one(u.Git.Name, "git", "name")
	one(u.Git.Email, "git", "email")
	for i, s := range u.FileSync {
		m.say("file_sync", s.Host+" -> "+s.Guest, u.file.origin("file_sync", fmt.Sprint(i)))
	}
	for _, name := range sorted(u.Agents) {
		one(strings.Join(u.Agents[name].Command, " "), "agents", name)
	}
}

// sayProject adds what only the repository's file has.
func (m *Merged) sayProject(p *Project) {
	m.sayList(p.Ports, p.file, "ports")
	if p.file.lines.Has("bootstrap") {
		m.say("bootstrap", fmt.Sprint(p.Bootstrap), p.file.origin("bootstrap"))
	}
	for _, name := range sorted(p.Tools) {
		m.say("tools."+name, p.Tools[name], p.file.origin("tools", name))
	}
	for _, name := range sorted(p.Services) {
		m.say("services."+name, shown(p.Services[name].Command.Args), p.file.origin("services", name))
	}
	for _, name := range sorted(p.Tasks) {
		m.say("tasks."+name, shown(p.Tasks[name].Command.Args), p.file.origin("tasks", name))
	}
}

// shown returns a command line for a person.
func shown(args []string) string {
	if len(args) == 3 && args[0] == "sh" && args[1] == "-c" {
		return args[2]
	}
	return strings.Join(args, " ")
}

// Line returns the line of a key of the repository's file, such as Line("tools", "go").
func (p *Project) Line(path ...string) int { return p.file.lines.At(path...) }

// Pin makes the versions in the repository's file count before those that its other files ask for.
func (p *Project) Pin(plan *tooling.Plan) {
	for _, name := range sorted(p.Tools) {
		plan.Pin(name, tooling.Source{Asked: p.Tools[name], File: ProjectFile, Line: p.Line("tools", name)})
	}
}
