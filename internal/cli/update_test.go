package cli

import (
	"testing"
)

// TestUpdate changes a VM at rest, and refuses what means nothing before it asks the daemon.
func TestUpdate(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	h.must("create", "--name", "box", "--network", "none", "--restart", "on-failure:3", h.Image)
	const fields = "{{.HostConfig.Memory}} {{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}"
	h.check(
		line{args: "update box", code: 2, stderr: "banger: nothing is to be changed (see: banger update --help)…"},
		line{args: "update box --ttl soon", code: 1,
			stderr: "banger: ttl is \"soon\", but must be a time of at least 1s, such as 15m or 15m=stop " +
				"(units are s, m and h; none switches it off)\n"},
		line{args: "update box --cpus 0.5 -m 1g", stdout: "box\n"},
		line{args: "update no --restart no", code: 1, stderr: noVM},
	)
	if got := h.must("inspect", "-f", fields, "box"); got != "1073741824 on-failure 3" {
		t.Errorf("it has %q", got)
	}
	h.check(line{args: "update box --restart always --ttl 8h=rm --idle 15m=stop", stdout: "box\n"})
	const future = "{{.spec.restart.name}} {{.spec.ttl.seconds}} {{.spec.ttl.action}} {{.spec.idle.seconds}} {{.spec.cpus}}"
	if got := h.must("inspect", "-f", future, "box"); got != "always 28800 rm 900 1" {
		t.Errorf("it has %q", got)
	}
	h.check(line{args: "update box --restart unless-stopped", code: 1, stderr: "banger: restart is unless-stopped, …"})
}
