package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctl numbers of linux/kvm.h (Documentation/virt/kvm/api.rst).
const (
	kvmGetAPIVersion       = 0xAE00
	kvmCreateVM            = 0xAE01
	kvmGetVCPUMmapSize     = 0xAE04
	kvmGetSupportedCPUID   = 0xC008AE05
	kvmCreateVCPU          = 0xAE41
	kvmSetUserMemoryRegion = 0x4020AE46
	kvmRun                 = 0xAE80
	kvmGetSregs            = 0x8138AE83
	kvmSetSregs            = 0x4138AE84
	kvmSetRegs             = 0x4090AE82
	kvmSetCPUID2           = 0x4008AE90

	kvmExitIO       = 2
	kvmExitInternal = 17
)

// probeCode is the code of the probe guest, in long mode: one SSE instruction that an instruction emulator does not
// know, a loop that shows an emulator's speed, then `out 0xe9, 'B'; hlt`.
var probeCode = []byte{
	0x66, 0x0f, 0xfe, 0xc0, // paddd xmm0, xmm0
	0xb9, 0x40, 0x0d, 0x03, 0x00, // mov ecx, 200000
	0xff, 0xc9, // dec ecx
	0x75, 0xfc, // jnz -4
	0x66, 0xba, 0xe9, 0x00, // mov dx, 0xe9
	0xb0, 0x42, // mov al, 'B'
	0xee, // out dx, al
	0xf4, // hlt
}

const (
	probeMemory  = 128 << 10
	probeTimeout = 250 * time.Millisecond
	probeFast    = 25 * time.Millisecond // hardware needs < 1 ms, an emulator 140 ms
	probeTries   = 5                     // the fastest counts, because a busy host may take the CPU away during a try
)

// probeKVM runs a tiny guest and returns nil when hardware executed it. The
// error is a clause for a person.
func probeKVM() error { return probeDevice("/dev/kvm") }

func probeDevice(path string) error {
	kvm, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("there is no /dev/kvm")
	case errors.Is(err, fs.ErrPermission):
		return errors.New("/dev/kvm may not be opened by this user; join the group kvm")
	case err != nil:
		return fmt.Errorf("opening /dev/kvm: %w", err)
	}
	defer unix.Close(kvm)
	if v, err := ioctl(kvm, kvmGetAPIVersion, 0); err != nil || v != 12 {
		return fmt.Errorf("/dev/kvm speaks API version %d, not 12", v)
	}
	return fastest(func() (time.Duration, error) {
		g, err := newProbeGuest(kvm)
		if err != nil {
			return 0, err
		}
		defer g.close()
		return g.run()
	})
}

// fastest repeats a probe until one try is as fast as hardware. It returns the error of a try at once.
func fastest(try func() (time.Duration, error)) error {
	least := time.Duration(math.MaxInt64)
	for range probeTries {
		took, err := try()
		if err != nil {
			return err
		}
		if least = min(least, took); least < probeFast {
			return nil
		}
	}
	return fmt.Errorf("KVM emulates instructions: the probe took %d ms instead of under 1", least.Milliseconds())
}

type probeGuest struct {
	vm, vcpu int
	mem, ctl []byte // guest memory, kvm_run
}

func newProbeGuest(kvm int) (_ *probeGuest, err error) {
	g := &probeGuest{vm: -1, vcpu: -1}
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	if g.vm, err = ioctl(kvm, kvmCreateVM, 0); err != nil {
		return nil, fmt.Errorf("KVM cannot create a VM: %w", err)
	}
	if g.mem, err = unix.Mmap(-1, 0, probeMemory, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_ANONYMOUS|unix.MAP_SHARED); err != nil {
		return nil, err
	}
	region := struct {
		slot, flags           uint32
		guestAddr, size, addr uint64
	}{size: probeMemory, addr: uint64(uintptr(unsafe.Pointer(&g.mem[0])))}
	if _, err = ioctlPtr(g.vm, kvmSetUserMemoryRegion, unsafe.Pointer(&region)); err != nil {
		return nil, fmt.Errorf("KVM refuses guest memory: %w", err)
	}
	if g.vcpu, err = ioctl(g.vm, kvmCreateVCPU, 0); err != nil {
		return nil, fmt.Errorf("KVM cannot create a CPU: %w", err)
	}
	size, err := ioctl(kvm, kvmGetVCPUMmapSize, 0)
	if err != nil {
		return nil, err
	}
	if g.ctl, err = unix.Mmap(g.vcpu, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, err
	}
	return g, g.setUp(kvm)
}

// setUp loads code and page tables and puts the CPU into long mode.
func (g *probeGuest) setUp(kvm int) error {
	const maxEntries = 256
	cpuid := make([]byte, 8+40*maxEntries) // struct kvm_cpuid2
	binary.LittleEndian.PutUint32(cpuid, maxEntries)
	if _, err := ioctlPtr(kvm, kvmGetSupportedCPUID, unsafe.Pointer(&cpuid[0])); err != nil {
		return fmt.Errorf("KVM does not tell its CPUID: %w", err)
	}
	if _, err := ioctlPtr(g.vcpu, kvmSetCPUID2, unsafe.Pointer(&cpuid[0])); err != nil {
		return fmt.Errorf("KVM refuses its own CPUID: %w", err)
	}
	copy(g.mem[0x1000:], probeCode)
	binary.LittleEndian.PutUint64(g.mem[0x2000:], 0x3000|3) // PML4 -> PDPT
	binary.LittleEndian.PutUint64(g.mem[0x3000:], 0x4000|3) // PDPT -> PD
	binary.LittleEndian.PutUint64(g.mem[0x4000:], 0x87)     // 2 MiB page, present, writable, user

	sregs := make([]byte, 312) // struct kvm_sregs: 8 segments of 24 bytes first
	if _, err := ioctlPtr(g.vcpu, kvmGetSregs, unsafe.Pointer(&sregs[0])); err != nil {
		return err
	}
	segment := func(i int, typ, db, l byte) {
		s := sregs[i*24:]
		binary.LittleEndian.PutUint64(s, 0)
		binary.LittleEndian.PutUint32(s[8:], 0xffffffff)
		binary.LittleEndian.PutUint16(s[12:], uint16(8*(i+1)))
		copy(s[14:], []byte{typ, 1 /* present */, 0 /* dpl */, db, 1 /* code/data */, l, 1 /* granularity */})
	}
	segment(0, 11, 0, 1)
	for i := 1; i < 6; i++ {
		segment(i, 3, 1, 0)
	}
	const cr0, efer = 24*8 + 16*2, 24*8 + 16*2 + 8*5
	binary.LittleEndian.PutUint64(sregs[cr0:], 0x80050033)
	binary.LittleEndian.PutUint64(sregs[cr0+16:], 0x2000) // CR3
	binary.LittleEndian.PutUint64(sregs[cr0+24:], 0x620)  // CR4: PAE, OSFXSR, OSXMMEXCPT
	binary.LittleEndian.PutUint64(sregs[efer:], 0x500)    // LME, LMA
	if _, err := ioctlPtr(g.vcpu, kvmSetSregs, unsafe.Pointer(&sregs[0])); err != nil {
		return fmt.Errorf("KVM refuses long mode: %w", err)
	}
	regs := make([]byte, 144) // struct kvm_regs: 16 general registers, rip, rflags
	binary.LittleEndian.PutUint64(regs[128:], 0x1000)
	binary.LittleEndian.PutUint64(regs[136:], 2)
	_, err := ioctlPtr(g.vcpu, kvmSetRegs, unsafe.Pointer(&regs[0]))
	return err
}

// run runs the guest and returns how long that took.
func (g *probeGuest) run() (time.Duration, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	tid, pid := unix.Gettid(), unix.Getpid()
	watchdog := time.AfterFunc(probeTimeout, func() {
		g.ctl[1] = 1 // immediate_exit
		unix.Tgkill(pid, tid, unix.SIGURG)
	})
	defer watchdog.Stop()
	start := time.Now()
	for {
		_, err := ioctl(g.vcpu, kvmRun, 0)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EINTR) {
			return 0, fmt.Errorf("KVM cannot run a guest: %w", err)
		}
		if time.Since(start) >= probeTimeout {
			return time.Since(start), nil // far too slow to be hardware
		}
	}
	took := time.Since(start)
	reason := binary.LittleEndian.Uint32(g.ctl[8:])
	switch {
	case reason == kvmExitInternal:
		return took, errors.New("KVM emulates instructions (paravirtual or nested host) and gave up on an ordinary one")
	case reason != kvmExitIO:
		return took, fmt.Errorf("the probe guest ended with KVM exit reason %d", reason)
	}
	port := binary.LittleEndian.Uint16(g.ctl[34:]) // kvm_run.io.port
	offset := binary.LittleEndian.Uint64(g.ctl[40:])
	if port != 0xe9 || offset >= uint64(len(g.ctl)) || g.ctl[offset] != 0x42 {
		return took, errors.New("the probe guest answered nonsense")
	}
	return took, nil
}

func (g *probeGuest) close() {
	if g.ctl != nil {
		unix.Munmap(g.ctl)
	}
	for _, fd := range []int{g.vcpu, g.vm} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	if g.mem != nil {
		unix.Munmap(g.mem)
	}
}

func ioctl(fd int, req uintptr, arg uintptr) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, arg)
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}

func ioctlPtr(fd int, req uintptr, p unsafe.Pointer) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(p))
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}
