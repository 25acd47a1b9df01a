// Package daemon only wires: it builds the parts, restores the VMs, listens, and shuts down. It must not know how any
// part works. Every other decision belongs elsewhere.
package daemon

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"banger"
	"banger/internal/api"
	"banger/internal/cgroup"
	"banger/internal/comparison"
	"banger/internal/history"
	"banger/internal/host"
	"banger/internal/image"
	"banger/internal/kernel"
	"banger/internal/network"
	"banger/internal/network/bridge"
	"banger/internal/private"
	"banger/internal/registry"
	"banger/internal/report"
	"banger/internal/reserve"
	"banger/internal/reset"
	"banger/internal/shim/server"
	"banger/internal/splice"
	"banger/internal/store"
	"banger/internal/supervisor"
	"banger/internal/vmm/choice"
	"banger/internal/web"
)

//go:embed embedded
var embedded embed.FS

// Options say where a daemon keeps its files.
type Options struct {
	StateDir, RunDir, Socket string
	Accel                    string // overrides the KVM probe: "", kvm or tcg
	Log                      *slog.Logger
	LogFile                  string // of Log; "" if it has none
	Ready                    func() // called when the daemon answers
}

// shimArgv starts a shim of the daemon's own version, even if the program's file has been replaced meanwhile.
var shimArgv = []string{"/proc/self/exe", "shim"}

// vmmArgv is the command with which a shim starts its VMM.
var vmmArgv = []string{"/proc/self/exe", "vmm-exec"}

// RunShim runs a shim process. dir is also the working directory of the process; it is an argument because other
// processes find shims by their arguments.
func RunShim(ctx context.Context, dir string) error {
	return server.RunConfined(ctx, drivers(), append(slices.Clone(vmmArgv), dir))
}

// ExecVMM replaces this process with the VMM of the shim in dir. The VMM has only the rights of that VM.
func ExecVMM(_ string, argv []string) error { return server.ExecVMM(argv) }

// Run runs a daemon. It returns when ctx ends or when a client asks for the shutdown. VMs keep running.
func Run(ctx context.Context, o Options) error {
	vmms, err := vmms(os.Getenv)
	if err != nil {
		return err
	}
	return run(ctx, o, vmms)
}

// run is Run with the given VMMs.
func run(ctx context.Context, o Options, vmms []choice.VMM) error {
	// Locks of the shell that started this process are not the daemon's.
	if err := server.CloseInherited(0); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	release, err := own(o)
	if err != nil {
		return err
	}
	defer release()
	db, err := openStore(ctx, o.StateDir)
	if err != nil {
		return err
	}
	defer db.Close()
	kvm := probe(o)
	debug.SetMemoryLimit(image.HeapLimit)
	limits, err := imageLimits(os.Getenv)
	if err != nil {
		return err
	}
	images, err := image.Open(filepath.Join(o.StateDir, "images"),
		image.Options{
			Limits:   limits,
			Registry: registry.Options{UserAgent: "banger/" + banger.Version},
			CPULevel: host.GuestLevel(kvm.Usable),
		})
	if err != nil {
		return err
	}
	defer images.Close()
	// No two daemons share a state directory.
	groups, noGroups := cgroup.Open(cgroup.NameOf(o.StateDir))
	sup, err := build(o, db, images, kvm, vmms, groups)
	if err != nil {
		return err
	}
	defer sup.Close()
	compares := comparison.New(sup.Templates().Plans(), sup.Snapshots(), shimArgv, o.Log)
	defer compares.Close()
	problems, err := restore(ctx, o, sup, db)
	if err != nil {
		return err
	}
	histories := history.New(func() []banger.VM { return sup.List(func(banger.VM) bool { return true }) },
		sup.Guests().Sample)
	defer histories.Start()()
	names := serveNames(o.StateDir, sup.Networks())
	defer names.close()
	about := about{o: o, db: db, kvm: kvm, vmms: vmms, groups: groups, noGroups: noGroups, names: names,
		problems: problems,
		started:  time.Now().UTC()}
	return serve(ctx, o, apiOf(sup, compares, histories, about, stop).HTTP(ctx))
}

// apiOf returns the API of a supervisor. stop asks the daemon to end.
func apiOf(sup *supervisor.Supervisor, compares *comparison.Comparer, histories *history.Recorder, about about,
	stop func()) *api.Server {
	return &api.Server{
		Machines:       sup,
		Sleepers:       sup,
		Updater:        sup,
		Inventory:      sup,
		Histories:      histories,
		Guests:         sup.Guests(),
		Sessions:       sup.Guests().Sessions(),
		SessionStreams: sup.Guests().Sessions(),
		Probes:         sup.Guests().Sessions(),
		Workspaces:     sup.Guests().Workspaces(compares),
		Secrets:        sup.Custody(),
		Connections:    sup.Connections(),
		Decisions:      sup.Guests().Decisions(),
		Networks:       sup.Networks(),
		Images:         sup.Library(),
		Transfers:      sup.Library(),
		Kernels:        sup.Library(),
		Templates:      sup.Templates(),
		Snapshots:      sup.Snapshots(),
		Comparisons:    compares,
		UI:             ui{&web.Launcher{RunDir: about.o.RunDir, Argv: uiArgv(about.o)}},
		Reporter:       reporterOf(sup, about),
		Version:        about.version,
		Stop:           stop,
		Splice:         splice.Copy,
		Log:            about.o.Log,
	}
}

func reporterOf(sup *supervisor.Supervisor, about about) *report.Reporter {
	return &report.Reporter{
		Home:      reset.Home{State: about.o.StateDir, Run: about.o.RunDir, ShimArgv: shimArgv},
		LogFile:   about.o.LogFile,
		Version:   about.version,
		VMs:       sup.List,
		Library:   sup.Library(),
		Templates: sup.Templates().List,
		Snapshots: sup.Snapshots().List,
	}
}

func reserveOf(stateDir string) *reserve.File { return reserve.At(filepath.Join(stateDir, "reserve")) }

// restore takes over the VMs of the last daemon, keeps a copy of the database, and returns the problems that it
// found.
func restore(ctx context.Context, o Options, sup *supervisor.Supervisor,
	db *store.Store) (problems []string, err error) {
	if err := sup.Restore(ctx); err != nil {
		return nil, fmt.Errorf("restoring VMs: %w", err)
	}
	problems = sup.Problems()
	if err := reserveOf(o.StateDir).Fill(); err != nil {
		problems = append(problems,
			fmt.Sprintf("the disk of %s is nearly full, and nothing of it is held back: %v", o.StateDir, err))
	}
	if err := keepCopy(ctx, db, o.StateDir); err != nil {
		problems = append(problems, fmt.Sprintf("no copy of the database was made: %v", err))
	}
	for _, p := range problems {
		o.Log.Warn("found at the start", "problem", p)
	}
	return problems, nil
}

func probe(o Options) host.KVM {
	switch o.Accel {
	case "kvm":
		return host.KVM{Usable: true}
	case "tcg":
		return host.KVM{Reason: "switched off by BANGER_ACCEL"}
	}
	return host.ProbeKVM(o.StateDir)
}

// imageLimits reads the limits for one image from BANGER_IMAGE_SIZE (such as 20G), BANGER_IMAGE_ENTRIES and
// BANGER_IMAGE_RATIO.
func imageLimits(getenv func(string) string) (l image.Limits, err error) {
	if v := getenv("BANGER_IMAGE_SIZE"); v != "" {
		if l.Bytes, err = banger.ParseSize(v); err != nil {
			return l, fmt.Errorf("BANGER_IMAGE_SIZE: %w", err)
		}
	}
	for name, to := range map[string]*int64{"BANGER_IMAGE_ENTRIES": &l.Entries, "BANGER_IMAGE_RATIO": &l.Ratio} {
		v := getenv(name)
		if v == "" {
			continue
		}
		if *to, err = strconv.ParseInt(v, 10, 32); err != nil || *to <= 0 {
			return l, banger.Errorf(banger.CodeInvalid, "%s is %.50q, not a positive number", name, v)
		}
	}
	return l, nil
}

func build(o Options, db *store.Store, images *image.Store, kvm host.KVM, vmms []choice.VMM,
	groups *cgroup.Tree) (*supervisor.Supervisor, error) {
	kernels, err := kernel.Open(filepath.Join(o.StateDir, "kernels"))
	if err != nil {
		return nil, err
	}
	agent, err := embedded.ReadFile("embedded/agent-" + runtime.GOARCH)
	if err != nil {
		return nil, banger.Errorf(banger.CodeInternal, "this banger was built without a guest agent").
			WithHint("build it with: make build")
	}
	parts := supervisor.Options{
		StateDir: o.StateDir, RunDir: o.RunDir, ShimArgv: shimArgv, Agent: agent, Log: o.Log,
		VMMs:     choice.Host{VMMs: vmms, KVM: kvm.Usable, NoKVM: kvm.Reason, Nested: host.CheckNested},
		KVMGroup: host.KVMGroup(),
		BootID:   host.BootID(),
		Reserve:  reserveOf(o.StateDir),
		Memory:   host.Memory(),
		CPUs:     runtime.NumCPU(),
		Root:     os.Geteuid() == 0,
		Store:    db,
		Images:   images,
		Kernels:  kernels,
		Groups:   groups,
	}
	switch os.Getenv("BANGER_TEMPLATES") {
	case "use":
		parts.UseTemplatesOnly = true
	case "now":
		parts.Idle = func(ctx context.Context) error { return ctx.Err() }
	}
	if parts.Root {
		parts.Bridge = func(denied func(string, banger.Decision)) *bridge.Host {
			return bridge.NewHost(o.StateDir, network.NewResolver(network.ResolvConf).Exchange, denied, o.Log)
		}
	}
	return supervisor.New(parts)
}

func serve(ctx context.Context, o Options, srv *http.Server) error {
	ln, err := private.Listen(o.Socket)
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(ln) }()
	o.Ready()
	o.Log.Info("daemon is ready", "socket", o.Socket, "pid", os.Getpid(), "version", banger.Version)
	select {
	case err = <-failed:
	case <-ctx.Done():
		limit, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if err = srv.Shutdown(limit); err != nil {
			err = srv.Close() // closes open streams, which tells their clients
		}
		<-failed
	}
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return err
}
