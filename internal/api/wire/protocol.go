package wire

// Values of Upgrade, and what follows on the connection.
const (
	// UpgradeExec is for commands. Frames of package frame follow.
	UpgradeExec = "banger-exec"
	// UpgradeFiles is for copies. Frames of package frame follow. They distinguish a complete copy, a late failure, and
	// a broken connection.
	UpgradeFiles = "banger-files"
	// UpgradeWorkspace is for the baseline of a workspace, and for its changes. Frames of package frame follow.
	UpgradeWorkspace = "banger-workspace"
	// UpgradeSSH is for connections to a VM's SSH server. The SSH protocol follows.
	UpgradeSSH = "banger-ssh"
)

// MediaFrames is the type of an answer that is made of the frames of package frame.
const MediaFrames = "application/vnd.banger.frames"
