// Command banger-node makes this host a node of a Kubernetes cluster: each Pod that is bound to it runs as a microVM
// of the local daemon. The node is tainted, so that only Pods that ask for it come here.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"banger/internal/host"
)

func main() {
	o := options{}
	name, _ := os.Hostname()
	flag.StringVar(&o.kubeconfig, "kubeconfig", os.Getenv("KUBECONFIG"),
		"the `file` that says how the API server is reached")
	flag.StringVar(&o.name, "name", name, "the `name` of the node")
	flag.StringVar(&o.address, "address", "", "the IP `address` of this host at which the API server reaches it")
	flag.IntVar(&o.port, "port", 10250, "the `port` of the kubelet's API")
	flag.StringVar(&o.clientCA, "client-ca-file", "", "the `file` with the authorities of clients of the kubelet's API")
	flag.StringVar(&o.cert, "tls-cert-file", "",
		"the `file` with the certificate of the kubelet's API; made if it is not given")
	flag.StringVar(&o.key, "tls-private-key-file", "", "the `file` with its key")
	flag.Int64Var(&o.cpus, "cpus", 0, "the `number` of CPUs that Pods may have; 0: those of the host")
	flag.Int64Var(&o.memory, "memory", 0, "the `bytes` of memory that Pods may have; 0: four fifths of the host's")
	flag.Int64Var(&o.pods, "pods", 110, "the `number` of Pods that may be here")
	flag.Parse()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	paths, err := host.FindPaths()
	if err == nil {
		o.socket = paths.Socket()
		err = o.run(ctx, log)
	}
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "banger-node:", err)
		os.Exit(1)
	}
}
