package banger_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// layout says which packages of this module a package may import, and why. It is the authority on the architecture.
// docs/adr explains how it came to differ from the first design.
var layout = map[string]struct {
	may    string // packages of this module; "." is the root package
	exec   bool   // may start programs
	reason string
}{
	".":                {"", false, "the nouns are imported by all and import nothing of ours"},
	"cmd/banger":       {"internal/cli internal/daemon", false, "a main only starts things"},
	"cmd/banger-agent": {"internal/agent", false, "a main only starts things"},
	"internal/cli": {
		". internal/api/client internal/api/wire internal/cli/account internal/cli/acp internal/cli/agent internal/cli/background internal/cli/command internal/cli/completion internal/cli/config internal/cli/diff internal/cli/doctor internal/cli/filecopy internal/cli/format internal/cli/library internal/cli/logs internal/cli/manual internal/cli/remote internal/cli/render internal/cli/secret internal/cli/session internal/cli/snapshot internal/cli/spec internal/cli/sshfiles internal/cli/system internal/cli/tooling internal/cli/view internal/cli/web internal/cli/work internal/cli/workspace internal/config internal/dns internal/host internal/logfile internal/notation internal/process internal/report internal/sshconf internal/text",
		true, "the CLI sees the daemon only through its API; it runs ssh and the host's resolver"},
	"internal/cli/command": {
		". internal/api/client internal/cli/connect internal/cli/format internal/cli/render internal/cli/session internal/host internal/nearest internal/remote internal/text", false,
		"what commands share, whichever they are"},
	"internal/cli/completion": {". internal/cli/command internal/config internal/credential internal/recipe internal/remote internal/tooling", false,
		"what may come at a place of a command line, whatever the command does"},
	"internal/cli/manual": {". internal/cli/command", false,
		"man pages of what commands say of themselves, whatever they do"},
	"internal/cli/library": {
		". internal/api/client internal/cli/account internal/cli/command internal/cli/format internal/cli/render internal/cli/spec internal/text", false,
		"commands for images, kernels and templates; it knows none for VMs"},
	"internal/cli/logs": {". internal/api/client internal/cli/command internal/cli/render internal/frame internal/text", false,
		"what VMs wrote, side by side and by time, wherever it is kept"},
	"internal/cli/account": {
		". internal/api/client internal/cli/command internal/cli/render internal/credential internal/image/source internal/registry",
		false, "a user's logins and proxies, whatever a request is for; a reference says which registries it means"},
	"internal/credential": {". internal/blob internal/text", true,
		"where docker and podman keep logins, whatever they are for; helpers are programs"},
	"internal/cli/system": {
		". internal/api/client internal/api/wire internal/cli/command internal/cli/sshfiles internal/dns internal/reset internal/text", false,
		"commands for all of banger at once; they work without a daemon"},
	"internal/reset": {
		". internal/blob internal/cgroup internal/network/bridge internal/overlay internal/private internal/process internal/shim internal/untrusted internal/vmdir",
		true, "what is found and removed without a daemon; a user namespace removes files of subordinate users"},
	"internal/cli/format": {". internal/cli/render internal/text", false,
		"values by a user's template; it knows no command"},
	"internal/local": {
		". internal/api/client internal/api/wire internal/blob internal/config internal/exchange internal/host internal/tooling internal/tree internal/workspace", false,
		"the user's files for the web UI, whoever asks"},
	"internal/remote": {". internal/blob internal/host internal/mux internal/splice", true,
		"how another host's daemon is reached, whatever it is asked for; it runs the user's ssh"},
	"internal/cli/remote": {". internal/cli/command internal/cli/render internal/private internal/remote", true,
		"which host's daemon a command uses, whatever the command does; it runs ssh"},
	"internal/cli/web": {". internal/api/client internal/cli/command internal/host internal/local", true,
		"how a browser gets to the web UI, whatever that shows; it starts the browser"},
	"internal/web": {". internal/api/wire internal/private internal/process internal/text", true,
		"who may use the API from a browser, whatever the API and the page do; it starts its own process"},
	"web": {"", false, "the files of a page"},
	"internal/cli/view": {
		". internal/api/client internal/cli/command internal/cli/format internal/cli/render internal/cli/spec internal/text", false,
		"commands that only show VMs"},
	"internal/cli/diff": {". internal/api/client internal/cli/command internal/cli/render internal/text", false,
		"changes of files for a user, however they are found"},
	"internal/comparison": {
		". internal/branch internal/guest internal/plan internal/process internal/reserve internal/shim internal/snapshot internal/vmdir internal/vmm",
		false, "which disks are compared, and the VM that reads them; it parses no file system"},
	"internal/agent/compare": {".", false, "two trees of files, whoever has them"},
	"internal/cli/connect": {". internal/api/client internal/host internal/private internal/process", true,
		"finds the daemon and starts it, whatever it is asked for"},
	"internal/cli/doctor": {"internal/api/wire internal/cli/connect internal/host internal/report", false,
		"what this host can do, with a daemon or without one"},
	"internal/report": {". internal/api/wire internal/dns internal/host internal/logfile internal/overlay internal/reset", true,
		"how banger is doing on a host, whoever asks; it looks for programs and asks the resolver"},
	"internal/cli/snapshot": {". internal/api/client internal/cli/command internal/cli/format internal/cli/render", false,
		"snapshots and forks for a user, however they are made"},
	"internal/cli/secret": {". internal/api/client internal/cli/command internal/cli/render internal/cli/spec", false,
		"secrets of VMs for a user, wherever they are kept"},
	"internal/cli/background": {
		". internal/api/client internal/cli/command internal/cli/logs internal/cli/render internal/cli/secret internal/cli/session internal/cli/spec internal/cli/workspace internal/notation internal/text",
		false, "sessions for a user, however the guest keeps them"},
	"internal/cli/workspace": {
		". internal/api/client internal/cli/command internal/cli/render internal/cli/snapshot internal/exchange internal/git internal/text internal/tree internal/workspace",
		false, "workspaces for a user: what a person asks for, and is told"},
	"internal/exchange": {
		". internal/api/client internal/archive internal/frame internal/sparse internal/text internal/tree internal/workspace",
		false, "workspaces between this host and VMs, whoever asks for it"},
	"internal/cli/tooling": {"internal/cli/command internal/cli/config internal/cli/render internal/text internal/tooling", false,
		"a plan for a user, however it is made"},
	"internal/cli/config": {". internal/blob internal/cli/command internal/cli/render internal/config internal/toml internal/tooling internal/untrusted",
		true, "files for a user, whatever is done with them; it runs the user's editor"},
	"internal/config": {". internal/blob internal/nearest internal/notation internal/private internal/recipe internal/text internal/toml internal/tooling internal/untrusted",
		false, "what a user and a repository want, wherever it is used"},
	"internal/tooling": {". internal/toml", false, "which tools files ask for; it installs none"},
	"internal/toml":    {"", false, "a file format"},
	"internal/nearest": {"", false, "words, whatever they are for"},
	"internal/hazard":  {"", false, "files that tools obey, wherever a tree comes from"},
	"internal/workspace": {". internal/blob internal/ext4 internal/git internal/hazard internal/text internal/tree", false,
		"what goes into a guest and what comes out, however it travels"},
	"internal/cli/work": {
		". internal/api/client internal/bundle internal/cli/account internal/cli/background internal/cli/command internal/cli/config internal/cli/filecopy internal/cli/render internal/cli/secret internal/cli/session internal/cli/spec internal/cli/workspace internal/config internal/git internal/nearest internal/notation internal/recipe internal/text internal/tooling internal/workspace",
		false, "a VM for a repository, made of what the other commands do"},
	"internal/cli/agent": {
		". internal/api/client internal/blob internal/cli/background internal/cli/command internal/cli/filecopy internal/cli/render internal/cli/session internal/cli/spec internal/cli/work internal/cli/workspace internal/config internal/private internal/recipe internal/tooling internal/workspace",
		false, "agents by name: images, logins and words, whatever the agent says"},
	"internal/cli/acp": {
		". internal/acp internal/api/client internal/cli/agent internal/cli/command internal/cli/render internal/cli/secret internal/cli/work internal/cli/workspace internal/frame internal/private internal/text",
		false, "carries the messages of an editor; what they say is for package acp"},
	"internal/acp":           {"", false, "messages between an editor and an agent, however they travel"},
	"internal/testing/model": {"", false, "plays a model, whoever asks it"},
	"internal/testing/toolserver": {". internal/bundle internal/recipe", false,
		"plays the servers that have tools, whoever installs them"},
	"internal/recipe": {".", false, "what an agent needs is data, whatever is made of it"},
	"internal/bundle": {". internal/blob internal/contextio internal/private internal/recipe", false,
		"pinned programs become a layer, whatever they are for"},
	"internal/tree": {". internal/git", false, "trees of files as git keeps them, whatever they are for"},
	"internal/git":  {". internal/text", true, "runs the host's git, and believes no repository"},
	"internal/cli/spec": {". internal/config internal/host internal/notation internal/secret", false,
		"a user's words become a Spec, whoever makes the VM"},
	"internal/cli/render": {". internal/text", false, "what is shown, whichever command shows it"},
	"internal/cli/session": {". internal/cli/render internal/frame internal/text", false,
		"streams and a terminal, whoever made them"},
	"internal/cli/filecopy": {". internal/api/client internal/archive internal/cli/render internal/frame", false,
		"a copy, whoever typed it"},
	"internal/cli/sshfiles": {". internal/api/client internal/host internal/sshconf", false,
		"files for OpenSSH, no connection"},
	"internal/daemon": {
		". internal/api internal/api/wire internal/cgroup internal/comparison internal/dns internal/history internal/host internal/image internal/kernel internal/network internal/network/bridge internal/private internal/recovery internal/registry internal/report internal/reserve internal/reset internal/shim internal/shim/server internal/splice internal/store internal/supervisor internal/vmdir internal/vmm internal/vmm/choice internal/vmm/firecracker internal/vmm/qemu internal/web web",
		false, "the daemon wires, it decides nothing"},
	"internal/api/wire": {". internal/frame internal/private internal/text", false,
		"how requests and answers travel, and what both ends call by one name; it knows no route"},
	"internal/api/client": {". internal/api/wire internal/usage", false,
		"calls know nouns and paths, not the server that answers them"},
	"internal/api": {". internal/api/wire internal/archive internal/frame internal/text internal/usage", false,
		"routes know nouns, not machinery, and no client"},
	"internal/supervisor": {
		". internal/access internal/assembly internal/branch internal/cgroup internal/custody internal/feed internal/friendly internal/guest internal/idle internal/image internal/kernel internal/launch internal/library internal/limit internal/network/bridge internal/networks internal/parking internal/plan internal/process internal/reserve internal/resolve internal/secret internal/shim internal/store internal/text internal/view internal/vmdir internal/vmm internal/vmm/choice internal/wake internal/warm",
		false, "decisions only: no HTTP, SQL or processes of its own"},
	"internal/view": {". internal/feed internal/parking", false, "what others see of a VM, whoever changes it"},
	"internal/assembly": {
		". internal/disk internal/launch internal/library internal/networks internal/reserve internal/resolve internal/vmdir",
		false, "the parts of a new VM; it starts nothing"},
	"internal/secret": {". internal/blob internal/private internal/untrusted", false,
		"keys and their files on the host, whatever they open"},
	"internal/custody": {". internal/guest internal/secret internal/vmdir", false,
		"who has which secret; it starts and stops no VM"},
	"internal/branch": {
		". internal/friendly internal/overlay internal/reserve internal/secret internal/shim internal/snapshot internal/untrusted internal/vmdir internal/vmm internal/vmm/choice",
		false, "snapshots and forks, however a VM starts"},
	"internal/overlay": {
		". internal/blob internal/qcow2 internal/sparse internal/untrusted internal/vmdir internal/vmm", false,
		"layers of disks, whatever is in them"},
	"internal/snapshot": {
		". internal/blob internal/sealed internal/sparse internal/untrusted internal/vmdir internal/vmm", false,
		"files of snapshots, however they are taken"},
	"internal/sealed": {"internal/sparse internal/vmm", false, "memories that nobody changes, whosever they are"},
	"internal/launch": {
		". internal/disk internal/guest internal/network/bridge internal/networks internal/plan internal/reserve internal/secret internal/shim internal/sshconf internal/vmm internal/warm",
		false, "one start of a VM, whatever its state is"},
	"internal/template": {". internal/blob internal/sealed internal/untrusted internal/vmdir internal/vmm", false,
		"files of templates, whatever they are cut of"},
	"internal/warm": {
		". internal/disk internal/guest internal/network internal/plan internal/process internal/shim internal/template internal/untrusted internal/vmdir internal/vmm",
		false, "which template a start needs, and its making; it knows neither states nor rows"},
	"internal/proxy":   {".", false, "proxies of a client for a program, whatever that does"},
	"internal/idle":    {"", false, "which running VMs nobody uses; it knows neither VMs nor what becomes of them"},
	"internal/parking": {".", false, "rules of what a daemon does by itself, without effects and without a clock"},
	"internal/plan": {
		". internal/guest internal/image internal/kernel internal/library internal/limit internal/network internal/networks internal/overlay internal/resolve internal/shim internal/vmdir internal/vmm internal/vmm/choice",
		false, "what a start needs; it starts nothing"},
	"internal/access": {
		". internal/frame internal/guest internal/history internal/image internal/network/bridge internal/output internal/resolve internal/secret internal/shim", false,
		"what clients do inside running VMs; it changes none"},
	"internal/recovery": {". internal/shim internal/store internal/vmdir", false,
		"rows made again from records; it runs no VM"},
	"internal/resolve":  {". internal/guest", false, "docker's rules, without effects"},
	"internal/friendly": {"", false, "random names, whatever has them"},
	"internal/frame":    {".", false, "one format of bytes, whatever they are for"},
	"internal/history":  {". internal/feed internal/usage", false, "what VMs have used, however they are asked"},
	"internal/usage":    {"", false, "nouns of one stream, whoever fills it"},
	"internal/feed":     {"", false, "the latest changes of something, whatever changes"},
	"internal/notation": {".", false, "policies and forwards as a person writes them, wherever they are written"},
	"internal/limit":    {". internal/cgroup", false, "what one VM may use, however it is run"},
	"internal/logfile":  {". internal/text", false, "a log of limited size, whatever is logged"},
	"internal/library": {". internal/image internal/kernel internal/reserve", false,
		"what VMs are made of, and who needs it; it runs none"},
	"internal/pin": {"", false, "who holds a thing, whatever it is"},
	"internal/networks": {". internal/guest internal/network internal/network/bridge internal/notation", false,
		"which VM is on which network; it starts and stops none"},
	"internal/shim": {". internal/process internal/text internal/untrusted internal/vmm", true,
		"what a daemon and one VM's process say to each other; its client starts it"},
	"internal/shim/server": {
		". internal/accept internal/frame internal/guest internal/mux internal/network internal/network/netstack internal/output internal/private internal/shim internal/shim/denial internal/shim/inlet internal/splice internal/text internal/untrusted internal/vmm internal/vmm/jail",
		false, "one VM's process; it never sees images or rows"},
	"internal/shim/denial": {". internal/guest internal/untrusted", false, "what was refused, whatever refuses it"},
	"internal/shim/inlet": {". internal/guest internal/network internal/shim internal/splice", false,
		"how the host reaches one guest, however that runs"},
	"internal/wake": {". internal/network internal/networks internal/shim internal/text", false,
		"who connects to a VM that is suspended, however it goes on"},
	"internal/output": {". internal/frame internal/untrusted", false,
		"a file with what a command wrote, however that came to the host"},
	"internal/splice": {"internal/frame internal/network", false, "two connections as one, whatever they carry"},
	"internal/untrusted": {"", false,
		"files where another user may have set traps, whatever they are for"},
	"internal/ipaddr": {"", false, "what kinds of addresses there are, whoever may reach them"},
	"internal/text":   {".", false, "what may be shown of others' text, wherever it comes from"},
	"internal/testing/hosttest": {
		". internal/api internal/api/wire internal/comparison internal/frame internal/history internal/image internal/kernel internal/private internal/report internal/reset internal/shim/server internal/splice internal/store internal/supervisor internal/testing/vmmtest internal/vmm internal/vmm/choice internal/web",
		true, "a whole daemon with the driver in memory for tests; it builds the agent"},
	"internal/testing/apitest": {". internal/api/wire internal/frame", false,
		"a false daemon for the tests of clients"},
	"internal/testing/processtest": {"", true,
		"what a test's own process uses; it starts the test again in a namespace"},
	"internal/accept": {"", false, "listeners that outlive their errors, whatever comes in"},
	"internal/archive": {". internal/archive/pax internal/frame internal/sparse internal/text", false,
		"files to a tar and back, at both ends of a copy"},
	"internal/archive/pax": {".", false, "a file format"},
	"internal/blob": {"internal/contextio internal/flight internal/sparse", false,
		"files that are complete or absent, and their digests"},
	"internal/contextio": {"", false, "reading that ends with a context, whatever is read"},
	"internal/flight":    {"", false, "one piece of work for several callers, whatever it is"},
	"internal/qcow2":     {"", false, "overlays of disks, whoever has written into them"},
	"internal/sparse":    {"", false, "data and holes of files, whatever they hold"},
	"internal/image": {
		". internal/blob internal/contextio internal/flight internal/image/convert internal/image/layer internal/image/source internal/pin internal/registry internal/reserve internal/sparse",
		false, "which images are kept, and for whom; it reads no manifest's form and no layer's entries"},
	"internal/image/source": {
		". internal/blob internal/contextio internal/image/layer internal/proxy internal/registry internal/reserve", true,
		"where images come from, whatever becomes of them; mmdebstrap makes those of the recipes"},
	"internal/image/convert": {
		". internal/blob internal/contextio internal/ext4 internal/image/layer internal/sparse", false,
		"layers to a file system, wherever they come from and whoever keeps it"},
	"internal/image/layer": {". internal/blob internal/inflate", false,
		"the bytes of a layer, wherever they come from and whatever files they hold"},
	"internal/testing/imagetest": {"internal/blob", true,
		"images for tests; e2fsprogs checks what became of them"},
	"internal/testing/overlaytest": {"", true, "what overlayfs shows; it mounts"},
	"internal/ext4":                {"", false, "a file format"},
	"internal/inflate":             {"", false, "a file format"},
	"internal/registry": {". internal/blob internal/ipaddr internal/text", false,
		"what registries of images speak; it stores nothing"},
	"internal/testing/registrytest": {"", false, "a registry that fails on demand"},
	"internal/kernel": {". internal/blob internal/ext4 internal/pin internal/proxy internal/sparse", true,
		"where kernels come from; apt-get and dpkg-deb fetch them"},
	"internal/network": {". internal/accept internal/dns", false,
		"what all networks of VMs share: addresses, flows, forwards and the host's resolver"},
	"internal/network/policy": {". internal/ipaddr internal/network", false,
		"what a guest may reach, whoever carries its packets"},
	"internal/network/nameserver": {". internal/accept internal/network internal/network/policy", false,
		"answers to guests as their policies allow, on whichever sockets"},
	"internal/network/netstack": {". internal/network internal/network/nameserver internal/network/policy",
		false, "a VM's network seen from outside: packets and sockets, no VMM and no rows"},
	"internal/network/bridge": {
		". internal/blob internal/dns internal/ipaddr internal/network internal/network/bridge/nft internal/network/nameserver internal/network/policy internal/private",
		false, "networks made by the host's kernel, no VMM and no rows"},
	"internal/network/bridge/nft": {"", false, "declared tables of nftables, whatever they are for"},
	"internal/testing/networktest": {"internal/testing/processtest", false,
		"what tests of networks share"},
	"internal/dns": {". internal/accept internal/blob", false,
		"names and the host's resolver, whoever the VMs are"},
	"internal/cgroup":     {"", false, "what processes may use together, whoever they are"},
	"internal/disk":       {". internal/blob internal/ext4 internal/sparse internal/untrusted", false, "a VM's writable disk"},
	"internal/vmm":        {"internal/blob internal/sparse internal/untrusted", false, "the seam between us and any VMM"},
	"internal/vmm/choice": {". internal/vmm", false, "which VMM runs a VM here; it runs none"},
	"internal/vmm/jail": {"internal/untrusted", false,
		"where the roots of VMMs are, whichever has one"},
	"internal/vmdir": {". internal/blob internal/untrusted internal/vmm/jail", false,
		"where the files of VMs are, whatever they hold"},
	"internal/process": {"internal/vmm", false,
		"processes of ours that outlive the one that started them, whatever they do"},
	"internal/vmm/child": {"internal/vmm", true, "starts a VMM, whichever it is"},
	"internal/vmm/firecracker": {
		"internal/sparse internal/text internal/untrusted internal/vmm internal/vmm/child internal/vmm/jail", true,
		"an adapter to one VMM"},
	"internal/testing/double": {"internal/mux", true,
		"stands for Firecracker in tests; it must know nothing of the driver that it examines"},
	"internal/testing/double/jailer": {"", false,
		"stands for Firecracker's jailer in tests; it must know nothing of the driver either"},
	"internal/testing/guesttest": {
		". internal/disk internal/ext4 internal/guest internal/kernel internal/vmm internal/testing/vmmtest", true,
		"a real guest for the tests of drivers"},
	"internal/testing/guesttest/echo": {"", false, "the one program of that guest"},
	"internal/vmm/pagemap": {"internal/sparse internal/vmm", false,
		"which pages of a file a process has changed, whatever they hold"},
	"internal/vmm/qemu": {
		"internal/sparse internal/text internal/vmm internal/vmm/child internal/vmm/pagemap", true,
		"an adapter to one VMM"},
	"internal/testing/vmmtest": {
		". internal/agent internal/frame internal/guest internal/mux internal/qcow2 internal/sparse internal/vmm", true,
		"the suite that every driver passes; its driver runs the agent as a child"},
	"internal/mux": {". internal/frame", false, "streams of one byte channel, whatever they carry"},
	"internal/guest": {". internal/frame internal/text", false,
		"what the host asks of the agent, however its streams are made"},
	"internal/agent": {
		". internal/accept internal/agent/boot internal/agent/channel internal/agent/command internal/agent/compare internal/agent/console internal/agent/freezer internal/agent/listing internal/agent/output internal/agent/probe internal/agent/secret internal/agent/session internal/agent/sshd internal/agent/stream internal/agent/workspace internal/archive internal/frame internal/guest internal/mux",
		false, "runs in the guest, where no program may be assumed"},
	"internal/agent/boot": {
		". internal/agent/command internal/agent/console internal/agent/freezer internal/agent/renew internal/guest", false,
		"the system before and after it serves, whoever asks for what"},
	"internal/agent/command": {". internal/agent/console internal/agent/vector", false,
		"starts commands by itself, since it must wait for all children"},
	"internal/agent/session": {
		". internal/agent/command internal/agent/console internal/agent/probe internal/agent/screen internal/agent/stream internal/agent/transcript internal/feed internal/frame",
		false, "commands that outlive their clients, however those come"},
	"internal/agent/secret": {". internal/agent/command internal/agent/console", false,
		"files in the guest's memory, wherever their values come from"},
	"internal/agent/workspace": {". internal/agent/command internal/agent/console internal/frame internal/guest internal/ignore internal/sparse", false,
		"trees of the host in the guest, whoever asks for them"},
	"internal/ignore":           {"", false, "which files git would not add, wherever its rules come from"},
	"internal/agent/transcript": {"internal/frame", false, "what a command wrote, whatever the command is"},
	"internal/agent/probe":      {".", false, "whether something in the guest works, whatever it is"},
	"internal/agent/stream": {". internal/agent/command internal/agent/console internal/agent/vector internal/frame", false,
		"a command and its client, whatever the command is for"},
	"internal/agent/renew":   {"", false, "when a guest is configured, nor what a VM is"},
	"internal/agent/freezer": {". internal/agent/console", false, "which processes run, whatever they are"},
	"internal/agent/listing": {".", false, "what is at a path, however it is copied"},
	"internal/agent/output": {". internal/frame internal/guest", false,
		"what a command wrote and the host does not have, whatever the command is"},
	"internal/agent/console": {"", false, "what the agent prints, whatever it is about"},
	"internal/agent/screen":  {"", false, "what a terminal shows, whatever runs in it"},
	"internal/agent/sshd": {". internal/accept internal/agent/command", false,
		"one protocol on one stream, however that came"},
	"internal/agent/channel": {"internal/agent/boot internal/agent/vector", false,
		"the port to the host, whatever its bytes say"},
	"internal/agent/vector": {"", false, "several buffers by one call, whatever they hold"},
	"internal/testing/agenttest": {". internal/frame internal/guest internal/mux internal/testing/processtest", true,
		"the real agent for the tests of its packages; it must import none of them"},
	"internal/store":   {". internal/blob internal/reserve", false, "rows to nouns and back"},
	"internal/sshconf": {"internal/blob", false, "OpenSSH's files, made of names that it does not trust"},
	"internal/host":    {".", false, "what this host can do"},
	"internal/reserve": {".", false, "room that is held back on a disk, whoever needs it"},
	"internal/private": {".", false, "what only this user may change or hear, whatever it is"},
	"bench": {". internal/api/client internal/guest internal/mux", true,
		"figures of real runs; built with the tag bench only"},
	"bench/image": {". internal/image internal/testing/overlaytest internal/inflate", true,
		"the figures of images beside those of rivals, which are why it is a module of its own"},
	"power": {"", true,
		"a user's requests and files only; built with the tag power only"},
	"e2e": {"", true, "a user knows nothing of our insides"},
	"node": {". internal/api/client internal/host node/kubelet node/provider node/worker", false,
		"it connects a cluster with a daemon; a module of its own, because its libraries are large"},
	"node/pod": {".", false, "what a Pod is as a VM, however VMs are made"},
	"node/worker": {". internal/api/client internal/frame internal/text node/pod", false,
		"one Pod, whoever has bound it"},
	"node/provider": {". node/pod node/worker", false, "which Pods there are, however one runs"},
	"node/kubelet": {". internal/api/client internal/frame internal/text", false,
		"streams of users to VMs, however a Pod became one"},
	"node/cluster": {"", false, "the control plane for tests, a module of its own, because it is larger than all else"},
	"node/e2e":     {"", true, "a user of kubectl knows nothing of our insides; built with the tag cluster only"},
}

// confined lists imports that only certain packages may have.
var confined = map[string]string{
	"database/sql":                 "internal/store",
	"net/http":                     "internal/api internal/api/client internal/api/wire internal/bundle internal/cli/web internal/daemon internal/image/source internal/registry internal/testing/apitest internal/testing/model internal/testing/registrytest internal/vmm/firecracker internal/testing/double internal/local internal/web node node/worker",
	"github.com/coder/websocket":   "internal/web",
	"os/user":                      "internal/host",
	"unsafe":                       "internal/agent/boot internal/agent/command internal/archive internal/host internal/inflate internal/shim/server",
	"gvisor.dev":                   "internal/network/netstack",
	"github.com/google/nftables":   "internal/network/bridge internal/network/bridge/nft",
	"github.com/vishvananda":       "internal/ipaddr internal/network/bridge internal/network/netstack internal/testing/networktest",
	"github.com/mdlayher/netlink":  "internal/network/bridge internal/network/bridge/nft",
	"github.com/florianl/go-nflog": "internal/network/bridge",
	"math/rand":                    "",
	"math/rand/v2":                 "",
	"log":                          "",
	"io/ioutil":                    "",
	"net/http/pprof":               "",
	"github.com/spf13":             "internal/cli internal/cli/account internal/cli/acp internal/cli/agent internal/cli/background internal/cli/command internal/cli/completion internal/cli/config internal/cli/diff internal/cli/library internal/cli/logs internal/cli/manual internal/cli/remote internal/cli/secret internal/cli/snapshot internal/cli/spec internal/cli/system internal/cli/tooling internal/cli/view internal/cli/web internal/cli/work internal/cli/workspace node/cluster",
	"github.com/fsnotify":          "internal/logfile",
	"gopkg.in/natefinch":           "internal/logfile",
}

const module = "banger"

func TestImportsFollowTheLayout(t *testing.T) {
	for dir, files := range parsePackages(t) {
		rule, ok := layout[dir]
		if !ok {
			t.Errorf("package %s is not in the layout: name it, with what it may import and why", dir)
			continue
		}
		for name, file := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			for _, imp := range file.Imports {
				checkImport(t, dir, name, imp, strings.Fields(rule.may), rule.exec, rule.reason)
			}
		}
	}
}

func checkImport(t *testing.T, dir, file string, spec *ast.ImportSpec, may []string, exec bool, reason string) {
	t.Helper()
	name, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case name == module || strings.HasPrefix(name, module+"/"):
		ours := strings.TrimPrefix(strings.TrimPrefix(name, module), "/")
		if ours == "" {
			ours = "."
		}
		if !slices.Contains(may, ours) {
			t.Errorf("%s imports %s: it may import %v, because %s", file, name, may, reason)
		}
	case name == "os/exec" && !exec:
		t.Errorf("%s imports os/exec: %s may not start programs, because %s", file, dir, reason)
	}
	for prefix, where := range confined {
		if (name == prefix || strings.HasPrefix(name, prefix+"/") && prefix != "log") &&
			!slices.Contains(strings.Fields(where), dir) {
			t.Errorf("%s imports %s, which belongs to [%s] alone", file, name, where)
		}
	}
}

func TestEveryPackageSaysWhatItIsForAndMustNotKnow(t *testing.T) {
	for dir, files := range parsePackages(t) {
		doc := ""
		for _, file := range files {
			if file.Doc != nil {
				doc += file.Doc.Text()
			}
		}
		start := "Package "
		for _, file := range files {
			if file.Name.Name == "main" {
				start = "Command "
			}
		}
		if !strings.HasPrefix(doc, start) {
			t.Errorf("package %s has no doc comment that starts with %q", dir, start)
		}
		if start == "Package " && !slices.ContainsFunc([]string{"must not", "contains no", "imports nothing",
			"knows nothing"}, func(s string) bool { return strings.Contains(strings.Join(strings.Fields(doc), " "), s) }) {
			t.Errorf("the doc comment of %s does not say what the package must not know", dir)
		}
	}
}

var fset = token.NewFileSet()

// parsePackages returns all Go files of the module by directory and path.
func parsePackages(t *testing.T) map[string]map[string]*ast.File {
	t.Helper()
	packages := map[string]map[string]*ast.File{}
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		hidden := strings.HasPrefix(d.Name(), ".") && name != "."
		if d.IsDir() && (hidden || slices.Contains([]string{"testdata", "bin", "node_modules"}, d.Name())) {
			return filepath.SkipDir
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		file, err := parser.ParseFile(fset, name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir := path.Dir(filepath.ToSlash(name))
		if packages[dir] == nil {
			packages[dir] = map[string]*ast.File{}
		}
		packages[dir][name] = file
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(packages) < 10 {
		t.Fatalf("only %d packages found: the test looks in the wrong place", len(packages))
	}
	return packages
}
