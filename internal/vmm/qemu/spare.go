package qemu

import "fmt"

// sparePorts is the number of places for devices that come while the VM runs. A restored VM has the places that its
// snapshot had, so they must be there before the first one is taken.
const sparePorts = 4

// spareSlot is the slot of the bus where the spare ports are, as functions of one device. It is behind all other
// devices, which get the lowest free slots.
const spareSlot = 0x18

// sparePort returns the name of a spare port, which is the name of the bus behind it.
func sparePort(i int) string { return fmt.Sprintf("spare%d", i) }

// spareArguments returns QEMU's arguments for n spare ports.
func spareArguments(n int) (a []string) {
	for i := range n {
		a = append(a, "-device", fmt.Sprintf("pcie-root-port,id=%s,chassis=%d,addr=%#x.%d,multifunction=on",
			sparePort(i), i+1, spareSlot, i))
	}
	return a
}
