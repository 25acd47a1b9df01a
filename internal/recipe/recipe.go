// Package recipe says what a coding agent by name needs: its packages, its commands, its hosts, its secrets, and which
// of its files are logins. A recipe is data: one file in TOML for each agent of banger's, and the user's own.
//
// The package must not know VMs, images, nor how anything is fetched or run.
package recipe

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"banger"
)

// Recipe is what banger knows of one agent.
type Recipe struct {
	Description string `toml:"description"`
	// Packages and Archives are installed below Root, each at its path. They are data: none of their scripts runs.
	Packages []Package         `toml:"package"`
	Archives []Archive         `toml:"archive"`
	Bin      map[string]string `toml:"bin"`  // commands by name, each with its file below Root
	Node     bool              `toml:"node"` // the agent needs Node.js, which comes with banger's own recipe for it
	Env      map[string]string `toml:"env"`

	// These are command lines. PromptWord stands for the user's text, and YoloWord for the words of Yolo, if they are
	// wanted.
	Command  []string `toml:"command"`
	Headless []string `toml:"headless"` // does one task and ends
	Yolo     []string `toml:"yolo"`     // the agent asks for no permission: its VM is the border
	ACP      []string `toml:"acp"`      // speaks the Agent Client Protocol on its standard streams
	Login    []string `toml:"login"`    // lets a user log in on a terminal
	Serve    *Serve   `toml:"serve"`

	Allow   []string `toml:"allow"`   // what it must reach, in the notation of --net-allow
	Secrets []string `toml:"secrets"` // variables with keys; those that the user's environment has
	// Keep are files and directories below $HOME that hold logins. They should hold nothing that makes an agent run
	// something: each VM of the agent gets what another one had.
	Keep []string `toml:"keep"`
}

// Words of command lines that stand for others.
const (
	PromptWord = "{prompt}"
	YoloWord   = "{yolo}"
	PortWord   = "{port}"
)

// Package is a package of the npm registry. Its hash decides what it is.
type Package struct {
	Name      string `toml:"name"`
	Version   string `toml:"version"`
	Integrity string `toml:"integrity"` // sha512- and base64, as in a package-lock.json
	Path      string `toml:"path"`      // below Root; preset to node_modules/ and the name
}

// Archive is a tar of any web server, packed by gzip.
type Archive struct {
	URL    string `toml:"url"`
	SHA256 string `toml:"sha256"` // in hex
	// Version is for a person.
	Version string `toml:"version"`
	Path    string `toml:"path"` // below Root; the archive's own top directory is left out
}

// Serve is how an agent serves clients over a network.
type Serve struct {
	Command  []string `toml:"command"`  // PortWord stands for Port
	Port     int      `toml:"port"`     // in the VM
	Password string   `toml:"password"` // the variable from which the agent takes its password
	User     string   `toml:"user"`     // whose password that is
	Health   string   `toml:"health"`   // the path that answers when the agent is ready, with the password
	Attach   []string `toml:"attach"`   // lines that a user types; URLWord stands for the address
}

// URLWord stands for the address of a served agent in Serve.Attach.
const URLWord = "{url}"

//go:embed agents
var files embed.FS

// runtime is the name of the file with Node.js, which is no agent.
const runtime = "node"

// All returns banger's recipes by name.
func All() (map[string]Recipe, error) {
	list, err := files.ReadDir("agents")
	if err != nil {
		return nil, err
	}
	all := map[string]Recipe{}
	for _, f := range list {
		name := strings.TrimSuffix(f.Name(), ".toml")
		raw, err := files.ReadFile("agents/" + f.Name())
		if err != nil {
			return nil, err
		}
		r, err := parse(raw)
		if err != nil {
			return nil, fmt.Errorf("recipe %s: %w", name, err)
		}
		all[name] = r
	}
	node := all[runtime]
	delete(all, runtime)
	for name, r := range all {
		if all[name], err = r.with(node); err != nil {
			return nil, fmt.Errorf("recipe %s: %w", name, err)
		}
	}
	return all, nil
}

// Own returns a recipe of a user's, checked and with what it needs of banger's.
func (r Recipe) Own() (Recipe, error) {
	raw, err := files.ReadFile("agents/" + runtime + ".toml")
	if err != nil {
		return r, err
	}
	node, err := parse(raw)
	if err != nil {
		return r, err
	}
	return r.with(node)
}

func parse(raw []byte) (r Recipe, err error) {
	d := toml.NewDecoder(bytes.NewReader(raw)).DisallowUnknownFields()
	return r, d.Decode(&r)
}

// with returns the recipe with the packages of Node.js if the recipe needs it, and with its presets.
func (r Recipe) with(node Recipe) (Recipe, error) {
	r.Packages = slices.Clone(r.Packages)
	if r.Node {
		r.Packages = append(r.Packages, node.Packages...)
		bin := maps.Clone(node.Bin)
		maps.Copy(bin, r.Bin)
		r.Bin = bin
	}
	for i, p := range r.Packages {
		if p.Path == "" {
			r.Packages[i].Path = "node_modules/" + p.Name
		}
	}
	return r, r.check()
}

var (
	packageName = regexp.MustCompile(`^(@[a-z0-9][a-z0-9._-]*/)?[a-z0-9][a-z0-9._-]*$`)
	version     = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.+-]*$`)
	word        = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	variable    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// check returns an *Error of CodeInvalid that names what cannot be.
func (r Recipe) check() error {
	if len(r.Command) == 0 {
		return invalid("has no command")
	}
	for _, p := range r.Packages {
		if err := p.check(); err != nil {
			return err
		}
	}
	for _, a := range r.Archives {
		if err := a.check(); err != nil {
			return err
		}
	}
	for name, file := range r.Bin {
		if !word.MatchString(name) || !below(file) {
			return invalid("has the command %.80q at %.200q, which is no file below its directory", name, file)
		}
	}
	for _, k := range r.Keep {
		if !below(k) {
			return invalid("keeps %.200q, which is no path below $HOME", k)
		}
	}
	for _, name := range slices.Concat(r.Secrets, slices.Collect(maps.Keys(r.Env))) {
		if !variable.MatchString(name) {
			return invalid("has the variable %.80q, which is no name", name)
		}
	}
	if s := r.Serve; s != nil && (len(s.Command) == 0 || s.Port < 1 || s.Port > 65535) {
		return invalid("serves without a command and a port")
	}
	return nil
}

func (p Package) check() error {
	sum, ok := strings.CutPrefix(p.Integrity, "sha512-")
	raw, err := base64.StdEncoding.DecodeString(sum)
	switch {
	case !packageName.MatchString(p.Name) || !version.MatchString(p.Version):
		return invalid("has the package %.80q of version %.40q, which is no package of npm", p.Name, p.Version)
	case !ok || err != nil || len(raw) != 64:
		return invalid("has package %s without the sha512 that pins it", p.Name)
	case !below(p.Path):
		return invalid("has package %s at %.200q, which is not below its directory", p.Name, p.Path)
	}
	return nil
}

func (a Archive) check() error {
	u, err := url.Parse(a.URL)
	raw, herr := hex.DecodeString(a.SHA256)
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		return invalid("has the archive %.200q, which is no address of a web server", a.URL)
	case herr != nil || len(raw) != sha256.Size:
		return invalid("has archive %.200s without the sha256 that pins it", a.URL)
	case !below(a.Path):
		return invalid("has archive %.200s at %.200q, which is not below its directory", a.URL, a.Path)
	}
	return nil
}

// below reports whether name is a clean relative path that does not lead up.
func below(name string) bool {
	return name != "" && name != "." && path.Clean(name) == name && !path.IsAbs(name) && name != ".." &&
		!strings.HasPrefix(name, "../") && !strings.ContainsAny(name, "\x00\n\\")
}

func invalid(format string, args ...any) error {
	return banger.Errorf(banger.CodeInvalid, "the recipe of this agent "+format, args...)
}

// Root returns the directory in the guest where the agent of that name is installed.
func Root(name string) string { return "/opt/banger/" + name }

// Key returns the hash of all that is installed. Recipes of one key make the same image of one base.
func (r Recipe) Key() string {
	h := sha256.New()
	for _, p := range r.Packages {
		fmt.Fprintf(h, "package %q %q %q %q\n", p.Name, p.Version, p.Integrity, p.Path)
	}
	for _, a := range r.Archives {
		fmt.Fprintf(h, "archive %q %q\n", a.SHA256, a.Path)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Bin)) {
		fmt.Fprintf(h, "bin %q %q\n", name, r.Bin[name])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Version returns the version of the agent, for a person.
func (r Recipe) Version() string {
	if len(r.Archives) > 0 {
		return r.Archives[0].Version
	}
	if len(r.Packages) > 0 {
		return strings.TrimSuffix(r.Packages[0].Version, "-linux-x64")
	}
	return ""
}

// Line returns a command line of the recipe with the user's words in it: the prompt, and with yolo the words that make
// the agent ask for nothing. extra comes behind it.
func (r Recipe) Line(line []string, prompt string, yolo bool, extra ...string) []string {
	var out []string
	for _, w := range line {
		switch w {
		case PromptWord:
			out = append(out, prompt)
		case YoloWord:
			if yolo {
				out = append(out, r.Yolo...)
			}
		default:
			out = append(out, w)
		}
	}
	return append(out, extra...)
}

// aliases are short names of agents.
var aliases = map[string]string{"claude": "claude-code", "gemini": "gemini-cli"}

// Find returns the recipe of a name and that name without an alias. own are the user's recipes, which come first.
func Find(name string, own map[string]Recipe) (string, Recipe, error) {
	if r, ok := own[name]; ok {
		r, err := r.Own()
		return name, r, err
	}
	all, err := All()
	if err != nil {
		return name, Recipe{}, err
	}
	if full, ok := aliases[name]; ok {
		name = full
	}
	if r, ok := all[name]; ok {
		return name, r, nil
	}
	names := slices.Sorted(maps.Keys(all))
	return name, Recipe{}, banger.Errorf(banger.CodeNotFound, "there is no agent %.80q", name).
		WithHint("banger knows %s, and those of config.toml", strings.Join(names, ", "))
}
