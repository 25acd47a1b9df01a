package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/virtual-kubelet/virtual-kubelet/node"
	"github.com/virtual-kubelet/virtual-kubelet/node/api"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/record"

	"banger"
	"banger/internal/api/client"
	"banger/node/kubelet"
	"banger/node/provider"
	"banger/node/worker"
)

// options are what the flags say.
type options struct {
	kubeconfig, name, address string
	port                      int
	clientCA, cert, key       string
	cpus, memory, pods        int64
	socket                    string // of the daemon
}

// Times of the node's lease, as those of the kubelet.
const (
	leaseSeconds = 40
	resync       = time.Minute
	workers      = 10
)

// run keeps the node until ctx ends. VMs go on after that.
func (o options) run(ctx context.Context, log *slog.Logger) error {
	if net.ParseIP(o.address) == nil {
		return errors.New("--address must be an IP address of this host")
	}
	config, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	if err != nil {
		return fmt.Errorf("the kubeconfig cannot be used: %w", err)
	}
	config.QPS, config.Burst = 50, 100
	cluster, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("the kubeconfig cannot be used: %w", err)
	}
	daemon := client.New(o.socket)
	if err := answers(ctx, daemon, log); err != nil {
		return err
	}
	events := record.NewBroadcaster()
	events.StartRecordingToSink(&corev1client.EventSinkImpl{Interface: cluster.CoreV1().Events("")})
	defer events.Shutdown()
	recorder := events.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "banger-node", Host: o.name})
	pods := &provider.Provider{Machines: worker.Daemon{Client: daemon}, Cluster: &access{cluster, recorder}, Node: o.name,
		HostIP: o.address}
	defer pods.Close()
	served, err := o.serve(ctx, cluster, kubelet.Kubelet{Pods: pods, Daemon: daemon}, pods, log)
	if err != nil {
		return err
	}
	defer served.Close()
	return o.control(ctx, cluster, recorder, pods, daemon, log)
}

// answerTime is the pause before a daemon that does not answer is asked again.
const answerTime = time.Second

// answers returns when the daemon answers. It may be starting again just now, so only the end of ctx ends the wait.
func answers(ctx context.Context, daemon *client.Client, log *slog.Logger) error {
	for said := false; ; said = true {
		_, err := daemon.Version(ctx)
		if banger.CodeOf(err) != banger.CodeUnavailable || err == nil {
			return err
		}
		if !said {
			log.Warn("the daemon does not answer yet", "err", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(answerTime):
		}
	}
}

// serve answers the API server.
func (o options) serve(ctx context.Context, cluster kubernetes.Interface, k kubelet.Kubelet, pods *provider.Provider,
	log *slog.Logger) (*http.Server, error) {
	config, err := o.certificates(ctx, cluster)
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(o.address, strconv.Itoa(o.port)))
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s port %d: %w", o.address, o.port, err)
	}
	routes := api.PodHandler(api.PodHandlerConfig{RunInContainer: k.Exec, AttachToContainer: k.Attach,
		PortForward: k.Forward, GetContainerLogs: k.Logs, GetPods: pods.GetPods, GetPodsFromKubernetes: pods.GetPods,
		StreamIdleTimeout: 4 * time.Hour, StreamCreationTimeout: 30 * time.Second,
		GetStatsSummary: k.Stats(o.name, pods.GetPods), GetMetricsResource: k.Metrics(o.name, pods.GetPods)}, false)
	srv := &http.Server{Handler: guarded(cluster, o.name, routes), TLSConfig: config, ReadHeaderTimeout: 30 * time.Second,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	go srv.Serve(tls.NewListener(ln, config)) // ends with Close
	return srv, nil
}

// control runs the controllers of the Pods and of the node until ctx ends.
func (o options) control(ctx context.Context, cluster kubernetes.Interface, recorder record.EventRecorder,
	pods *provider.Provider, daemon *client.Client, log *slog.Logger) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ours := informers.NewSharedInformerFactoryWithOptions(cluster, resync, informers.WithTweakListOptions(
		podsOf(o.name)))
	unused := informers.NewSharedInformerFactory(cluster, 0) // the library wants to have them; they are not started
	controller, err := node.NewPodController(node.PodControllerConfig{PodClient: cluster.CoreV1(),
		PodInformer: ours.Core().V1().Pods(), EventRecorder: recorder, Provider: pods,
		ConfigMapInformer: unused.Core().V1().ConfigMaps(), SecretInformer: unused.Core().V1().Secrets(),
		ServiceInformer: unused.Core().V1().Services(), SkipDownwardAPIResolution: true})
	if err != nil {
		return err
	}
	ours.Start(ctx.Done())
	failed := make(chan error, 2)
	go func() { failed <- controller.Run(ctx, workers) }()
	select {
	case <-controller.Ready():
	case err := <-failed:
		return err
	}
	present, err := o.node(ctx, daemon)
	for banger.CodeOf(err) == banger.CodeUnavailable && ctx.Err() == nil {
		if err = answers(ctx, daemon, log); err == nil {
			present, err = o.node(ctx, daemon)
		}
	}
	if err != nil {
		return err
	}
	registered, err := node.NewNodeController(&health{o, daemon}, present, cluster.CoreV1().Nodes(),
		node.WithNodeEnableLeaseV1(cluster.CoordinationV1().Leases(corev1.NamespaceNodeLease), leaseSeconds),
		node.WithNodePingInterval(pingTime))
	if err != nil {
		return err
	}
	go func() { failed <- registered.Run(ctx) }()
	err = <-failed
	stop()
	<-controller.Done()
	return err
}

// podsOf selects the Pods of a node.
func podsOf(name string) func(*listOptions) {
	return func(o *listOptions) { o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", name).String() }
}
