package tooling

import "strings"

// other has names of tools that mise knows by another one.
var other = map[string]string{"nodejs": "node", "golang": "go"}

// misesName returns mise's name of a tool.
func misesName(name string) string {
	if own, ok := other[name]; ok {
		return own
	}
	return name
}

// words has what words for versions mean to mise. Lines of long-term support have the names that nvm gives them.
var words = map[string]map[string]string{
	"node": {
		"lts/*": "lts", "--lts": "lts", "node": "latest", "stable": "latest", "current": "latest",
		"lts/argon": "4", "lts/boron": "6", "lts/carbon": "8", "lts/dubnium": "10", "lts/erbium": "12", "lts/fermium": "14",
		"lts/gallium": "16", "lts/hydrogen": "18", "lts/iron": "20", "lts/jod": "22", "lts/krypton": "24",
	},
}

// newestLTS is the newest line of node with long-term support that this program knows.
const newestLTS = 24

// newestNode returns what to install of node for a range without an upper bound.
func newestNode(spans []span) string {
	for _, s := range spans {
		if s.high == nil && compare(s.low, []int{newestLTS}) <= 0 {
			return "lts"
		}
	}
	return "latest"
}

// trimName takes the name of a tool off a version, as in go1.26 and ruby-3.4.1.
func trimName(tool, version string) string {
	for _, start := range []string{tool + "-", tool} {
		if rest, ok := strings.CutPrefix(version, start); ok && (tool == "go" || tool == "ruby") {
			if _, ok := parts(rest); ok {
				return rest
			}
		}
	}
	return version
}
