package boot

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/agent/console"
	"banger/internal/agent/renew"
	"banger/internal/guest"
)

// resolvConf returns the text of resolv.conf(5), which the C library reads.
func resolvConf(n guest.Network) string {
	var text strings.Builder
	for _, dns := range n.DNS {
		text.WriteString("nameserver " + dns + "\n")
	}
	if len(n.Search) > 0 {
		text.WriteString("search " + strings.Join(n.Search, " ") + "\n")
	}
	return text.String()
}

// start configures a guest that boots or goes on from a template, and adds what the VM adds to the image's file system.
// Randomness comes first: everything random that follows then differs from other guests.
func (m *machine) start(c guest.Config) error {
	if c.Seed != nil {
		if err := reseed(c.Seed); err != nil {
			return err
		}
	}
	if err := m.renew(c); err != nil { // before the machine id is another one
		return err
	}
	if err := identify(c, m.ownInit); err != nil {
		return err
	}
	if err := configure(c); err != nil {
		return err
	}
	return rootDir("/").protect(c)
}

// renew makes new, at a VM's first start, what a boot of the image's init has made. That boot was the template's, also
// for a VM that boots because it could not go on from there: it has the template's disk.
func (m *machine) renew(c guest.Config) error {
	if !m.ownInit || c.MachineID == "" {
		return nil
	}
	err := renew.Files("/", upperDir(m.disk))
	if err != nil && !m.booted { // any image boots
		console.Warn(err)
		return nil
	}
	return err
}

// identify gives the guest its machine id and its NIC's address, as far as c has them. ownInit is as for
// renewMachineID.
func identify(c guest.Config, ownInit bool) error {
	if c.MachineID != "" {
		if err := renewMachineID(c.MachineID, ownInit); err != nil {
			console.Warn(fmt.Errorf("renewing the machine id: %w", err))
		}
	}
	if c.Network == nil || c.Network.MAC == "" {
		return nil
	}
	if err := setMAC(c.Network.MAC); err != nil {
		return fmt.Errorf("giving the NIC its address %s: %w", c.Network.MAC, err)
	}
	return nil
}

func setClock(c guest.Config) {
	if c.TimeUnixNano == 0 {
		return
	}
	ts := unix.NsecToTimespec(c.TimeUnixNano)
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		console.Warn(fmt.Errorf("setting the clock: %w", err))
	}
}

// configure sets the clock and the host name, writes the network's files and the
// certificates that the host adds, and brings the NIC up. It warns of what the guest can
// do without.
func configure(c guest.Config) error {
	setClock(c)
	if err := unix.Sethostname([]byte(c.Hostname)); err != nil {
		return fmt.Errorf("setting the host name: %w", err)
	}
	root := rootDir("/")
	short, _, _ := strings.Cut(c.Hostname, ".")
	names := c.Hostname
	if short != names {
		names += " " + short
	}
	hosts := "127.0.0.1\tlocalhost\n127.0.1.1\t" + names + "\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	for _, e := range c.Hosts {
		hosts += e.Address + "\t" + e.Name + "\n"
	}
	files := map[string]string{"etc/hostname": c.Hostname + "\n", "etc/hosts": hosts}
	if c.Network != nil {
		files["etc/resolv.conf"] = resolvConf(*c.Network)
	}
	for name, content := range files {
		if err := root.writeFile(name, content); err != nil {
			console.Warn(fmt.Errorf("writing /%s: %w", name, err))
		}
	}
	for _, dir := range c.Dirs {
		if err := root.make(dir); err != nil {
			console.Warn(fmt.Errorf("making %s: %w", dir, err))
		}
	}
	if err := root.trust(c.CA); err != nil {
		console.Warn(fmt.Errorf("adding certificates to trust: %w", err))
	}
	if c.Nested {
		if err := prepareNested(); err != nil {
			return err
		}
	}
	if c.Network != nil {
		return configureNIC(*c.Network)
	}
	return nil
}
