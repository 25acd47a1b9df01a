package completion

import (
	"context"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/config"
	"banger/internal/credential"
	"banger/internal/recipe"
	"banger/internal/tooling"
)

// recipes are the images that banger makes on the spot, so they are offered before they are there.
var recipes = []string{"debian-bookworm", "debian-bookworm-dev", "debian-bookworm-lab"}

// suits says with which VMs a command can do something, by the command's name. Other commands take all VMs.
var suits = map[string]func(banger.State) bool{
	"start":   func(s banger.State) bool { return !runs(s) || stands(s) },
	"resume":  stands,
	"pause":   banger.State.Lives,
	"suspend": banger.State.Lives,
	"connect": banger.State.AtRest,
	"stop":    runs,
	"kill":    runs,
	"exec":    runs,
	"ssh":     runs,
	"stats":   runs,
	"cp":      runs,
	"ports":   runs,
}

func stands(s banger.State) bool { return s == banger.StatePaused || s == banger.StateSuspended }

func runs(s banger.State) bool { return !s.AtRest() }

// vms returns the names of the VMs with which the command can do something.
func vms(ctx context.Context, p place) (names []string, err error) {
	suit := suits[p.command.Name()]
	list, err := p.Client.List(ctx, true, nil)
	for _, vm := range list {
		if suit == nil || suit(vm.State) {
			names = append(names, vm.Name)
		}
	}
	return names, err
}

// sessions returns the sessions of the VM before. For a flag, those are the sessions of all VMs that are typed already
// or, without any, of all that run. It wakes no VM for that.
func sessions(ctx context.Context, p place) (names []string, err error) {
	refs := p.args[:min(1, len(p.args))]
	if p.flag != nil {
		refs = p.args
	}
	if len(refs) == 0 {
		if refs, err = vms(ctx, p); err != nil {
			return nil, err
		}
	}
	for _, ref := range refs {
		vm, err := p.Client.Get(ctx, ref)
		if err != nil || !runs(vm.State) {
			continue // the others may have some
		}
		list, _ := p.Client.Sessions(ctx, ref)
		for _, s := range list {
			names = append(names, s.Name)
		}
	}
	return names, nil
}

// secrets returns the secrets of the VM before.
func secrets(ctx context.Context, p place) (names []string, err error) {
	if len(p.args) == 0 {
		return nil, nil
	}
	list, err := p.Client.Secrets(ctx, p.args[0])
	for _, s := range list {
		names = append(names, s.Name)
	}
	return names, err
}

// loginVMs returns VMs, behind the user that is typed already.
func loginVMs(ctx context.Context, p place) ([]string, error) {
	names, err := vms(ctx, p)
	if user, _, ok := strings.Cut(p.word, "@"); ok {
		for i := range names {
			names[i] = user + "@" + names[i]
		}
	}
	return names, err
}

// things returns all that inspect shows.
func things(ctx context.Context, p place) (names []string, err error) {
	for _, list := range []func(context.Context, place) ([]string, error){vms, images, networks, kernels} {
		more, err := list(ctx, p)
		if err != nil {
			return nil, err
		}
		names = append(names, more...)
	}
	return names, nil
}

func networks(ctx context.Context, p place) (names []string, err error) {
	list, err := p.Client.Networks(ctx)
	for _, n := range list {
		names = append(names, n.Name)
	}
	return names, err
}

func kernels(ctx context.Context, p place) (names []string, err error) {
	list, err := p.Client.Kernels(ctx)
	for _, k := range list {
		names = append(names, k.Name)
	}
	return names, err
}

func templates(ctx context.Context, p place) (ids []string, err error) {
	list, err := p.Client.Templates(ctx)
	for _, t := range list {
		ids = append(ids, t.ID)
	}
	return ids, err
}

func images(ctx context.Context, p place) (names []string, err error) {
	list, err := p.Client.Images(ctx, false)
	for _, img := range list {
		if img.Reference != "" {
			names = append(names, img.Reference)
		}
	}
	return names, err
}

// image offers images that are here and, where the command would fetch one, those of the recipes.
func image(p place) ([]string, cobra.ShellCompDirective) {
	if slices.Contains([]string{"run", "create", "pull"}, p.command.Name()) {
		return known(images, recipes...)(p)
	}
	return known(images)(p)
}

// forward offers the forwards of the VM before, where the command removes some.
func forward(p place) ([]string, cobra.ShellCompDirective) {
	if p.command.Name() != "rm" || len(p.args) == 0 {
		return nothing(p)
	}
	return known(func(ctx context.Context, p place) (list []string, err error) {
		vm, err := p.Client.Get(ctx, p.args[0])
		for _, f := range vm.Forwards {
			list = append(list, f.String())
		}
		return list, err
	})(p)
}

// copied offers VMs before the colon of a path, and files of this host.
func copied(p place) ([]string, cobra.ShellCompDirective) {
	before, _, inside := strings.Cut(p.word, ":")
	switch {
	case strings.Contains(before, "/") || strings.HasPrefix(before, "."):
		return file(p)
	case inside:
		return nothing(p) // a path in the guest
	}
	list, _ := known(vms)(p)
	list = slices.DeleteFunc(list, func(name string) bool { return !strings.HasPrefix(name, p.word) })
	if len(list) == 0 {
		return file(p)
	}
	for i := range list {
		list[i] += ":"
	}
	return append(list, files(p.word)...), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// files returns the files of the working directory whose names begin with word.
func files(word string) (names []string) {
	list, _ := os.ReadDir(".")
	for _, f := range list {
		name := f.Name()
		if !strings.HasPrefix(name, word) || strings.HasPrefix(name, ".") || strings.ContainsAny(name, ":\n\r\t") {
			continue
		}
		if f.IsDir() {
			name += "/"
		}
		names = append(names, name)
	}
	return names
}

// environment offers the variables of this shell.
func environment(place) (names []string, d cobra.ShellCompDirective) {
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		names = append(names, name)
	}
	slices.Sort(names)
	return names, cobra.ShellCompDirectiveNoFileComp
}

// states are the states in which a VM stays.
var states = []string{string(banger.StateCreated), string(banger.StateRunning), string(banger.StatePaused),
	string(banger.StateSuspended), string(banger.StateStopped), string(banger.StateFailed),
	string(banger.StateUnreachable)}

// filter offers keys, and behind a key its values.
func filter(p place) ([]string, cobra.ShellCompDirective) {
	key, _, ok := strings.Cut(p.word, "=")
	if !ok {
		return beginnings("=", "name", "id", "state", "status", "image", "label")(p)
	}
	complete := nothing
	switch key {
	case "name":
		complete = known(vms)
	case "image":
		complete = known(images)
	case "state", "status":
		complete = words(states...)
	}
	list, d := complete(p)
	list = slices.Clone(list)
	for i := range list {
		list[i] = key + "=" + list[i]
	}
	return list, d
}

// format offers the values of --format, which is a table unless its default says otherwise.
func format(p place) ([]string, cobra.ShellCompDirective) {
	if p.flag.DefValue == "table" {
		return words("table", "json")(p)
	}
	return words("json")(p)
}

// registries offers those at which the user has logged in.
func registries(p place) ([]string, cobra.ShellCompDirective) {
	hosts, err := credential.New(os.Getenv).Hosts()
	if err != nil {
		hosts = nil
	}
	return hosts, cobra.ShellCompDirectiveNoFileComp
}

// snapshots returns the names of all snapshots.
func snapshots(ctx context.Context, p place) (names []string, err error) {
	list, err := p.Client.Snapshots(ctx, "")
	for _, s := range list {
		names = append(names, s.Name)
	}
	return names, err
}

// sources returns what VMs can go on from.
func sources(ctx context.Context, p place) ([]string, error) {
	names, err := vms(ctx, p)
	if err != nil {
		return nil, err
	}
	more, err := snapshots(ctx, p)
	return append(names, more...), err
}

// agents returns the names of agents: banger's and the user's.
func agents(_ context.Context, p place) ([]string, error) {
	all, err := recipe.All()
	if err != nil {
		return nil, err
	}
	if user, err := config.LoadUser(p.Paths.Config); err == nil {
		maps.Copy(all, user.Agents)
	}
	return slices.Sorted(maps.Keys(all)), nil
}

// tasks returns the tasks of the repository around the working directory.
func tasks(context.Context, place) ([]string, error) {
	root, err := tooling.Root(".")
	if err != nil {
		return nil, err
	}
	project, _, err := config.LoadProject(root)
	if err != nil || project == nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(project.Tasks)), nil
}

func contexts(_ context.Context, p place) (names []string, err error) {
	list, _, err := p.Contexts().List()
	for _, c := range list {
		names = append(names, c.Name)
	}
	return names, err
}
