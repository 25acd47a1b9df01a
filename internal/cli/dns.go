package cli

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/cli/command"
	"banger/internal/dns"
	"banger/internal/report"
	"banger/internal/text"
)

func newDNS(a *app) *cobra.Command {
	c := &cobra.Command{Use: "dns", Short: "Names of VMs for this host: NAME.vm"}
	var server string
	install := &cobra.Command{
		Use:   "install",
		Short: "Have this host's resolver ask banger for NAME.vm",
		Args:  command.Usage(cobra.NoArgs),
		Long: `Have this host's resolver ask banger for NAME.vm and NAME.NETWORK.vm. It adds one file for
systemd-resolved, which needs root; uninstall removes it. For NetworkManager and dnsmasq it prints what
to do, and changes nothing.`,
		RunE: func(c *cobra.Command, _ []string) error { return installDNS(c.Context(), a, server) },
	}
	install.Flags().StringVar(&server, "server", "",
		"ADDRESS:PORT of the daemon's names (default: where yours listens)")
	c.AddCommand(install, &cobra.Command{
		Use:   "uninstall",
		Short: "Undo install",
		Args:  command.Usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			changed, err := dns.Detect("/").Uninstall()
			if err != nil || !changed {
				return err
			}
			return reloadResolved(c.Context())
		},
	}, &cobra.Command{
		Use:   "status",
		Short: "Show where names are answered, and whether this host asks there",
		Args:  command.Usage(cobra.NoArgs),
		RunE:  func(c *cobra.Command, _ []string) error { return statusDNS(c.Context(), a) },
	})
	return c
}

// namesServer returns the address at which the daemon answers DNS questions. problem says why this is not the usual
// address.
func namesServer(ctx context.Context, a *app) (at netip.AddrPort, problem string, err error) {
	client, err := a.Connect(ctx)
	if err != nil {
		return at, "", err
	}
	v, err := client.Version(ctx)
	if err != nil {
		return at, "", err
	}
	at, err = netip.ParseAddrPort(v.DNS)
	if err != nil {
		return at, "", banger.Errorf(banger.CodeUnavailable, "the daemon answers no names: %s", v.DNSProblem).
			WithHint("restart it: banger daemon stop")
	}
	return at, v.DNSProblem, nil
}

func installDNS(ctx context.Context, a *app, server string) error {
	at, err := netip.ParseAddrPort(server)
	if server == "" {
		at, _, err = namesServer(ctx, a)
	} else if err != nil || !at.Addr().IsLoopback() {
		err = banger.Errorf(banger.CodeInvalid, "%q is not a loopback address with a port", server).
			WithHint("see: banger dns status")
	}
	if err != nil {
		return err
	}
	changed, err := dns.Detect("/").Install(at)
	if err != nil || !changed {
		return err
	}
	if err := reloadResolved(ctx); err != nil {
		dns.Detect("/").Uninstall() // restore the earlier configuration
		return err
	}
	fmt.Fprintf(a.Stderr, "%s asks %s for *.%s now\n", dns.Resolved, at, dns.Domain)
	return nil
}

func reloadResolved(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "systemctl", "reload-or-restart", "systemd-resolved").CombinedOutput()
	if err != nil {
		return banger.Errorf(banger.CodeUnavailable, "cannot have systemd-resolved read its configuration: %w: %s", err,
			strings.TrimSpace(string(out))).
			WithHint("systemctl status systemd-resolved")
	}
	return nil
}

// statusDNS returns an error with exit code 1 when the host does not find VMs by name.
func statusDNS(ctx context.Context, a *app) error {
	at, problem, err := namesServer(ctx, a)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	answers := "yes"
	if err := dns.Probe(ctx, at); err != nil {
		answers = "no: " + text.Limit(err.Error(), text.MaxError)
	}
	h := dns.Detect("/")
	found := report.FindsNames(ctx)
	where := at.String()
	if problem != "" {
		where += " (" + problem + ")"
	}
	if named, ok := h.Installed(); ok && named != at {
		where += fmt.Sprintf(", but %s names %s", dns.DropInPath, named)
	}
	state := "found by this host"
	if !found {
		state = "not " + state
	}
	fmt.Fprintf(a.Stdout, "server:    %s\nanswers:   %s\nresolver:  %s (%s)\nNAME.vm:   %s\n",
		where, answers, h.Kind, strings.Join(h.Nameservers, " "), state)
	if found {
		return nil
	}
	if recipe := h.Recipe(at); recipe != "" {
		fmt.Fprintf(a.Stdout, "to do:     %s\n", recipe)
	} else if h.Kind == dns.Resolved {
		fmt.Fprintf(a.Stdout, "to do:     sudo banger dns install --server %s\n", at)
	} else {
		fmt.Fprintln(a.Stdout, "to do:     install systemd-resolved or dnsmasq, which can ask a server for one domain")
	}
	return &command.ExitError{Code: command.ExitFailed}
}
