package cli

import (
	"context"
	"fmt"
	"os/exec"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api"
	"banger/internal/host"
	"banger/internal/text"
)

// check is one line of doctor's output.
type check struct {
	Name   string `json:"name"`
	Result string `json:"result"` // PASS, WARN or FAIL
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"`
}

const (
	pass = "PASS"
	warn = "WARN"
	fail = "FAIL"
)

func (a *app) doctorCommand() *cobra.Command {
	var format string
	c := &cobra.Command{Use: "doctor", Short: "Check what this host can do and say what to mend", Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			checks := a.diagnose(c.Context())
			var err error
			if format == "json" {
				err = a.printJSON(checks)
			} else {
				for _, k := range checks {
					fmt.Fprintf(a.stdout, "%-4s  %-10s %s\n", k.Result, k.Name, text.Line(k.Detail))
					if k.Fix != "" {
						fmt.Fprintf(a.stdout, "      %-10s fix: %s\n", "", text.Line(k.Fix))
					}
				}
			}
			for _, k := range checks {
				if k.Result == fail && err == nil {
					err = &exitError{code: exitFailed}
				}
			}
			return err
		}}
	c.Flags().StringVar(&format, "format", "table", "table or json")
	return c
}

func (a *app) diagnose(ctx context.Context) []check {
	ctx, cancel := context.WithTimeout(ctx, daemonStart)
	defer cancel()
	var checks []check
	add := func(name, result, detail, fix string) { checks = append(checks, check{name, result, detail, fix}) }

	if kvm := host.ProbeKVM(""); kvm.Usable {
		add("kvm", pass, "KVM executes guests in hardware", "")
	} else {
		add("kvm", warn, "VMs are emulated, slow and without an isolation boundary: "+kvm.Reason,
			"run on a host with hardware virtualisation, and join the group kvm")
	}
	client, failed := a.connect(ctx)
	failedFix := "see " + a.logPath()
	var version api.Version
	if failed == nil {
		version, failed = client.Version(ctx)
		failedFix = "restart it: banger daemon stop"
	}
	path, missing := exec.LookPath(qemuProgram)
	checks = append(checks, checkQEMU(path, missing == nil, version.VMMs))
	for _, t := range []struct{ tool, purpose, pkg string }{
		{"mmdebstrap", "makes the catalogue's Debian images", "mmdebstrap"},
		{"apt-get", "fetches guest kernels", "apt"},
		{"dpkg-deb", "unpacks guest kernels", "dpkg"},
	} {
		if path, err := exec.LookPath(t.tool); err == nil {
			add(t.tool, pass, path, "")
		} else {
			add(t.tool, warn, "not installed; it "+t.purpose, "apt-get install "+t.pkg)
		}
	}
	if free, err := host.FreeBytes(a.paths.State); err != nil {
		add("disk", fail, err.Error(), "")
	} else if free < 2<<30 {
		add("disk", warn, banger.FormatSize(free)+" free in "+a.paths.State, "free some: banger prune, banger image rm")
	} else {
		add("disk", pass, banger.FormatSize(free)+" free in "+a.paths.State, "")
	}
	if failed != nil {
		add("daemon", fail, failed.Error(), failedFix)
		return checks
	}
	return append(checks, a.diagnoseDaemon(ctx, client, version)...)
}

const qemuProgram = "qemu-system-x86_64"

// checkQEMU returns the line about QEMU. Without QEMU no VM starts, unless the daemon says that it can use
// Firecracker.
func checkQEMU(path string, installed bool, vmms []api.VMM) check {
	const fix = "apt-get install qemu-system-x86"
	if installed {
		return check{qemuProgram, pass, path, ""}
	}
	for _, m := range vmms {
		if m.Name == banger.VMMFirecracker && m.Problem == "" {
			return check{qemuProgram, warn, "not installed; Firecracker runs VMs here, and QEMU would add " +
				"VMs on hosts without KVM, and disks that give the room of deleted files back", fix}
		}
	}
	return check{qemuProgram, fail, "not installed; it runs VMs", fix}
}

func (a *app) diagnoseDaemon(ctx context.Context, client *api.Client, v api.Version) []check {
	checks := []check{{"daemon", pass, fmt.Sprintf("version %s, pid %d, SQLite %s", v.Version, v.PID, v.SQLite), ""}}
	if v.Version != banger.Version {
		checks[0] = check{"daemon", warn, "version " + v.Version + ", but this client is " + banger.Version, "restart it: banger daemon stop"}
	}
	for _, p := range v.Problems {
		checks = append(checks, check{"state", warn, p, "see: banger recover --help"})
	}
	if v.DNS == "" {
		checks = append(checks, check{"names", warn, "no names of VMs are answered: " + v.DNSProblem, "restart the daemon: banger daemon stop"})
	} else if v.DNSProblem != "" {
		checks = append(checks, check{"names", warn, "NAME.vm is answered at " + v.DNS + ": " + v.DNSProblem, "see: banger dns status"})
	} else if !findsNames(ctx) {
		checks = append(checks,
			check{"names", warn, "NAME.vm is answered at " + v.DNS + ", where this host does not ask", "see: banger dns status"})
	} else {
		checks = append(checks, check{"names", pass, "this host finds NAME.vm", ""})
	}
	for _, m := range v.VMMs {
		switch {
		case m.Name != banger.VMMFirecracker && m.Path != "" && m.Problem != "":
			checks = append(checks, check{m.Name, fail, m.Problem, m.Fix})
		case m.Name != banger.VMMFirecracker: // doctor has already looked for the programs that banger itself needs
		case m.Problem != "":
			checks = append(checks, check{m.Name, warn, "not used: " + m.Problem, m.Fix})
		case m.Warning != "":
			checks = append(checks, check{m.Name, warn, m.Path + ": " + m.Warning + "; " + m.Confined, m.Fix})
		default:
			checks = append(checks, check{m.Name, pass, m.Path + ", version " + m.Version + ", " + m.Confined, ""})
		}
	}
	switch {
	case v.Limits == "":
		checks = append(checks, check{"limits", warn, "VMs may use all of the host: " + v.LimitsProblem,
			"start the daemon in a session of your own: systemd-run --user --scope -- banger daemon run"})
	case v.LimitsProblem != "":
		checks = append(checks, check{"limits", warn, "VMs have control groups in " + v.Limits + ", but " + v.LimitsProblem,
			"boot the host with systemd.unified_cgroup_hierarchy=1"})
	default:
		checks = append(checks, check{"limits", pass, "VMs have control groups in " + v.Limits, ""})
	}
	checks = append(checks, nestedCheck(v))
	kernels, err := client.Kernels(ctx)
	switch {
	case err != nil:
		checks = append(checks, check{"kernel", fail, err.Error(), ""})
	case len(kernels) == 0:
		checks = append(checks, check{"kernel", warn, "none is installed; the first run fetches one", "banger kernel pull"})
	default:
		checks = append(checks, check{"kernel", pass, kernels[0].Name, ""})
	}
	return checks
}

// nestedCheck says whether VMs started with --nested can run VMs of their own.
func nestedCheck(v api.Version) check {
	switch {
	case v.NestedProblem != "":
		return check{"nested", warn, "VMs cannot run VMs of their own: " + v.NestedProblem, ""}
	case v.KVM == "usable":
		return check{"nested", pass, "VMs with --nested can run VMs of their own, by this host's KVM", ""}
	}
	return check{"nested", pass, "VMs with --nested can run VMs of their own, emulated", ""}
}

func (a *app) versionCommand() *cobra.Command {
	var format string
	c := &cobra.Command{Use: "version", Short: "Show the versions of client and daemon", Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			v := struct {
				Client api.Version  `json:"client"`
				Daemon *api.Version `json:"daemon"` // null when no daemon runs
			}{Client: api.Version{Version: banger.Version, API: banger.APIVersion}}
			if a.daemonRuns(c.Context()) {
				d, err := a.client.Version(c.Context())
				if err != nil {
					return err
				}
				v.Daemon = &d
			}
			if format == "json" {
				return a.printJSON(v)
			}
			fmt.Fprintf(a.stdout, "client: %s (API %d)\n", v.Client.Version, v.Client.API)
			if v.Daemon == nil {
				fmt.Fprintln(a.stdout, "daemon: not running")
			} else {
				fmt.Fprintf(a.stdout, "daemon: %s (API %d)\n", v.Daemon.Version, v.Daemon.API)
			}
			return nil
		}}
	c.Flags().StringVar(&format, "format", "table", "table or json")
	return c
}
