package cli

import (
	"github.com/spf13/cobra"

	"banger"
	"banger/internal/cli/spec"
)

// specFlags are the flags of run and create that describe a VM.
type specFlags struct {
	spec.Options
	entrypoint  string
	interactive bool
}

func (f *specFlags) register(c *cobra.Command) {
	fs, s := c.Flags(), &f.Spec
	fs.SetInterspersed(false) // everything after IMAGE belongs to the command
	fs.StringVar(&s.Name, "name", "", "name of the VM (a DNS label; default: a random one)")
	fs.IntVar(&s.CPUs, "cpus", banger.DefaultCPUs, "virtual CPUs")
	fs.StringVar(&s.CPUModel, "cpu-model", "",
		"CPU that the guest sees, in QEMU's words (default: the host's, or EPYC-v1 when emulated)")
	fs.StringVar(&s.Nested, "nested", "",
		"the guest gets /dev/kvm and can run VMs of its own; =force for an untrusted VM too")
	fs.Lookup("nested").NoOptDefVal = banger.NestedOn
	fs.StringVarP(&f.Memory, "memory", "m", "512m", "memory, like 512m or 2g")
	fs.StringVar(&f.Disk, "disk", "10g", "size of the writable disk; it takes room as it fills")
	fs.StringVar(&s.Kernel, "kernel", "", "guest kernel (see: banger kernel ls)")
	fs.StringArrayVarP(&s.Env, "env", "e", nil, "KEY=VALUE, or KEY to pass this shell's value on")
	fs.StringArrayVar(&f.EnvFiles, "env-file", nil, "file of KEY=VALUE lines")
	fs.StringVarP(&s.WorkingDir, "workdir", "w", "", "directory of the command")
	fs.StringVarP(&s.User, "user", "u", "", "user[:group] of the command")
	fs.StringVar(&f.entrypoint, "entrypoint", "", `program to run instead of the image's entrypoint ("" clears it)`)
	fs.StringVar(&s.Hostname, "hostname", "", "host name of the guest (default: the VM's name)")
	fs.StringArrayVarP(&f.Labels, "label", "l", nil, "KEY=VALUE to find the VM by")
	fs.BoolVarP(&f.interactive, "interactive", "i", false, "pass stdin to the command")
	fs.BoolVarP(&s.TTY, "tty", "t", false, "give the command a terminal")
	fs.BoolVar(&s.AutoRemove, "rm", false, "remove the VM when it ends")
	fs.StringVar(&s.Pull, "pull", banger.PullMissing, "fetch the image: missing, always or never")
	fs.StringVar(&s.Platform, "platform", "",
		"os/arch[/variant] to choose from an image of several (default: this machine's)")
	fs.StringVar(&s.VMM, "vmm", banger.VMMAuto, "auto, firecracker or qemu")
	f.registerNetwork(c)
	fs.StringVar(&s.Init, "init", banger.InitAuto,
		"PID 1 in the guest: agent, image, or auto (image when that is systemd)")
}

// registerNetwork adds the flags of a VM's network.
func (f *specFlags) registerNetwork(c *cobra.Command) {
	fs, s := c.Flags(), &f.Spec
	fs.StringVar(&s.Network, "network", banger.NetworkUser,
		"user: a user-space network of its own; bridge, or the name of a network: the host's kernel (root only); "+
			"none: no NIC at all")
	fs.StringArrayVarP(&f.Publish, "publish", "p", nil,
		"[IP:]HOST:GUEST[/udp]: forward a port of the host; IP is 127.0.0.1, and HOST 0 any free port")
	fs.BoolVarP(&s.PublishAll, "publish-all", "P", false, "forward every port that the image exposes to a free one")
	fs.StringVar(&f.Policy, "net-policy", "",
		"what the VM may reach: allow, deny, or a file of rules (default: allow; deny with --untrusted)")
	fs.StringArrayVar(&f.Allow, "net-allow", nil,
		"DESTINATION [tcp|udp|icmp[:PORTS]] to allow before the policy, like '*.debian.org tcp:443'")
	fs.StringArrayVar(&f.Deny, "net-deny", nil, "DESTINATION [tcp|udp|icmp[:PORTS]] to deny before the policy")
	fs.StringVar(&f.Proxy, "proxy", "",
		"use a proxy, URL or by default that of this shell's HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY, "+
			"and allow it")
	fs.Lookup("proxy").NoOptDefVal = spec.FromEnvironment
	fs.StringArrayVar(&f.CA, "ca", nil, "file of certificates (PEM) that the VM is to trust too")
	fs.BoolVar(&s.Untrusted, "untrusted", false, "the VM runs what nobody has read: it reaches nothing unless allowed")
}

// resolve turns flags and arguments into a spec.
func (f *specFlags) resolve(a *app, c *cobra.Command, args []string) (banger.Spec, error) {
	if len(args) == 0 {
		return banger.Spec{}, noImage(c)
	}
	if c.Flags().Changed("entrypoint") {
		f.Spec.Entrypoint = []string{f.entrypoint}
	}
	f.Stdin = a.Stdin
	return f.Resolve(args[0], args[1:])
}
