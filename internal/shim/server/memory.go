package server

import "golang.org/x/sys/unix"

// keepNoCore prevents core files of this process and its VMM, which would contain the guest's memory.
func keepNoCore() { unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}) } // lowering a limit is always allowed

// hideMemory hides this process's memory from other processes of its user (prctl(2), PR_SET_DUMPABLE). It must come
// after the VMM's start, because afterwards root owns the files in /proc to which the ids of a user namespace are
// written. Files that a daemon reads there stay readable for everybody. It does not cover the VMM, because execve(2)
// makes a process dumpable again.
func hideMemory() { unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) } // prctl accepts 0
