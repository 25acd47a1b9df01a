package format

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"banger"
	"banger/internal/cli/render"
	"banger/internal/text"
)

// The functions in this file are the one table of docker's field names: those of its lists first, and those of its
// inspect below.

// maxCommand is how many characters of a command docker's lists show.
const maxCommand = 20

// VM returns the fields of docker ps (docs.docker.com/reference/cli/docker/container/ls).
func VM(vm banger.VM) map[string]any {
	return map[string]any{
		"ID":         vm.ID,
		"Names":      vm.Name,
		"Image":      vm.Spec.Image,
		"Command":    strconv.Quote(text.Limit(Command(vm), maxCommand)),
		"CreatedAt":  local(vm.CreatedAt),
		"RunningFor": render.Age(vm.CreatedAt),
		"Ports":      Ports(vm),
		"State":      dockerState(vm),
		"Status":     dockerStatus(vm),
		"Networks":   vm.Spec.Network,
		"Labels":     labels(vm.Spec.Labels),
		"Mounts":     "",
	}
}

// Image returns the fields of docker images (docs.docker.com/reference/cli/docker/image/ls).
func Image(img banger.Image) map[string]any {
	repository, tag := splitTag(img.Reference)
	return map[string]any{
		"ID":           img.Digest,
		"Repository":   repository,
		"Tag":          tag,
		"Digest":       img.Digest,
		"CreatedAt":    local(img.Created),
		"CreatedSince": render.Age(img.Created),
		"Size":         banger.FormatSize(img.Size),
	}
}

// Step returns the fields of docker history.
func Step(s banger.ImageStep) map[string]any {
	return map[string]any{
		"ID":           s.Layer,
		"CreatedAt":    local(s.Created),
		"CreatedSince": render.Age(s.Created),
		"CreatedBy":    s.By,
		"Size":         banger.FormatSize(s.Size),
		"Comment":      s.Comment,
	}
}

// Network returns the fields of docker network ls.
func Network(n banger.Network) map[string]any {
	return map[string]any{
		"ID":        n.Name,
		"Name":      n.Name,
		"Driver":    "bridge",
		"Scope":     "local",
		"IPv6":      "false",
		"Internal":  "false",
		"Labels":    labels(nil),
		"CreatedAt": local(n.CreatedAt),
	}
}

// Stats returns the fields of docker stats. cpu is in percent of one CPU.
func Stats(s banger.Stats, cpu float64) map[string]any {
	pair := func(a, b uint64) string { return banger.FormatSize(int64(a)) + " / " + banger.FormatSize(int64(b)) }
	share := 0.0
	if s.MemoryLimit > 0 {
		share = 100 * float64(s.Memory) / float64(s.MemoryLimit)
	}
	return map[string]any{
		"Container": s.ID,
		"ID":        s.ID,
		"Name":      s.Name,
		"CPUPerc":   fmt.Sprintf("%.2f%%", cpu),
		"MemUsage":  pair(uint64(s.Memory), uint64(s.MemoryLimit)),
		"MemPerc":   fmt.Sprintf("%.2f%%", share),
		"NetIO":     pair(s.NetIn, s.NetOut),
		"BlockIO":   pair(s.DiskRead, s.DiskWritten),
	}
}

// InspectVM returns the fields of docker inspect of a container (Engine API, ContainerInspect).
func InspectVM(vm banger.VM) map[string]any {
	main := banger.Exec{}
	if vm.Main != nil {
		main = *vm.Main
	}
	path, args := "", []string{}
	if len(main.Args) > 0 {
		path, args = main.Args[0], main.Args[1:]
	}
	ports, exposed := map[string]any{}, map[string]any{}
	for _, f := range forwardsOf(vm) {
		key := fmt.Sprintf("%d/%s", f.GuestPort, f.Protocol)
		known, _ := ports[key].([]any)
		ports[key] = append(known, map[string]any{"HostIp": f.HostIP, "HostPort": fmt.Sprint(f.HostPort)})
		exposed[key] = map[string]any{}
	}
	return map[string]any{
		"Id":           vm.ID,
		"Name":         "/" + vm.Name,
		"Created":      utc(vm.CreatedAt),
		"Path":         path,
		"Args":         args,
		"Image":        vm.ImageDigest,
		"State":        inspectState(vm),
		"RestartCount": vm.Restarts,
		"Mounts":       []any{},
		"Config": object{
			"Hostname":     vm.Spec.Hostname,
			"User":         vm.Spec.User,
			"Env":          list(main.Env),
			"Cmd":          list(vm.Spec.Cmd),
			"Entrypoint":   list(vm.Spec.Entrypoint),
			"Image":        vm.Spec.Image,
			"WorkingDir":   vm.Spec.WorkingDir,
			"Tty":          vm.Spec.TTY,
			"Labels":       nonNil(vm.Spec.Labels),
			"StopSignal":   vm.Spec.StopSignal,
			"ExposedPorts": exposed,
		},
		"HostConfig": object{
			"Memory":         vm.Spec.Memory,
			"NanoCpus":       int64(vm.Spec.CPUs) * 1_000_000_000,
			"NetworkMode":    vm.Spec.Network,
			"AutoRemove":     vm.Spec.AutoRemove,
			"Privileged":     true,
			"ReadonlyRootfs": vm.Spec.ReadOnly,
			"PortBindings":   ports,
			"Dns":            list(vm.Spec.DNS),
			"RestartPolicy":  restartPolicy(vm.Spec.Restart),
		},
		"NetworkSettings": object{
			"IPAddress": vm.Address,
			"Ports":     ports,
			"Networks":  map[string]any{vm.Spec.Network: object{"IPAddress": vm.Address}},
		},
	}
}

func restartPolicy(p banger.RestartPolicy) object {
	return object{"Name": cmp.Or(p.Name, banger.RestartNo), "MaximumRetryCount": p.Max}
}

// inspectState returns the fields of State.
func inspectState(vm banger.VM) object {
	code, reason := 0, ""
	if vm.ExitCode != nil {
		code = *vm.ExitCode
	}
	if vm.State == banger.StateFailed {
		reason = vm.Reason
	}
	return object{
		"Status":     dockerState(vm),
		"Running":    slices.Contains([]string{"running", "paused", "restarting"}, dockerState(vm)),
		"Paused":     dockerState(vm) == "paused",
		"Restarting": dockerState(vm) == "restarting",
		"Dead":       false,
		"OOMKilled":  false,
		"ExitCode":   code,
		"Error":      reason,
		"StartedAt":  utc(vm.StartedAt),
		"FinishedAt": utc(vm.FinishedAt),
	}
}

// InspectImage returns the fields of docker image inspect.
func InspectImage(img banger.Image) map[string]any {
	repository, tag := splitTag(img.Reference)
	system, arch, _ := strings.Cut(img.Platform, "/")
	arch, variant, _ := strings.Cut(arch, "/")
	tags := []string{}
	if tag != "<none>" {
		tags = append(tags, img.Reference)
	}
	exposed, volumes := map[string]any{}, map[string]any{}
	for _, p := range img.Config.Exposed {
		exposed[p] = map[string]any{}
	}
	for _, v := range img.Config.Volumes {
		volumes[v] = map[string]any{}
	}
	return map[string]any{
		"Id":           img.Digest,
		"RepoTags":     list(tags),
		"RepoDigests":  list([]string{repository + "@" + img.Digest}),
		"Created":      utc(img.Created),
		"Size":         img.Size,
		"Os":           system,
		"Architecture": arch,
		"Variant":      variant,
		"Config": object{
			"Entrypoint":   list(img.Config.Entrypoint),
			"Cmd":          list(img.Config.Cmd),
			"Env":          list(img.Config.Env),
			"WorkingDir":   img.Config.WorkingDir,
			"User":         img.Config.User,
			"StopSignal":   img.Config.StopSignal,
			"ExposedPorts": exposed,
			"Volumes":      volumes,
			"Labels":       nonNil(img.Config.Labels),
		},
		"RootFS": object{"Type": "layers", "Layers": list(img.Layers)},
	}
}

// InspectNetwork returns the fields of docker network inspect.
func InspectNetwork(n banger.Network) map[string]any {
	gateway := ""
	if p := n.Prefix(); p.IsValid() {
		gateway = p.Masked().Addr().Next().String()
	}
	return map[string]any{
		"Id":      n.Name,
		"Name":    n.Name,
		"Created": utc(n.CreatedAt),
		"Driver":  "bridge",
		"Scope":   "local",
		"IPAM":    object{"Config": []any{object{"Subnet": n.Subnet, "Gateway": gateway}}},
	}
}

// Command returns the main command of a VM as one line, or "".
func Command(vm banger.VM) string {
	if vm.Main == nil {
		return ""
	}
	return strings.Join(vm.Main.Args, " ")
}

// forwardsOf returns the forwards of a VM that are in force while it runs.
func forwardsOf(vm banger.VM) []banger.Forward {
	if vm.State.AtRest() {
		return nil
	}
	return vm.Forwards
}

// Ports returns the forwards of a VM that runs, as docker ps shows them.
func Ports(vm banger.VM) string {
	var all []string
	for _, f := range forwardsOf(vm) {
		all = append(all, fmt.Sprintf("%s->%d/%s", f.Host(), f.GuestPort, f.Protocol))
	}
	return strings.Join(all, ", ")
}

// dockerState returns docker's word for the state of a VM.
func dockerState(vm banger.VM) string {
	if !vm.RestartAt.IsZero() {
		return "restarting"
	}
	switch vm.State {
	case banger.StateStopped, banger.StateFailed:
		return "exited"
	case banger.StateStopping, banger.StateSuspending:
		return "running"
	case banger.StateSuspended, banger.StateResuming:
		return "paused"
	}
	return string(vm.State)
}

// dockerStatus returns the state of a VM and its age, as docker ps says them.
func dockerStatus(vm banger.VM) string {
	switch vm.State {
	case banger.StateCreated:
		return "Created"
	case banger.StateStopped, banger.StateFailed:
		code := 0
		if vm.ExitCode != nil {
			code = *vm.ExitCode
		}
		word := "Exited"
		if !vm.RestartAt.IsZero() {
			word = "Restarting"
		}
		return fmt.Sprintf("%s (%d) %s", word, code, render.Age(vm.FinishedAt))
	case banger.StatePaused:
		return "Up " + render.Since(vm.StartedAt) + " (Paused)"
	case banger.StateSuspended:
		return "Up " + render.Since(vm.StartedAt) + " (Suspended)"
	}
	return "Up " + render.Since(vm.StartedAt)
}

// splitTag returns the repository and the tag of a reference.
func splitTag(ref string) (repository, tag string) {
	name, _, _ := strings.Cut(ref, "@")
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i], name[i+1:]
	}
	return name, "<none>"
}

func labels(m map[string]string) labelList {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		all = append(all, k+"="+m[k])
	}
	return labelList{nonNil(m), strings.Join(all, ",")}
}

// nonNil returns m, of which a template's index gives "" for what is not there.
func nonNil(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

func list(words []string) []any {
	all := []any{}
	for _, w := range words {
		all = append(all, w)
	}
	return all
}

// local returns a time as docker's lists show it.
func local(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05 -0700 MST") }

// utc returns a time as docker's inspect shows it.
func utc(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
