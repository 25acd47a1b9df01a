package qemu

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"banger/internal/vmm"
)

// Kernel command lines. quiet and notests are the two large savings of an
// emulated boot; the blacklisted initcalls are self-tests and tracing set-up
// that a throw-away guest does not need; norandmaps lets QEMU keep what it has
// translated (docs/adr/0008); no_timer_check leaves out a test of the timer, which
// fails on a busy host and ends in a panic, and which guests of KVM never run;
// panic=-1 with -no-reboot turns a guest panic into the end of the process.
const (
	cmdlineBase = "console=ttyS0 quiet panic=-1 reboot=t random.trust_cpu=on"
	cmdlineTCG  = " cryptomgr.notests no_timer_check tsc=reliable initcall_blacklist=jent_mod_init,load_system_certificate_list," +
		"crypto_kdf108_init,init_kprobe_trace,trace_eval_init,trace_eval_sync norandmaps"
)

func qmpPath(dir string) string     { return filepath.Join(dir, "qmp.sock") }
func channelPath(dir string) string { return filepath.Join(dir, "channel.sock") }

// argv returns QEMU's arguments for c. It is pure, so that a golden test can
// show exactly what we ask of QEMU.
func argv(c vmm.Config, v version) []string {
	cmdline := cmdlineBase
	if c.Accel == vmm.AccelTCG {
		cmdline += cmdlineTCG
	}
	if c.Cmdline != "" {
		cmdline += " " + c.Cmdline
	}
	a := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-name", "banger-" + c.ID,
		"-machine", "pc-q35-" + v.machine() + ",memory-backend=mem0,sata=off,smbus=off,usb=off,vmport=off",
		"-accel", string(c.Accel), "-cpu", cpu(c),
		"-smp", strconv.Itoa(c.CPUs), "-m", fmt.Sprintf("%dM", c.MemoryMiB),
		"-object", fmt.Sprintf("memory-backend-file,id=mem0,size=%dM,", c.MemoryMiB) + memory(c),
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-kernel", c.Kernel, "-initrd", c.Initrd, "-append", cmdline,
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-chardev", "socket,id=qmp,path=" + escape(qmpPath(c.Dir)) + ",server=on,wait=off", "-mon", "chardev=qmp,mode=control",
		"-chardev", "socket,id=agent,path=" + escape(channelPath(c.Dir)) + ",server=on,wait=off",
		"-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent,name=" + c.Channel,
		"-device", "virtio-rng-pci",
	}
	if c.Restore != "" {
		a = append(a, "-incoming", "defer")
	}
	for i, d := range c.Drives {
		node := fmt.Sprintf("drive%d", i)
		opts := fmt.Sprintf("driver=raw,node-name=%s,file.driver=file,file.filename=%s,file.locking=off,discard=unmap", node, escape(d.Path))
		if d.ReadOnly {
			opts += ",read-only=on"
		}
		// By itself QEMU stops a guest for which the host has no room, and nobody would know why.
		a = append(a, "-blockdev", opts, "-device", fmt.Sprintf("virtio-blk-pci,drive=%s,serial=%s,werror=report,rerror=report", node, d.Serial))
	}
	for i, n := range c.NICs {
		net := fmt.Sprintf("net%d", i)
		device := fmt.Sprintf("virtio-net-pci,netdev=%s,mac=%s,romfile=", net, n.MAC)
		if n.MTU > 0 {
			device += fmt.Sprintf(",host_mtu=%d", n.MTU)
		}
		a = append(a, "-netdev", netdev(net, n, firstFile+len(c.WrapFiles)+i), "-device", device)
	}
	return a
}

// memory is the file that holds guest memory: one of the VM's own, from which a snapshot
// is a copy, or that of a snapshot, which it must not change.
func memory(c vmm.Config) string {
	if c.Restore != "" && hasRAM(c.Restore) {
		return "mem-path=" + escape(filepath.Join(c.Restore, vmm.SnapshotRAM)) + ",share=off"
	}
	return "mem-path=" + escape(c.Memory) + ",share=on"
}

// firstFile is the first descriptor behind stdio.
const firstFile = 3

// netdev is the host's side of a NIC, whose tap, if it has one, is descriptor fd.
func netdev(id string, n vmm.NIC, fd int) string {
	if n.Tap != nil {
		return fmt.Sprintf("tap,id=%s,fd=%d,vhost=off", id, fd)
	}
	return fmt.Sprintf("stream,id=%s,server=off,addr.type=unix,addr.path=%s", id, escape(n.Socket))
}

// escape doubles commas, QEMU's way to keep one inside an option value.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }
