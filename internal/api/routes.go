package api

import (
	"net/http"
	"slices"
	"time"

	"banger"
	"banger/internal/api/wire"
	"banger/internal/usage"
)

// route is one method of one path, with what openapi.json says about it.
type route struct {
	method, path string
	handle       func(*Server, http.ResponseWriter, *http.Request) error
	name         string // the operation's id
	about        string // one sentence or more, without the last full stop
	query        []parameter
	body         any // a zero value of the JSON body's type, content, or nil
	answer       any // a zero value of the JSON answer's type, progress, lines, upgrade or content; nil for status 204
}

// parameter is one parameter of a query.
type parameter struct {
	name, about string
	zero        any // a zero value of its type; a slice means that the parameter can be repeated
	required    bool
}

// Kinds of bodies and answers that are not one JSON value.
type (
	progress struct{}                  // one banger.Event per line; the last one has the result or the error
	lines    struct{ of any }          // one JSON value per line
	content  []string                  // bytes of one of these types
	upgrade  struct{ protocol string } // status 101; then the connection carries the protocol
)

// loadPath and extendPath accept an archive, which may be as large as the host's disk, and sendPath the input of a
// command. All other bodies are small.
const (
	loadPath   = "/v1/images/load"
	extendPath = "/v1/images/extend"
	sendPath   = "/v1/vms/{vm}/sessions/{session}/send"
	maxArchive = 1 << 40 // bytes
)

// Parameters that several routes have.
var (
	paramTail    = parameter{"tail", "lines from the end, or all", "", false}
	paramFollow  = parameter{"follow", "go on until the VM ends", false, false}
	paramGrace   = parameter{"grace", "seconds until programs are killed; default: the VM's stop_timeout, or 10", 0, false}
	paramSecrets = parameter{"with_secrets", "the VM may have secrets, which are then on the disk", false, false}
	paramImage   = parameter{"reference", "reference or digest", "", true}
)

// routes is the whole API. openapi.json is generated from it.
var routes = slices.Concat(daemonRoutes, reportRoutes, vmRoutes, guestRoutes, sessionRoutes, workspaceRoutes,
	secretRoutes, snapshotRoutes, diffRoutes, networkRoutes, imageRoutes, kernelRoutes, templateRoutes)

// anyVersion reports whether a route is for clients of all versions: each can ask what the daemon is, and end it.
func (r route) anyVersion() bool {
	return slices.Contains([]string{"/v1/version", "/v1/shutdown"}, r.path)
}

var daemonRoutes = []route{
	{"GET", "/openapi.json", openAPIDocument, "openAPI", "This document", nil, nil, content{"application/json"}},
	{"GET", "/v1/version", version, "version", "What the daemon is, and what it can do", nil, nil, wire.Version{}},
	{"POST", "/v1/shutdown", shutdown, "shutdown", "End the daemon; VMs go on running", nil, nil, wire.Version{}},
	{"POST", "/v1/ui", openUI, "openUI", "Open the web UI on loopback for one browser, by an address that works once " +
		"and for a minute", nil, nil, wire.UI{}},
	{"DELETE", "/v1/ui", closeUI, "closeUI", "Close the web UI, and end the sessions of all browsers", nil, nil, nil},
	{"GET", "/v1/events", events, "events",
		"What happens to VMs, one change per line. Without since, the first line has the whole state. " +
			"A client that was cut off goes on with the cursor of its last line; if changes were missed, " +
			"it gets a line with the whole state",
		changeParams, nil, lines{banger.Change{}}},
	{"GET", "/v1/metrics", metrics, "metrics",
		"What running VMs use of their host, one line every ten seconds. Without since, or if lines were missed, the " +
			"whole state comes first: a line with state, one for each VM with its last hour, and one with a cursor. The " +
			"daemon keeps the history in memory: when it ends, the history is lost. Watching wakes no VM and does not count " +
			"as its use",
		slices.Concat(changeParams, []parameter{
			{"vm", "only of this VM: a name, an id or a unique prefix of an id", "", false},
			{"day", "also the last 24 hours, in steps of five minutes", false, false},
		}), nil, lines{usage.Metrics{}}},
}

var vmRoutes = []route{
	{"GET", "/v1/vms", listVMs, "listVMs", "List VMs, newest first",
		[]parameter{
			{"all", "also VMs at rest", false, false},
			{"size", "with what each takes of the host's disk", false, false},
			{"filter", "name=, id=, state=, image= or label=KEY[=VALUE]", []string{}, false},
		},
		nil, []banger.VM{}},
	{"POST", "/v1/vms", createVM, "createVM", "Create a VM and, with start, boot it",
		[]parameter{{"start", "boot it", false, false}}, wire.CreateRequest{}, progress{}},
	{"POST", "/v1/vms/prune", pruneVMs, "pruneVMs", "Remove all VMs at rest", nil, nil, []banger.VM{}},
	{"GET", "/v1/vms/{vm}", getVM, "getVM", "One VM by name, id or unique prefix of an id",
		[]parameter{{"env", "with the values of the environment, which are *** otherwise", false, false}}, nil, banger.VM{}},
	{"PATCH", "/v1/vms/{vm}", updateVM, "updateVM",
		"Change what a VM does by itself, and its sizes; those of a VM that is not at rest wait for its next boot", nil,
		banger.Update{}, banger.VM{}},
	{"DELETE", "/v1/vms/{vm}", removeVM, "removeVM", "Remove a VM and its disk",
		[]parameter{{"force", "kill it if it runs", false, false}}, nil, nil},
	{"POST", "/v1/vms/{vm}/start", startVM, "startVM", "Boot a VM, or let a suspended or paused one go on",
		[]parameter{
			{"attach", "leave the main command to a client", false, false},
			{"cold", "boot a suspended VM from its disk; its memory is lost", false, false},
		}, nil, progress{}},
	{"POST", "/v1/vms/{vm}/pause", pauseVM, "pauseVM", "Stop the CPUs of a running VM; its memory stays", nil, nil,
		banger.VM{}},
	{"POST", "/v1/vms/{vm}/suspend", suspendVM, "suspendVM",
		"Write a VM's memory to disk and end its processes on the host", []parameter{paramSecrets}, nil, banger.VM{}},
	{"POST", "/v1/vms/{vm}/resume", resumeVM, "resumeVM", "Let a paused or suspended VM go on", nil, nil, progress{}},
	{"POST", "/v1/vms/{vm}/stop", stopVM, "stopVM", "Shut a VM down cleanly", []parameter{paramGrace}, nil, banger.VM{}},
	{"POST", "/v1/vms/{vm}/restart", restartVM, "restartVM", "Stop and boot a VM", []parameter{paramGrace}, nil,
		progress{}},
	{"POST", "/v1/vms/{vm}/kill", killVM, "killVM", "Signal the main command; 9 ends the VM",
		[]parameter{{"signal", "1 to 64; default 9", 0, false}}, nil, banger.VM{}},
	{"POST", "/v1/vms/{vm}/rename", renameVM, "renameVM", "Give a VM another name", nil, wire.RenameRequest{},
		banger.VM{}},
	{"GET", "/v1/vms/{vm}/wait", waitVM, "waitVM", "Answer when the VM is at rest or gone", nil, nil, banger.VM{}},
}

var guestRoutes = []route{
	{"POST", "/v1/vms/{vm}/exec", exec, "exec",
		"Run a command. Send Upgrade: banger-exec; after 101 both sides send frames: one byte type, three zero bytes, " +
			"four bytes big-endian length, payload (types in internal/frame)",
		nil, banger.Exec{}, upgrade{wire.UpgradeExec}},
	{"GET", "/v1/vms/{vm}/ready", ready, "ready", "Answer when the ready probe of a VM has succeeded",
		[]parameter{paramWithin}, nil, banger.Readiness{}},
	{"POST", "/v1/vms/{vm}/attach", attach, "attach",
		"Connect with a VM's main command, which runs already. Send Upgrade: banger-exec; after 101 frames follow as with " +
			"exec. Closing the connection leaves the command running",
		[]parameter{
			{"rows", "the height of the client's terminal", 0, false},
			{"cols", "its width", 0, false},
		}, nil, upgrade{wire.UpgradeExec}},
	{"POST", "/v1/vms/{vm}/files", files, "files",
		"Copy files from or to a VM, or say what is at a path (op=stat) or in a directory (op=list), which answer a " +
			"FileInfo. For archive and extract send Upgrade: banger-files; after 101 frames follow as with exec: archive " +
			"answers the tar in frame.Stdout and then frame.Exit with a CopyReport, extract takes it in frame.Stdin up to " +
			"frame.StdinEOF and answers frame.Response with a CopyReport; both may end with frame.Error instead. A tar " +
			"without its last frame is not whole",
		[]parameter{
			{"op", "what to do: stat, list, archive or extract", "", true},
			{"path", "a path of the VM, any bytes; a relative one starts at the image's working directory", "", true},
			{"name", "archive: what the file or tree is called in the tar; . sends a directory's content", "", false},
			{"follow", "stat, archive: a symlink at the path stands for its target", false, false},
			{"into", "extract: any entries, into the directory at the path; else one file or tree, by docker's rules", false,
				false},
			{"owners", "extract: keep uid and gid; else all becomes root's", false, false},
			{"xattrs", "false: leave extended attributes out", false, false},
		},
		nil, upgrade{wire.UpgradeFiles}},
	{"GET", "/v1/vms/{vm}/files/content", fileContent, "fileContent",
		"The bytes of a file, or a tar of a directory, to be saved. An answer that is cut off is not whole",
		[]parameter{{"path", "a path of the VM, any bytes; a symlink there stands for its target", "", true}}, nil,
		content{"application/octet-stream", "application/x-tar"}},
	{"POST", "/v1/vms/{vm}/ssh", ssh, "ssh",
		"Connect to the VM's SSH server. Send Upgrade: banger-ssh; after 101 the SSH protocol follows, and only the given " +
			"keys may log in",
		nil, banger.SSH{}, upgrade{wire.UpgradeSSH}},
	{"GET", "/v1/vms/{vm}/logs", logs, "logs",
		"The guest's console, where its kernel, the agent and the image's own init write. With output, what the main " +
			"command wrote: Content-Type is then " + wire.MediaFrames + ", and frames follow as with exec, of frame.Stdout " +
			"and frame.Stderr and, with stamps, of frame.Stamp. It is the console all the same if only that has the main " +
			"command's output. Of a VM that an earlier banger started, and has run since, follow sends all times and no stamps",
		[]parameter{
			paramTail, paramFollow,
			{"output", "only what the main command wrote", false, false},
			{"since", "output: only what was written at this time or later; tail counts lines of that", time.Time{}, false},
			{"until", "output: only what was written up to this time, which ends follow", time.Time{}, false},
			{"position", "output: only what comes behind this many bytes; if a stamp says more, those between are gone", 0,
				false},
			{"stamps", "output: before each frame a frame.Stamp with position and time: two big-endian integers of 64 bits, " +
				"the bytes written before and the nanoseconds of the Unix epoch", false, false},
		}, nil,
		content{"application/octet-stream", wire.MediaFrames}},
	{"GET", "/v1/vms/{vm}/processes", processes, "processes", "The processes of a running VM, as its guest tells them",
		nil, nil, []banger.Process{}},
	{"GET", "/v1/vms/{vm}/stats", stats, "stats", "What a running VM has used since it was started", nil, nil,
		banger.Stats{}},
	{"POST", "/v1/vms/{vm}/commit", commitVM, "commitVM", "Make an image of what a running VM has changed", nil,
		wire.CommitRequest{}, progress{}},
}

var networkRoutes = []route{
	{"GET", "/v1/vms/{vm}/ports", listPorts, "listPorts", "What listens in the guest, and where it is reached",
		[]parameter{{"probe", "ask each service whether it speaks HTTP", false, false}}, nil, []banger.Listener{}},
	{"POST", "/v1/vms/{vm}/forwards", addForward, "addForward",
		"Forward a port of the host; in force at once when the VM runs", nil, banger.Forward{}, banger.Forward{}},
	{"DELETE", "/v1/vms/{vm}/forwards", removeForward, "removeForward", "End a forward, given as it is in force", nil,
		banger.Forward{}, nil},
	{"PUT", "/v1/vms/{vm}/policy", setPolicy, "setPolicy", "Replace what the VM may reach; flows that it forbids are cut",
		nil, banger.Policy{}, banger.VM{}},
	{"GET", "/v1/vms/{vm}/denials", denials, "denials", "What the policy has refused since the last start",
		[]parameter{paramTail, paramFollow}, nil, lines{banger.Decision{}}},
	{"GET", "/v1/vms/{vm}/decisions", decisions, "decisions",
		"What the policy has refused, and which flows it has allowed, since the last start. Of a VM on a bridge network " +
			"there are only refusals", []parameter{paramTail, paramFollow}, nil, lines{banger.Decision{}}},
	{"POST", "/v1/vms/{vm}/policy/once", allowOnce, "allowOnce",
		"Let an allowing rule count in front of the policy of a running VM for a time, but not on a bridge network. Flows " +
			"that it has allowed go on after that", nil, wire.OnceRequest{}, nil},
	{"PUT", "/v1/vms/{vm}/network", connectNetwork, "connectNetwork", "Give a VM at rest another network", nil,
		connectRequest{}, banger.VM{}},
	{"GET", "/v1/networks", listNetworks, "listNetworks", "List bridge networks", nil, nil, []banger.Network{}},
	{"POST", "/v1/networks", createNetwork, "createNetwork", "Make a network whose VMs see each other", nil,
		banger.Network{}, banger.Network{}},
	{"GET", "/v1/networks/{network}", getNetwork, "getNetwork", "One network", nil, nil, banger.Network{}},
	{"DELETE", "/v1/networks/{network}", removeNetwork, "removeNetwork", "Remove a network that no VM uses", nil, nil,
		nil},
}

var imageRoutes = []route{
	{"GET", "/v1/images", listImages, "listImages", "List images",
		[]parameter{{"check", "ask the registries whether tags have moved on", false, false}}, nil, []banger.Image{}},
	{"POST", "/v1/images/pull", pullImage, "pullImage", "Fetch an image and make its root file system", nil,
		wire.PullRequest{}, progress{}},
	{"POST", "/v1/images/push", pushImage, "pushImage", "Write an image to the registry that its name says", nil,
		wire.PushRequest{}, progress{}},
	{"POST", "/v1/images/register", registerImage, "registerImage", "Make an image of an ext4 file of the host", nil,
		wire.RegisterRequest{}, banger.Image{}},
	{"POST", "/v1/images/promote", promoteImage, "promoteImage", "Copy a registered file into the store", nil,
		wire.PromoteRequest{}, banger.Image{}},
	{"POST", "/v1/images/tag", tagImage, "tagImage", "Give an image another name", nil, wire.TagRequest{},
		banger.Image{}},
	{"GET", "/v1/images/save", saveImages, "saveImages",
		"Write images as one tar: an OCI layout that docker load reads too",
		[]parameter{{"reference", "reference or digest", []string{}, true}}, nil, content{"application/x-tar"}},
	{"POST", loadPath, loadImages, "loadImages",
		"Bring in the images of an archive: an OCI layout or what docker save writes", nil, content{"application/x-tar"},
		progress{}},
	{"POST", extendPath, extendImage, "extendImage", "Make an image of another one and one more layer, a plain tar",
		[]parameter{{"base", "reference or digest", "", true}, {"target", "name of the new image", "", true},
			{"author", "who made it, for its history", "", false}, {"message", "what it is, for its history", "", false}},
		content{"application/x-tar"}, progress{}},
	{"GET", "/v1/images/usage", imageUsage, "imageUsage", "What each image takes on the host", nil, nil,
		[]banger.ImageUsage{}},
	{"POST", "/v1/images/prune", pruneImages, "pruneImages", "Remove images and blobs that are not needed", nil,
		wire.PruneRequest{}, banger.Pruned{}},
	{"GET", "/v1/image", getImage, "getImage", "One image by reference or digest", []parameter{paramImage}, nil,
		banger.Image{}},
	{"GET", "/v1/image/history", imageHistory, "imageHistory", "How an image was built, newest step first",
		[]parameter{paramImage}, nil, []banger.ImageStep{}},
	{"DELETE", "/v1/image", removeImage, "removeImage", "Remove an image that no VM uses", []parameter{paramImage}, nil,
		nil},
}

var kernelRoutes = []route{
	{"GET", "/v1/kernels", listKernels, "listKernels", "List kernels", nil, nil, []banger.Kernel{}},
	{"POST", "/v1/kernels/pull", pullKernel, "pullKernel", "Fetch the distribution's cloud kernel", nil, nil, progress{}},
	{"POST", "/v1/kernels/import", importKernel, "importKernel",
		"Add a kernel from files of the host; without image the host's own", nil, wire.ImportRequest{}, progress{}},
	{"GET", "/v1/kernels/{kernel}", getKernel, "getKernel", "One kernel", nil, nil, banger.Kernel{}},
	{"DELETE", "/v1/kernels/{kernel}", removeKernel, "removeKernel", "Remove a kernel that no VM uses", nil, nil, nil},
}

var templateRoutes = []route{
	{"GET", "/v1/templates", listTemplates, "listTemplates",
		"List the templates from which VMs start, the one that was used last first", nil, nil, []banger.Template{}},
	{"POST", "/v1/templates/prune", pruneTemplates, "pruneTemplates",
		"Remove the templates from which no VM can start any more, because their image, kernel or banger is gone",
		[]parameter{{"all", "also those from which VMs can start", false, false},
			{"dry_run", "only say which", false, false}}, nil, []banger.Template{}},
	{"DELETE", "/v1/templates/{id}", removeTemplate, "removeTemplate",
		"Remove a template by its id or a unique prefix of it; VMs that have started from it go on", nil, nil, nil},
}
