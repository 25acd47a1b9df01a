package server

import "golang.org/x/sys/unix"

// keepNoCore has neither this process nor its VMM leave a core file, in which a guest's memory
// would be.
func keepNoCore() { unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}) } // to lower a limit is always allowed

// hideMemory keeps this process's memory from others of its user (prctl(2), PR_SET_DUMPABLE).
// It comes after the VMM's start: what a user namespace is told about its ids is written to
// files in /proc that are root's from then on. Those that a daemon reads anybody may read. Of
// the VMM it says nothing, for execve(2) makes a process dumpable again.
func hideMemory() { unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) } // 0 is a value that it takes
