package cli

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api"
)

// networkFlags are the flags of run and create for the network.
type networkFlags struct {
	publish     []string
	policy      string
	allow, deny []string
	proxy       string
	ca          []string
}

func (f *networkFlags) register(c *cobra.Command, spec *banger.Spec) {
	fs := c.Flags()
	fs.StringVar(&spec.Network, "network", banger.NetworkUser,
		"user: a user-space network of its own; bridge, or the name of a network: the host's kernel (root only); none: no NIC at all")
	fs.StringArrayVarP(&f.publish, "publish", "p", nil,
		"[IP:]HOST:GUEST[/udp]: forward a port of the host; IP is 127.0.0.1, and HOST 0 any free port")
	fs.BoolVarP(&spec.PublishAll, "publish-all", "P", false, "forward every port that the image exposes to a free one")
	fs.StringVar(&f.policy, "net-policy", "", "what the VM may reach: allow, deny, or a file of rules (default: allow; deny with --untrusted)")
	fs.StringArrayVar(&f.allow, "net-allow", nil, "DESTINATION [tcp|udp|icmp[:PORTS]] to allow before the policy, like '*.debian.org tcp:443'")
	fs.StringArrayVar(&f.deny, "net-deny", nil, "DESTINATION [tcp|udp|icmp[:PORTS]] to deny before the policy")
	fs.StringVar(&f.proxy, "proxy", "",
		"use a proxy, URL or by default that of this shell's HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY, and allow it")
	fs.Lookup("proxy").NoOptDefVal = fromEnvironment
	fs.StringArrayVar(&f.ca, "ca", nil, "file of certificates (PEM) that the VM is to trust too")
	fs.BoolVar(&spec.Untrusted, "untrusted", false, "the VM runs what nobody has read: it reaches nothing unless allowed")
}

// resolve puts the flags into s. Its only I/O is reading files.
func (f *networkFlags) resolve(s *banger.Spec) error {
	for _, p := range f.publish {
		forward, err := banger.ParseForward(p)
		if err != nil {
			return err
		}
		s.Forwards = append(s.Forwards, forward)
	}
	var err error
	if s.CA, err = readCA(f.ca); err != nil {
		return err
	}
	var proxies []banger.Rule
	if f.proxy != "" {
		var env []string
		if env, proxies, err = proxy(f.proxy, s.Network, os.Getenv); err != nil {
			return err
		}
		s.Env = append(env, s.Env...)
	}
	if f.policy == "" && len(f.allow) == 0 && len(f.deny) == 0 && len(proxies) == 0 {
		return nil
	}
	policy := banger.Policy{Default: banger.Allow}
	if s.Untrusted {
		policy.Default = banger.Deny
	}
	if f.policy != "" {
		if policy, err = readPolicy(f.policy); err != nil {
			return err
		}
	}
	denied, err := parseRules(banger.Deny, f.deny)
	if err != nil {
		return err
	}
	allowed, err := parseRules(banger.Allow, f.allow)
	if err != nil {
		return err
	}
	policy.Rules = slices.Concat(denied, proxies, allowed, policy.Rules)
	s.Policy = &policy
	return nil
}

func parseRules(action string, texts []string) (rules []banger.Rule, err error) {
	for _, text := range texts {
		r, err := banger.ParseRule(action + " " + text)
		if err != nil {
			return nil, banger.Errorf(banger.CodeInvalid, "--net-%s: %w", action, err)
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// readPolicy reads a policy from arg: allow, deny, the name of a file, or - for stdin.
func readPolicy(arg string) (banger.Policy, error) {
	if arg == banger.Allow || arg == banger.Deny {
		return banger.ParsePolicy(arg)
	}
	const maxPolicy = 1 << 20 // bytes
	f, err := os.Stdin, error(nil)
	if arg != "-" {
		if f, err = os.Open(arg); err != nil {
			return banger.Policy{}, banger.Errorf(banger.CodeInvalid, "cannot read the policy: %w", err).
				WithHint("give allow, deny or a file of rules")
		}
		defer f.Close()
	}
	text, err := io.ReadAll(io.LimitReader(f, maxPolicy+1))
	if err == nil && len(text) > maxPolicy {
		err = fmt.Errorf("it is longer than %s", banger.FormatSize(maxPolicy))
	}
	if err != nil {
		return banger.Policy{}, banger.Errorf(banger.CodeInvalid, "cannot read the policy %s: %w", arg, err)
	}
	return banger.ParsePolicy(string(text))
}

func (a *app) portsCommand() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use: "ports VM", Short: "Show what listens in a VM and where it is reached", Args: usage(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeVMs,
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			list, err := client.Ports(c.Context(), args[0])
			if err != nil {
				return err
			}
			return printList(a, listing[banger.Listener]{
				name: func(l banger.Listener) string { return fmt.Sprintf("%d/%s", l.Port, l.Protocol) },
				head: []string{"PORT", "LISTENS ON", "PROCESS", "REACHABLE AT", "URL"}, row: listenerRow,
			}, list, format)
		},
	}
	c.Flags().StringVar(&format, "format", "table", "table or json")
	return c
}

func listenerRow(l banger.Listener) []string {
	process, reachable, url := "-", "-", "-"
	if l.PID != 0 {
		process = fmt.Sprintf("%s (%d)", l.Process, l.PID)
	}
	switch {
	case len(l.Reachable) > 0:
		reachable = strings.Join(l.Reachable, ", ")
	case l.Problem != "":
		reachable = "no: " + l.Problem
	}
	if l.URL != "" {
		url = l.URL
	}
	return []string{fmt.Sprintf("%d/%s", l.Port, l.Protocol), l.Address, process, reachable, url}
}

func (a *app) portCommand() *cobra.Command {
	list := func(c *cobra.Command, args []string) error { return a.listForwards(c, args[0]) }
	c := &cobra.Command{Use: "port", Short: "Forward ports of the host to a VM", Args: usage(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeVMs, RunE: list}
	c.AddCommand(&cobra.Command{Use: "ls VM", Short: "List a VM's forwards", Args: usage(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeVMs, RunE: list},
		&cobra.Command{
			Use: "add VM [IP:]HOST:GUEST[/udp]...", Short: "Add forwards, for good", Args: usage(cobra.MinimumNArgs(2)),
			ValidArgsFunction: a.completeVMs,
			RunE: func(c *cobra.Command, args []string) error {
				return a.eachForward(c, args, func(client *api.Client, f banger.Forward) error {
					f, err := client.AddForward(c.Context(), args[0], f)
					if err == nil {
						a.say(forwardLine(f))
					}
					return err
				})
			},
		},
		&cobra.Command{
			Use: "rm VM [IP:]HOST:GUEST[/udp]...", Short: "End forwards and their connections",
			Args: usage(cobra.MinimumNArgs(2)), ValidArgsFunction: a.completeVMs,
			RunE: func(c *cobra.Command, args []string) error {
				return a.eachForward(c, args, func(client *api.Client, f banger.Forward) error {
					return client.RemoveForward(c.Context(), args[0], f)
				})
			},
		})
	return c
}

// eachForward parses all forwards before it calls do for the first of them.
func (a *app) eachForward(c *cobra.Command, args []string, do func(*api.Client, banger.Forward) error) error {
	var list []banger.Forward
	for _, text := range args[1:] {
		f, err := banger.ParseForward(text)
		if err != nil {
			return err
		}
		list = append(list, f)
	}
	client, err := a.connect(c.Context())
	if err != nil {
		return err
	}
	for _, f := range list {
		if err := do(client, f); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) listForwards(c *cobra.Command, ref string) error {
	client, err := a.connect(c.Context())
	if err != nil {
		return err
	}
	vm, err := client.Get(c.Context(), ref)
	if err != nil {
		return err
	}
	list := vm.Forwards
	if vm.State != banger.StateRunning {
		list = vm.Spec.Forwards
	}
	for _, f := range list {
		a.say(forwardLine(f))
	}
	return nil
}

// forwardLine returns f in the format of a line of docker port.
func forwardLine(f banger.Forward) string {
	return fmt.Sprintf("%d/%s -> %s", f.GuestPort, f.Protocol, f.Host())
}

func (a *app) policyCommand() *cobra.Command {
	c := &cobra.Command{Use: "policy", Short: "What a VM may reach, and what it was refused"}
	c.AddCommand(&cobra.Command{
		Use: "show VM", Short: "Print a VM's policy as policy set reads it", Args: usage(cobra.ExactArgs(1)), ValidArgsFunction: a.completeVMs,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			vm, err := client.Get(c.Context(), args[0])
			if err != nil {
				return err
			}
			if vm.Spec.Policy == nil {
				return banger.Errorf(banger.CodeConflict, "VM %s has no network", vm.Name)
			}
			fmt.Fprint(a.stdout, vm.Spec.Policy)
			return nil
		},
	}, &cobra.Command{
		Use: "set VM allow|deny|FILE|-", Short: "Replace a VM's policy; flows that it forbids are cut",
		Args: usage(cobra.ExactArgs(2)), ValidArgsFunction: a.completeVMs,
		Long: `Replace what a VM may reach, now and at its next starts. Flows that the policy forbids are cut before
the command ends.

A policy is allow, deny, or a file of lines; the first rule that matches decides:
  ACTION DESTINATION [PROTOCOL[:PORTS]]    ACTION is allow or deny
  default allow|deny                       else, and without it deny
DESTINATION is a host name, *.domain for all names below one, an address, a network like 10.1.0.0/16, any,
private (the local networks), or host (services on this host's 127.0.0.1, which the VM finds at 10.0.2.2).
Private, link-local and metadata addresses and those of the host are denied unless a rule names them.`,
		Example: `  printf 'allow *.debian.org tcp:80,443\nallow 192.168.1.7 tcp:5432\n' | banger policy set box -`,
		RunE: func(c *cobra.Command, args []string) error {
			p, err := readPolicy(args[1])
			if err != nil {
				return err
			}
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			_, err = client.SetPolicy(c.Context(), args[0], p)
			return err
		},
	}, a.policyLogCommand())
	return c
}

func (a *app) policyLogCommand() *cobra.Command {
	var follow bool
	var tail int
	var format string
	c := &cobra.Command{
		Use: "log [flags] VM", Short: "Show what a VM's policy has refused since its last start",
		Args: usage(cobra.ExactArgs(1)), ValidArgsFunction: a.completeVMs,
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			vm, err := client.Get(c.Context(), args[0])
			if err != nil {
				return err
			}
			return client.Denials(c.Context(), args[0], tail, follow, func(d banger.Denial) {
				if format == "json" {
					a.printJSON(d)
					return
				}
				a.say(denialLine(vm.Name, d))
			})
		},
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the VM ends")
	c.Flags().IntVarP(&tail, "tail", "n", -1, "number of lines from the end (-1: all that are kept)")
	c.Flags().StringVar(&format, "format", "table", "table or json")
	return c
}

// denialLine returns one denial as a line for a person: time, VM, process, destination, reason.
func denialLine(vm string, d banger.Denial) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", d.Time.Local().Format(time.DateTime), vm)
	if d.PID != 0 {
		fmt.Fprintf(&b, " (%s, pid %d)", d.Process, d.PID)
	}
	fmt.Fprintf(&b, ": %s", d.Protocol)
	if d.Name != "" {
		fmt.Fprintf(&b, " %s", d.Name)
	}
	if d.Address != "" {
		fmt.Fprintf(&b, " %s", d.Address)
		if d.Port != 0 {
			fmt.Fprintf(&b, ":%d", d.Port)
		}
	}
	fmt.Fprintf(&b, " denied by %q", d.Rule)
	if d.Count > 1 {
		fmt.Fprintf(&b, ", %d times", d.Count)
	}
	return b.String()
}
