package completion

import "banger"

// argumentValues says what completes the arguments that uses of commands name.
var argumentValues = map[string]completer{
	"VM":          known(vms),
	"VM...":       known(vms),
	"[VM...]":     known(vms),
	"[USER@]VM":   known(loginVMs),
	"THING...":    known(things),
	"IMAGE":       image,
	"IMAGE...":    image,
	"[IMAGE]":     known(images),
	"KERNEL...":   known(kernels),
	"TEMPLATE...": known(templates),
	"NETWORK":     known(networks, banger.NetworkUser, banger.NetworkBridge, banger.NetworkNone),
	"NETWORK...":  known(networks),
	"SRC":         copied,
	"VM:DST":      copied,
	"DIR":         directory,
	"[REGISTRY]":  registries,

	"allow|deny|FILE|-": wordsOrFile(banger.Allow, banger.Deny),

	"[IP:]HOST:GUEST[/udp]...": forward,
	"NAME":                     nothing, // a new one
	"NAME[:TAG]":               known(images),
	"COMMAND...":               nothing, // the guest's
	"[COMMAND...]":             nothing,
}

// flagValues says what completes the values of flags, by name. A flag that means something else to one command is there
// with the names of the command too.
var flagValues = map[string]completer{
	"ca":           file,
	"cap-add":      words(banger.CapabilityNames()...),
	"cap-drop":     words(banger.CapabilityNames()...),
	"cidfile":      file,
	"cpu-model":    words("host", "max", "EPYC-v1"),
	"cpus":         words("0.5", "1", "2", "4", "8"),
	"disk":         words("10g", "20g", "50g"),
	"env":          environment,
	"env-file":     file,
	"filter":       filter,
	"format":       format,
	"idle":         words("15m", "1h", "15m=stop"),
	"identity":     file,
	"init":         words(banger.InitAuto, banger.InitAgent, banger.InitImage),
	"input":        file,
	"kernel":       known(kernels),
	"log-level":    words("debug", "info", "warn", "error"),
	"memory":       words("512m", "1g", "2g", "4g"),
	"modules":      directory,
	"nested":       words(banger.NestedOn, banger.NestedForce),
	"net-policy":   wordsOrFile(banger.Allow, banger.Deny),
	"network":      known(networks, banger.NetworkUser, banger.NetworkBridge, banger.NetworkNone),
	"output":       file,
	"platform":     words("linux/amd64", "linux/arm64"),
	"pull":         words(banger.PullMissing, banger.PullAlways, banger.PullNever),
	"restart":      words(banger.RestartNo, banger.RestartOnFailure, banger.RestartAlways),
	"rootfs":       file,
	"security-opt": words("no-new-privileges", "seccomp=unconfined", "apparmor=unconfined", "label=disable"),
	"signal":       words(banger.SignalNames()...),
	"stop-signal":  words(banger.SignalNames()...),
	"type":         words("vm", "image", "network", "kernel"),
	"tail":         words("all", "10", "100"),
	"ttl":          words("1h", "8h=rm", "8h=suspend"),
	"ulimit":       beginnings("=", banger.UlimitNames()...),
	"vmlinux":      file,
	"warm":         words(banger.WarmAuto, banger.WarmNever, banger.WarmOnly, banger.WarmBooted),
	"vmm":          words(banger.VMMAuto, banger.VMMQEMU, banger.VMMFirecracker),

	"policy log tail": words("-1", "10", "100"),
}

// free has the flags whose values nobody can offer, and why.
var free = map[string]string{
	"add-host":     "a name and an address that the user knows",
	"author":       "a name",
	"dns":          "an address that the user knows",
	"dns-search":   "a domain that the user knows",
	"dynamic":      "a port that the user chooses",
	"entrypoint":   "a program of the guest",
	"hostname":     "a name that the user chooses",
	"last":         "a number of VMs",
	"label":        "words that the user chooses",
	"local":        "ports and hosts that the user chooses",
	"login":        "a user of the guest",
	"message":      "a sentence",
	"name":         "a name that the user chooses",
	"net-allow":    "a rule that the user makes",
	"net-deny":     "a rule that the user makes",
	"password":     "a secret",
	"option":       "an option of ssh, which has its own page",
	"proxy":        "a URL that the user knows",
	"publish":      "ports that the user chooses",
	"ready-fd":     "a descriptor that a program gives",
	"remote":       "ports and hosts that the user chooses",
	"server":       "an address that the user knows",
	"since":        "a cursor of an event",
	"stop-timeout": "a number of seconds",
	"subnet":       "a network that the user chooses",
	"time":         "a number of seconds",
	"tmpfs":        "a directory of the guest",
	"user":         "a user of the guest",
	"username":     "a name at a registry",
	"workdir":      "a directory of the guest",
}
