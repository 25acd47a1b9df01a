package guest

// InitArgument is the kernel argument that makes the image's own init PID 1.
const InitArgument = "banger.init=image"

// RestartArgument means that the VM ends by a restart, and in no other way.
const RestartArgument = "banger.end=restart"

// DisksArgument lists the guest's disks, separated by commas, in the order in which their devices appear. It is used
// if the disks have no serial numbers with their names.
const DisksArgument = "banger.disks"

// Waiting is the agent's message on the console when the guest is as far as all guests of its shape, and waits for its
// host. A template is cut after that.
const Waiting = "waiting for the host"

// MountArgument is the kernel argument with which the guest mounts its own disk before it waits. Otherwise it mounts it
// after, so that the disk may be one that a VM has used.
const MountArgument = "banger.wait=mounted"

// BootedArgument is the kernel argument with which the guest boots the image's own init before it waits. All processes
// are stopped while it waits.
const BootedArgument = "banger.wait=booted"
