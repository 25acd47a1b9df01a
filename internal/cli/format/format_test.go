package format

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"banger"
)

// box is a VM with something in each field that the tests ask for.
func box() banger.VM {
	three := 3
	made := time.Date(2026, 11, 29, 8, 0, 0, 0, time.UTC)
	return banger.VM{
		ID: "0123456789ab", Name: "box", State: banger.StateRunning, CreatedAt: made, StartedAt: made, ExitCode: &three,
		Address: "127.64.0.2", ImageDigest: "sha256:abc",
		Spec: banger.Spec{Image: "debian-bookworm", Memory: 512 << 20, CPUs: 2, Network: "user",
			Labels: map[string]string{"tier": "front", "app": "web"}},
		Main:     &banger.Exec{Args: []string{"sleep", "1000"}, Env: []string{"A=1", "B=2"}},
		Forwards: []banger.Forward{{Protocol: "tcp", HostIP: "127.0.0.1", HostPort: 8080, GuestPort: 80}},
	}
}

// TestTemplates shows what users write after --format of ps, with docker's fields and with our own.
func TestTemplates(t *testing.T) {
	t.Parallel()
	for template, want := range map[string]string{
		"{{.ID}} {{.Names}}":                                "0123456789ab box\n",
		"{{.id}} {{.name}}":                                 "0123456789ab box\n",
		`{{.ID}}\t{{.Image}}`:                               "0123456789ab\tdebian-bookworm\n",
		"{{.Ports}}":                                        "127.0.0.1:8080->80/tcp\n",
		"{{.State}} {{.state}}":                             "running running\n",
		"{{.Labels}}":                                       "app=web,tier=front\n",
		`{{.Label "tier"}}{{.Label "none"}}`:                "front\n",
		"{{.spec.memory}} {{.spec.cpus}}":                   "536870912 2\n",
		"{{.exit_code}}{{.reason}}":                         "3\n",
		"{{.main.args}}":                                    "[sleep 1000]\n",
		`{{join .main.args ","}}`:                           "sleep,1000\n",
		"{{json .main.env}}":                                `["A=1","B=2"]` + "\n",
		"{{upper .Names}} {{title .Names}}":                 "BOX Box\n",
		`{{pad .Names 1 2}}|{{truncate .Image 3}}`:          " box  |deb\n",
		"{{range .forwards}}{{.guest_port}}{{end}}":         "80\n",
		`{{if eq .State "running"}}yes{{end}}`:              "yes\n",
		`table {{.Names}}\t{{.RunningFor}}\t{{.spec.cpus}}`: "", // only that it works
	} {
		if got, err := write(template, Parse, VM); err != nil || want != "" && got != want {
			t.Errorf("%s writes %q, %v, and not %q", template, got, err, want)
		}
	}
}

// TestTitles shows the titles of tables.
func TestTitles(t *testing.T) {
	t.Parallel()
	for template, want := range map[string]string{
		`table {{.ID}}\t{{.Names}}`:            "ID             NAMES\n0123456789ab   box\n",
		`table {{.exit_code}}\t{{.CreatedAt}}`: "EXIT CODE   CREATED AT\n",
		`table {{upper .Names}}`:               "NAMES\nBOX\n",
		`table {{.Label "com.tier"}}|`:         "TIER|\n|\n",
		`table {{len .main.args}}`:             "2\n", // a template that computes has no titles
	} {
		if got, err := write(template, Parse, VM); err != nil || !strings.HasPrefix(got, want) {
			t.Errorf("%s writes %q, %v, and not %q", template, got, err, want)
		}
	}
}

// TestInspectTemplates shows what scripts ask of docker inspect.
func TestInspectTemplates(t *testing.T) {
	t.Parallel()
	for template, want := range map[string]string{
		"{{.State.Status}} {{.State.Running}} {{.State.ExitCode}}": "running true 3\n",
		"{{.Name}} {{.Id}}":            "/box 0123456789ab\n",
		"{{.Config.Image}} {{.Image}}": "debian-bookworm sha256:abc\n",
		`{{index .Config.Labels "tier"}}{{index .Config.Labels "none"}}`:     "front\n",
		"{{range .Config.Env}}{{println .}}{{end}}":                          "A=1\nB=2\n\n",
		"{{.NetworkSettings.IPAddress}}":                                     "127.64.0.2\n",
		"{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}":           "127.64.0.2\n",
		`{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}`:     "8080\n",
		"{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}":                    "536870912 2000000000\n",
		"{{.Path}} {{.Args}} {{.Created}}":                                   "sleep [1000] 2026-11-29T08:00:00Z\n",
		"{{json .State.ExitCode}}":                                           "3\n",
		`{{with .State}}{{.Status}}{{end}}{{/* \t stays: */}}`:               "running\n",
		"{{range $p, $c := .NetworkSettings.Ports}}{{$p}} {{len $c}}{{end}}": "80/tcp 1\n",
	} {
		if got, err := write(template, ParseOne, InspectVM); err != nil || got != want {
			t.Errorf("%s writes %q, %v, and not %q", template, got, err, want)
		}
	}
}

// TestWrongTemplates shows the errors, which have no words of Go.
func TestWrongTemplates(t *testing.T) {
	t.Parallel()
	for template, want := range map[string]string{
		"{{.ID":                 "--format is not a template: unclosed action (for example: ",
		"{{nothing .ID}}":       `--format is not a template: function "nothing" not defined (`,
		"{{.Nothing}}":          `--format: there is no field "Nothing" in {{.Nothing}} (the fields are: Command CreatedAt ID Image`,
		"{{.spec.nothing}}":     `--format: there is no field "nothing" in {{.spec.nothing}} (see all fields: --format json)`,
		"{{.ID.Nothing}}":       `--format: there is no field "Nothing" in {{.ID.Nothing}} (see`,
		"{{index .forwards 7}}": "--format: {{index .forwards 7}} cannot be evaluated: there is no element 7 (see",
		"{{join .ID 1}}":        "--format: {{1}} cannot be evaluated: it does not suit the value (see",
	} {
		_, err := write(template, Parse, VM)
		if err == nil || !strings.HasPrefix(err.Error(), want) || banger.CodeOf(err) != banger.CodeInvalid {
			t.Errorf("%s: %v, and not %s", template, err, want)
		}
	}
}

func write(template string, parse func(string) (Template, error), docker Aliases[banger.VM]) (string, error) {
	t, err := parse(template)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	err = Write(&b, t, []banger.VM{box()}, docker)
	return b.String(), err
}
