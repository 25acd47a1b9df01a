package cli

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"

	"banger"
	"banger/internal/testing/hosttest"
)

func TestPorts(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	h.box("box")
	h.must("create", "--name", "rest", "-p", "127.0.0.1:0:53/udp", h.Image)
	added := h.must("port", "add", "box", "0:80")
	if !strings.HasPrefix(added, "80/tcp -> 127.0.0.1:") {
		t.Fatalf("it is %q", added)
	}
	port := strings.TrimPrefix(added, "80/tcp -> 127.0.0.1:")
	const notForward = "banger: \"x\" is not a forward: \"x\" is not a port between 1 and 65535 …"
	h.check(
		line{args: "port box", stdout: added + "\n"},
		line{args: "port ls box", stdout: added + "\n"},
		line{args: "port ls rest", stdout: "53/udp -> 127.0.0.1:0\n"},
		line{args: "port ls no", code: 1, stderr: noVM},
		line{args: "port add box x", code: 1, stderr: notForward},
		line{args: "port rm box x", code: 1, stderr: notForward},
		line{args: "port rm box " + port + ":80"},
		line{args: "port rm box " + port + ":80", code: 1, stderr: "banger: VM box has no forward …"},
		line{args: "port ls box"},
		line{args: "ports no", code: 1, stderr: noVM},
		line{args: "ports --format yaml box", code: 2,
			stderr: "banger: --format is \"yaml\", but must be table, json or a template such as '{{.name}}'\n"},
	)
	h.must("exec", "box", "true")
	if head := strings.Fields(h.must("ports", "box")); strings.Join(head[:2], " ") != "PORT LISTENS" {
		t.Errorf("the table is %q", head)
	}
	var list []banger.Listener
	hosttest.Check(t, json.Unmarshal([]byte(h.must("ports", "--format", "json", "box")), &list))
}

// TestListenerRows checks what ports shows of each kind of listener.
func TestListenerRows(t *testing.T) {
	t.Parallel()
	for want, l := range map[string]banger.Listener{
		"80/tcp|0.0.0.0|nginx (7)|127.0.0.1:8080, 10.0.0.1:80|http://x": {Port: 80, Protocol: "tcp", Address: "0.0.0.0",
			PID: 7, Process: "nginx", Reachable: []string{"127.0.0.1:8080", "10.0.0.1:80"}, URL: "http://x"},
		"53/udp|127.0.0.1|-|no: it is local|-": {Port: 53, Protocol: "udp", Address: "127.0.0.1",
			Problem: "it is local"},
		"53/udp|::|-|-|-": {Port: 53, Protocol: "udp", Address: "::"},
	} {
		if got := strings.Join(listenerRow(l), "|"); got != want {
			t.Errorf("the row is %s, not %s", got, want)
		}
	}
}

func TestAPortThatIsTaken(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	hosttest.Check(t, err)
	defer ln.Close()
	taken := ln.Addr().(*net.TCPAddr).Port
	h.check(line{args: fmt.Sprintf("run -q -d -p %d:80 IMAGE true", taken), code: exitBanger,
		stderr: fmt.Sprintf("banger: port 127.0.0.1:%d/tcp of the host is taken …", taken)})
}

func TestPolicies(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	h.box("box", "--net-deny", "10.0.0.0/8 tcp", "--net-allow", "*.debian.org tcp:443")
	h.must("create", "--name", "closed", "--net-policy", "deny", "--network", "user", h.Image)
	h.must("create", "--name", "none", "--network", "none", h.Image)
	h.must("create", "--name", "wild", "--untrusted", h.Image)
	rules := h.write("rules", "allow 192.168.1.7 tcp:5432\ndefault deny\n")
	huge := h.write("huge", strings.Repeat("# a long line\n", 100_000))
	h.check(
		line{args: "policy show box", stdout: "deny 10.0.0.0/8 tcp\nallow *.debian.org tcp:443\ndefault allow\n"},
		line{args: "policy show closed", stdout: "default deny\n"},
		line{args: "policy show wild", stdout: "default deny\n"},
		line{args: "policy show none", code: 1, stderr: "banger: VM none has no network\n"},
		line{args: "policy show no", code: 1, stderr: noVM},
		line{args: "policy set box -", stdin: "allow any tcp:80\n"},
		line{args: "policy show box", stdout: "allow any tcp:80\ndefault deny\n"},
		line{args: "create --name piped --net-policy - IMAGE", stdin: "deny any udp\ndefault allow\n", stdout: "…"},
		line{args: "policy show piped", stdout: "deny any udp\ndefault allow\n"},
		line{args: "policy set box " + rules},
		line{args: "policy show box", stdout: "allow 192.168.1.7 tcp:5432\ndefault deny\n"},
		line{args: "policy set no allow", code: 1, stderr: noVM},
		line{args: "policy set box /no/such", code: 1, stderr: "banger: cannot read the policy /no/such: …"},
		line{args: "policy set box " + huge, code: 1,
			stderr: "banger: cannot read the policy " + huge + ": it is longer than 1 MiB\n"},
		line{args: "policy allow box host tcp:80"},
		line{args: "policy allow box 'a.example udp:53'"},
		line{args: "policy allow box host tcp:80"}, // it comes to the front
		line{args: "policy show box",
			stdout: "allow host tcp:80\nallow a.example udp:53\nallow 192.168.1.7 tcp:5432\ndefault deny\n"},
		line{args: "policy allow none any", code: 1, stderr: "banger: VM none has no network\n"},
		line{args: "policy allow box host tcp:x", code: 1, stderr: "banger: cannot read the rule: …"},
		line{args: "policy allow box host --for 2h", code: 2,
			stderr: "banger: --for is \"2h\", but must be a time of whole seconds from 1s to 1h, such as 5m\n"},
		line{args: "policy allow closed host --for 5m", code: 1,
			stderr: "banger: cannot allow something to VM closed: it is created (start it: banger start closed)\n"},
		line{args: "policy allow none host --for 5m", code: 1,
			stderr: "banger: VM none has no network (create it without --network none)\n"},
		line{args: "policy log box"},
		line{args: "policy log no", code: 1, stderr: noVM},
		line{args: "policy log --format yaml box", code: 2,
			stderr: "banger: --format is \"yaml\", but must be table or json\n"},
		line{args: "create --net-deny nonsense! IMAGE", code: 1, stderr: "banger: --net-deny: …"},
		line{args: "create -p x IMAGE", code: 1, stderr: "banger: \"x\" is not a forward: …"},
		line{args: "create --ca /no/such IMAGE", code: 1, stderr: "banger: --ca: open /no/such: …"},
		line{args: "create --proxy=ftp://x IMAGE", code: 1,
			stderr: "banger: --proxy: it is not the URL of a proxy …"},
		line{args: "create --net-policy /no/such IMAGE", code: 1, stderr: "banger: cannot read the policy /no/such: …"},
	)
}

// TestNetworks checks what a daemon without root answers.
func TestNetworks(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	h.must("create", "--name", "rest", "--network", "none", h.Image)
	const none = "banger: there is no network called \"lab\" (make it: banger network create lab)\n"
	h.check(
		line{args: "network ls", stdout: "NAME   SUBNET   VMS SEE EACH OTHER   VMS\n"},
		line{args: "network ls --format json", stdout: "[]\n"},
		line{args: "network create lab", code: 1,
			stderr: "banger: network \"lab\" is a bridge of the host, which needs a daemon of root …"},
		line{args: "network create LAB", code: 1, stderr: "banger: \"LAB\" is not a valid …"},
		line{args: "network inspect lab", stdout: "[]\n", code: 1, stderr: none},
		line{args: "network rm lab", code: 1, stderr: none},
		line{args: "network connect user rest"},
		line{args: "network connect lab rest", code: 1,
			stderr: "banger: network \"lab\" is a bridge of the host, …"},
		line{args: "policy show rest", stdout: "default allow\n"},
	)
}

// TestDisconnect takes a VM off its network and gives it back with its ports and its policy.
func TestDisconnect(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	h.must("create", "--name", "box", "--net-policy", "deny", "-p", "0:80", h.Image, "sleep", "1000")
	h.check(
		line{args: "network disconnect lab box", code: 1, stderr: "banger: VM box is on network user, not on \"lab\" …"},
		line{args: "network disconnect user box"},
		line{args: "network disconnect user box", code: 1, stderr: "banger: VM box is on network none, not on \"user\" …"},
	)
	state := func() string {
		const fields = "{{.spec.network}} {{.spec.policy.default}} {{len .spec.forwards}}"
		return strings.TrimSpace(h.must("inspect", "-f", fields, "box"))
	}
	if got := state(); got != "none deny 1" {
		t.Errorf("off its network it is %q", got)
	}
	h.must("start", "-q", "box")
	if got := h.must("port", "box"); got != "" {
		t.Errorf("without a network it has %q", got)
	}
	h.must("kill", "box")
	h.check(line{args: "network connect user box"})
	if got := state(); got != "user deny 1" {
		t.Errorf("back on a network it is %q", got)
	}
}
