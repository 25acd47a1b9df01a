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
	"banger/internal/dns"
	"banger/internal/text"
)

func (a *app) dnsCommand() *cobra.Command {
	c := &cobra.Command{Use: "dns", Short: "Names of VMs for this host: NAME.vm"}
	var server string
	install := &cobra.Command{
		Use: "install", Short: "Have this host's resolver ask banger for NAME.vm", Args: usage(cobra.NoArgs),
		Long: `Have this host's resolver ask banger for NAME.vm and NAME.NETWORK.vm. It adds one file for systemd-resolved, which
needs root; uninstall removes it. For NetworkManager and dnsmasq it prints what to do, and changes nothing.`,
		RunE: func(c *cobra.Command, _ []string) error { return a.installDNS(c.Context(), server) },
	}
	install.Flags().StringVar(&server, "server", "", "ADDRESS:PORT of the daemon's names (default: where yours listens)")
	c.AddCommand(install, &cobra.Command{
		Use: "uninstall", Short: "Undo install", Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			changed, err := dns.Detect("/").Uninstall()
			if err != nil || !changed {
				return err
			}
			return reloadResolved(c.Context())
		},
	}, &cobra.Command{
		Use: "status", Short: "Show where names are answered, and whether this host asks there", Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return a.statusDNS(c.Context()) },
	})
	return c
}

// namesServer returns the address at which the daemon answers DNS questions. problem says why this is not the usual
// address.
func (a *app) namesServer(ctx context.Context) (at netip.AddrPort, problem string, err error) {
	client, err := a.connect(ctx)
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

func (a *app) installDNS(ctx context.Context, server string) error {
	at, err := netip.ParseAddrPort(server)
	if server == "" {
		at, _, err = a.namesServer(ctx)
	} else if err != nil || !at.Addr().IsLoopback() {
		err = banger.Errorf(banger.CodeInvalid, "%q is no loopback address with a port", server).WithHint("see: banger dns status")
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
	fmt.Fprintf(a.stderr, "%s asks %s for *.%s now\n", dns.Resolved, at, dns.Domain)
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
func (a *app) statusDNS(ctx context.Context) error {
	at, problem, err := a.namesServer(ctx)
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
	found := findsNames(ctx)
	where := at.String()
	if problem != "" {
		where += " (" + problem + ")"
	}
	if told, ok := h.Installed(); ok && told != at {
		where += fmt.Sprintf(", but %s names %s", dns.DropInPath, told)
	}
	fmt.Fprintf(a.stdout, "server:    %s\nanswers:   %s\nresolver:  %s (%s)\nNAME.vm:   %s\n", where, answers, h.Kind,
		strings.Join(h.Nameservers, " "),
		map[bool]string{true: "found by this host", false: "not found by this host"}[found])
	if found {
		return nil
	}
	if recipe := h.Recipe(at); recipe != "" {
		fmt.Fprintf(a.stdout, "to do:     %s\n", recipe)
	} else if h.Kind == dns.Resolved {
		fmt.Fprintf(a.stdout, "to do:     sudo banger dns install --server %s\n", at)
	} else {
		fmt.Fprintln(a.stdout, "to do:     install systemd-resolved or dnsmasq, which can ask a server for one domain")
	}
	return &exitError{code: exitFailed}
}

// findsNames reports whether programs of the host find VMs by name. It runs getent, because a static program such as
// this one cannot ask in the way of other programs.
func findsNames(ctx context.Context) bool {
	out, err := exec.CommandContext(ctx, "getent", "ahostsv4", dns.Self).Output()
	return err == nil && strings.HasPrefix(string(out), "127.0.0.1 ")
}
