package spec

import (
	"maps"
	"slices"

	"github.com/spf13/pflag"

	"banger"
)

// Register adds the flags that describe a VM to fs.
func (o *Options) Register(fs *pflag.FlagSet) {
	s := &o.Spec
	fs.SetInterspersed(false) // everything after IMAGE belongs to the command
	fs.StringVar(&s.Name, "name", "", "name of the VM (a DNS label; default: a random one)")
	fs.StringVar(&o.CPUs, "cpus", "1", "virtual CPUs; a fraction, like 0.5, bounds what all commands use together")
	fs.StringVar(&s.CPUModel, "cpu-model", "",
		"CPU that the guest sees, in QEMU's words (default: the host's, or EPYC-v1 when emulated)")
	fs.StringVar(&s.Nested, "nested", "",
		"the guest gets /dev/kvm and can run VMs of its own; =force for an untrusted VM too")
	fs.Lookup("nested").NoOptDefVal = banger.NestedOn
	fs.StringVarP(&o.Memory, "memory", "m", "512m", "memory, like 512m or 2g")
	fs.StringVar(&o.Disk, "disk", "10g", "size of the writable disk; it takes room as it fills")
	fs.StringVar(&s.Kernel, "kernel", "", "guest kernel (see: banger kernel ls)")
	registerCommand(fs, &s.Env, &o.EnvFiles, &s.WorkingDir, &s.User, &s.TTY)
	fs.StringVar(&s.Hostname, "hostname", "", "host name of the guest (default: the VM's name)")
	fs.StringArrayVarP(&o.Labels, "label", "l", nil, "KEY=VALUE to find the VM by")
	fs.BoolVar(&s.AutoRemove, "rm", false, "remove the VM when it ends")
	fs.BoolVar(&s.NoWake, "no-wake", false, "suspended, let it go on only by resume and start, not when it is used")
	fs.StringVar(&o.Restart, "restart", banger.RestartNo, RestartUsage)
	fs.StringVar(&o.TTL, "ttl", "", TTLUsage)
	fs.StringVar(&o.Idle, "idle", "", IdleUsage)
	fs.StringVar(&s.Pull, "pull", banger.PullMissing, "fetch the image: missing, always or never")
	fs.StringVar(&s.Platform, "platform", "",
		"os/arch[/variant] to choose from an image of several (default: this machine's)")
	fs.StringVar(&s.Warm, "warm", banger.WarmAuto,
		"start from a template of an earlier VM of the same shape: auto, never, only or booted")
	fs.StringVar(&s.VMM, "vmm", banger.VMMAuto, "auto, firecracker or qemu")
	fs.StringVar(&s.Init, "init", banger.InitAuto,
		"PID 1 in the guest: agent, image, or auto (image when that is systemd); without a value: agent")
	fs.Lookup("init").NoOptDefVal = banger.InitAgent
	fs.StringVar(&s.StopSignal, "stop-signal", "", "signal that ends the command (default: the image's, or TERM)")
	fs.IntVar(&o.StopTimeout, "stop-timeout", -1, "seconds until a stop kills (default: 10)")
	o.registerNetwork(fs)
	o.registerGuest(fs)
	o.Ready.Register(fs)
	o.Ready.RegisterNone(fs)
}

// What flags of run and update say.
const (
	RestartUsage = "start the VM again when it has ended: no, on-failure[:N] or always"
	IdleUsage    = "TIME[=suspend|stop]: suspend the VM (or stop it) when nobody has used it for so long, like 15m"
	TTLUsage     = "TIME[=stop|rm|suspend]: stop the VM (or remove or suspend it) so long after its start, like 8h=rm"
)

// registerNetwork adds the flags of a VM's network.
func (o *Options) registerNetwork(fs *pflag.FlagSet) {
	s := &o.Spec
	fs.StringVar(&s.Network, "network", banger.NetworkUser,
		"user: a user-space network of its own; bridge, or the name of a network: the host's kernel (root only); "+
			"none: no NIC at all")
	fs.StringArrayVarP(&o.Publish, "publish", "p", nil,
		"[IP:]HOST:GUEST[/udp]: forward a port of the host; IP is 127.0.0.1, and HOST 0 any free port")
	fs.BoolVarP(&s.PublishAll, "publish-all", "P", false, "forward every port that the image exposes to a free one")
	fs.StringVar(&o.Policy, "net-policy", "",
		"what the VM may reach: allow, deny, or a file of rules (default: allow; deny with --untrusted)")
	fs.StringArrayVar(&o.Allow, "net-allow", nil,
		"DESTINATION [tcp|udp|icmp[:PORTS]] to allow before the policy, like '*.debian.org tcp:443'")
	fs.StringArrayVar(&o.Deny, "net-deny", nil, "DESTINATION [tcp|udp|icmp[:PORTS]] to deny before the policy")
	fs.StringVar(&o.Proxy, "proxy", "",
		"use a proxy, URL or by default that of this shell's HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY, "+
			"and allow it")
	fs.Lookup("proxy").NoOptDefVal = FromEnvironment
	fs.StringArrayVar(&o.CA, "ca", nil, "file of certificates (PEM) that the VM is to trust too")
	fs.BoolVar(&s.Untrusted, "untrusted", false, "the VM runs what nobody has read: it reaches nothing unless allowed")
	fs.StringArrayVar(&s.DNS, "dns", nil, "address of a name server for the guest, in place of banger's own")
	fs.StringArrayVar(&s.DNSSearch, "dns-search", nil, "domain in which the guest looks up names without a dot")
	fs.StringArrayVar(&o.Hosts, "add-host", nil, "NAME:ADDRESS for the guest's /etc/hosts; host-gateway is this host")
}

// registerGuest adds the flags about what commands in the guest may do and write.
func (o *Options) registerGuest(fs *pflag.FlagSet) {
	s := &o.Spec
	fs.BoolVar(&s.ReadOnly, "read-only", false, "the guest's root is read-only, but not its volumes and --tmpfs")
	fs.StringArrayVar(&o.Tmpfs, "tmpfs", nil, "PATH[:OPTION,...]: a file system in memory, like /scratch:size=64m")
	fs.StringArrayVar(&o.Ulimits, "ulimit", nil, "NAME=SOFT[:HARD]: a limit of each process, like nofile=1024:2048")
	fs.StringVar(&o.SessionDisk, "session-disk", "", "room of the disk for what sessions write (default: 256m)")
	fs.StringSliceVar(&s.Confine.CapDrop, "cap-drop", nil, "capability of Linux that no command has, or ALL")
	fs.StringSliceVar(&s.Confine.CapAdd, "cap-add", nil, "capability that commands have in spite of --cap-drop")
	fs.BoolVar(&o.Privileged, "privileged", false, "accepted for docker's sake: commands have all rights in their VM")
	fs.StringArrayVar(&o.SecurityOpt, "security-opt", nil, "no-new-privileges, or an option of docker that lifts a limit")
}

// LaterFlag returns why run has no flag called name, which docker's has, and what to do instead. It returns "" for a
// flag that docker does not have either.
func LaterFlag(name string) string { return laterFlags[name] }

// LaterFlags returns the names of all flags for which LaterFlag has an answer, in order.
func LaterFlags() []string { return slices.Sorted(maps.Keys(laterFlags)) }

const (
	laterVolume  = "folders of the host and volumes come later; until then: banger cp"
	hostDevice   = "a VM does not reach devices of this host"
	ownNamespace = "each VM has a kernel of its own, which shares no namespace with this host or another VM"
	ownMemory    = "a VM's memory is --memory, and its kernel decides on the rest"
	ownAddress   = "banger gives the VM its address"
)

// laterFlags are the flags of docker's run that banger's does not have.
var laterFlags = map[string]string{
	"volume": laterVolume, "v": laterVolume, "mount": laterVolume, "volumes-from": laterVolume,
	"volume-driver": laterVolume,
	"device":        hostDevice, "gpus": hostDevice, "device-cgroup-rule": hostDevice,
	"pid": ownNamespace, "ipc": ownNamespace, "uts": ownNamespace, "userns": ownNamespace, "cgroupns": ownNamespace,
	"cgroup-parent": ownNamespace, "runtime": ownNamespace, "isolation": ownNamespace,
	"memory-swap": ownMemory, "memory-reservation": ownMemory, "memory-swappiness": ownMemory, "kernel-memory": ownMemory,
	"oom-kill-disable": ownMemory, "oom-score-adj": ownMemory, "shm-size": "give a size in the guest: " +
		"mount -o remount,size=1g /dev/shm",
	"cpu-shares": "use --cpus", "cpu-quota": "use --cpus", "cpu-period": "use --cpus", "cpuset-cpus": "use --cpus",
	"pids-limit": "use --ulimit nproc=N",
	"sysctl":     "set it in the guest: banger exec VM -- sysctl -w NAME=VALUE",
	"group-add":  "use --user USER:GROUP, or the image's /etc/group",
	"ip":         ownAddress, "ip6": ownAddress, "mac-address": ownAddress,
	"network-alias": "a VM is known by its name on its network", "link": "a VM is known by its name on its network",
	"log-driver": "the log is kept by banger: banger logs", "log-opt": "the log is kept by banger: banger logs",
	"storage-opt": "use --disk", "domainname": "use --hostname NAME.DOMAIN",
	"annotation": "use --label", "label-file": "use --label",
	"expose": "each port of a VM is open on an address of its own: banger ports",
}

// security puts what --security-opt, --privileged and --cap-add ask for into s, and tells what changes nothing.
func (o *Options) security(s *banger.Spec) error {
	const already = "commands in a VM have all rights in a kernel of their own already"
	if o.Privileged {
		o.tell("--privileged changes nothing: " + already)
	}
	if len(s.Confine.CapAdd) > 0 && len(s.Confine.CapDrop) == 0 {
		o.tell("--cap-add changes nothing: " + already)
	}
	for _, opt := range o.SecurityOpt {
		switch opt {
		case "no-new-privileges", "no-new-privileges=true", "no-new-privileges:true":
			s.Confine.NoNewPrivileges = true
		case "no-new-privileges=false", "no-new-privileges:false":
		case "seccomp=unconfined", "seccomp:unconfined", "apparmor=unconfined", "apparmor:unconfined",
			"label=disable", "label:disable", "systempaths=unconfined":
			o.tell("--security-opt " + opt + " changes nothing: " + already)
		default:
			return banger.Errorf(banger.CodeInvalid, "--security-opt %.80q cannot be done in a VM", opt).
				WithHint("no-new-privileges can; the boundary to this host is the VM")
		}
	}
	return nil
}

func (o *Options) tell(text string) {
	if o.Tell != nil {
		o.Tell(text)
	}
}
