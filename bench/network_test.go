//go:build bench

package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"banger/internal/guest"
)

// The bounds of the network's promises.
const (
	minUserRatio   = 0.9  // of QEMU's slirp
	minBridgeRatio = 1.5  // of QEMU's slirp
	minQuestions   = 5000 // a second
	maxQuestion    = 20   // ms, of 99 in 100
	maxFloodRatio  = 2    // of a VM beside one that floods
	maxForwardsMiB = 40   // with manyForwards
	manyForwards   = 1000 // the bound of one VM
	guestPort      = "9001"
	outWrite       = 128 << 10 // bytes that the guest writes at once, as iperf3 does
)

// sink is a TCP server in the guest that reads each connection to its end and then sends one byte.
const sink = `use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalAddr => '0.0.0.0:` + guestPort + `', Listen => 8, ReuseAddr => 1) or die;
$| = 1; print "listening\n"; while (my $c = $s->accept) { while (sysread $c, my $b, 1 << 18) {} syswrite $c, "x"; close $c }`

// network compares TCP over the user network, and for root over a bridge, with TCP over QEMU's own
// user network in an otherwise equal VM.
func (b *bench) network() {
	hole, err := net.Listen("tcp4", ":0")
	b.must(err)
	defer hole.Close()
	port := strconv.Itoa(hole.Addr().(*net.TCPAddr).Port)

	slirp := b.newSlirp()
	user := b.newNetworkVM("user")
	b.duelOn("user network: guest to host", minUserRatio, b.outOf(hole, user.out("10.0.2.2", port)),
		b.outOf(hole, slirp.out("10.0.2.2", port)))
	b.duelOn("user network: host to guest", minUserRatio, b.into(user.at), b.into(slirp.at))
	user.end()
	if os.Geteuid() == 0 {
		bridge := b.newNetworkVM("bridge")
		b.duelOn("bridge: guest to host", minBridgeRatio, b.outOf(hole, bridge.out(bridge.gateway, port)),
			b.outOf(hole, slirp.out("10.0.2.2", port)))
		b.duelOn("bridge: host to guest", minBridgeRatio, b.into(bridge.at), b.into(slirp.at))
		bridge.end()
	}
	slirp.end()
	b.forwards()
}

// networked is a VM whose network is measured.
type networked struct {
	*bench
	sh      func(script string) (wait func())
	at      string // where the host reaches the sink
	gateway string
	end     func()
}

// out makes the guest send to the host.
func (n *networked) out(host, port string) func() (wait func()) {
	return func() func() {
		return n.sh(fmt.Sprintf("exec bash -c 'dd if=/dev/zero bs=%d count=%d status=none >/dev/tcp/%s/%s'", outWrite,
			n.bytes/outWrite, host, port))
	}
}

// newNetworkVM starts a VM of banger with a sink.
func (b *bench) newNetworkVM(network string) *networked {
	id := b.cli("run", "-d", "-q", "--network", network, "--net-allow", "host", "--net-allow", "private", "-p",
		"0:"+guestPort, image, "--", "perl", "-e", sink)
	b.removeAtEnd(id)
	vm, err := b.client.Get(b.Context(), id)
	b.must(err)
	n := &networked{bench: b, at: vm.Forwards[0].Host().String(), end: func() { b.cli("rm", "-f", id) }}
	if network == "bridge" {
		n.at = net.JoinHostPort(vm.Address, guestPort)
		n.gateway = vm.Address[:strings.LastIndex(vm.Address, ".")] + ".1"
	}
	n.sh = func(script string) func() {
		cmd := b.command("exec", id, "--", "sh", "-c", script)
		b.must(cmd.Start())
		return func() { b.must(cmd.Wait()) }
	}
	b.awaitSink(n.at)
	return n
}

// newSlirp starts QEMU with its own user network in place of banger's.
func (b *bench) newSlirp() *networked {
	rival := b.newBare("user")
	free, err := net.Listen("tcp4", "127.0.0.1:0")
	b.must(err)
	at := free.Addr().String()
	free.Close()
	mtu := regexp.MustCompile(`,host_mtu=[0-9]+`)
	for i, a := range rival.argv {
		if strings.HasPrefix(a, "stream,id=net0,") {
			rival.argv[i] = "user,id=net0,hostfwd=tcp:" + at + "-:" + guestPort
		}
		rival.argv[i] = mtu.ReplaceAllString(rival.argv[i], "") // slirp's largest packet is the device's own
	}
	c, _, stop := rival.boot()
	_, err = c.Configure(b.Context(), guest.Config{Hostname: "bare",
		Network: &guest.Network{Address: "10.0.2.15/24", Gateway: "10.0.2.2", DNS: []string{"10.0.2.3"}, MTU: 1500}})
	b.must(err)
	n := &networked{bench: b, at: at, end: stop, sh: func(script string) func() { return rival.sh(c, script) }}
	file := filepath.Join("/tmp", "sink.pl")
	rival.sh(c, "cat >"+file+" <<'E'\n"+sink+"\nE\nsetsid perl "+file+" >/dev/null 2>&1 </dev/null &")()
	b.awaitSink(at)
	return n
}

// awaitSink returns when the sink answers. A forward may accept connections before that.
func (b *bench) awaitSink(at string) {
	b.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		conn, err := net.DialTimeout("tcp4", at, time.Second)
		if err == nil {
			conn.SetDeadline(time.Now().Add(5 * time.Second))
			conn.(*net.TCPConn).CloseWrite()
			n, _ := conn.Read(make([]byte, 1))
			conn.Close()
			if n == 1 {
				return
			}
		}
		if time.Now().After(deadline) {
			b.Fatalf("the sink at %s does not answer: %v", at, err)
		}
	}
}

// outOf measures how fast a guest sends to a listener on the host.
func (b *bench) outOf(ln net.Listener, send func() (wait func())) func() {
	return func() {
		wait := send()
		conn, err := ln.Accept()
		b.must(err)
		n, err := io.Copy(io.Discard, conn)
		conn.Close()
		if err != nil || n != b.bytes {
			b.Fatalf("%d of %d bytes came: %v", n, b.bytes, err)
		}
		wait()
	}
}

// into measures how fast the host sends to the sink, until the sink has read everything.
func (b *bench) into(at string) func() {
	return func() {
		conn, err := net.Dial("tcp4", at)
		b.must(err)
		defer conn.Close()
		chunk := make([]byte, 1<<18)
		for left := b.bytes; left > 0; {
			n, err := conn.Write(chunk[:min(left, int64(len(chunk)))])
			b.must(err)
			left -= int64(n)
		}
		b.must(conn.(*net.TCPConn).CloseWrite())
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			b.Fatalf("the guest has not read all: %v", err)
		}
	}
}

// forwards measures a shim with the largest number of open forwards.
func (b *bench) forwards() {
	args := []string{"create", "-q"}
	for i := range manyForwards {
		args = append(args, "-p", fmt.Sprintf("0:%d", 10000+i))
	}
	id := b.cli(append(args, image, "--", "sleep", "infinity")...)
	b.removeAtEnd(id)
	b.cli("start", "-q", id)
	vm, err := b.client.Get(b.Context(), id)
	b.must(err)
	for _, f := range vm.Forwards[:10] { // they are open
		conn, err := (&net.Dialer{}).DialContext(context.WithoutCancel(b.Context()), "tcp4", f.Host().String())
		b.must(err)
		conn.Close()
	}
	if len(vm.Forwards) != manyForwards {
		b.Fatalf("%d forwards are open", len(vm.Forwards))
	}
	b.add("shim with 1000 forwards", "MiB RSS", []float64{b.shimRSS(id)}, maxForwardsMiB)
	b.cli("rm", "-f", id)
}

// floods is what a guest may do to the user network: it sends datagrams and opens connections as
// fast as it can, both allowed and denied ones.
const floods = `bash -c 'while :; do echo x >/dev/udp/10.0.2.2/9; echo x >/dev/udp/10.0.2.3/53; (echo >/dev/tcp/10.0.2.2/9) 2>/dev/null; done' 2>/dev/null`

// flood measures exec and the network of a VM while another VM is idle and while it floods the
// network, in turns.
func (b *bench) flood() {
	quiet := b.newNetworkVM("user")
	other := b.cli("run", "-d", "-q", "--net-allow", "host", image, "--", "sleep", "infinity")
	b.removeAtEnd(other)
	send := b.into(quiet.at)
	var execs, execsBeside, nets, netsBeside []float64
	round := func() (float64, float64) {
		var took []float64
		for range 10 {
			took = append(took, millis(timed(func() { quiet.sh("true")() })))
		}
		return median(took), timed(send).Seconds()
	}
	for i := range b.pairs {
		e, n := round()
		execs, nets = append(execs, e), append(nets, n)
		ctx, stop := context.WithCancel(b.Context())
		cmd := exec.CommandContext(ctx, b.binary, "exec", other, "--", "sh", "-c", "("+floods+") & ("+floods+") & wait")
		b.must(cmd.Start())
		e, n = round()
		execsBeside, netsBeside = append(execsBeside, e), append(netsBeside, n)
		stop()
		cmd.Wait()
		b.Logf("flood %d of %d: exec %.0f ms, beside %.0f ms; 1 pass %.2f s, beside %.2f s", i+1, b.pairs, execs[i], e,
			nets[i], n)
	}
	b.addPairs("exec beside a flooding VM", "ms", execsBeside, execs, maxFloodRatio, false)
	b.addPairs("host to guest beside a flooding VM", "s", netsBeside, nets, maxFloodRatio, false)
	quiet.end()
}

// names asks the daemon for a VM's name for a few seconds, as fast as two clients can.
func (b *bench) names() {
	vm := b.newVM()
	b.cli("start", "-q", vm)
	info, err := b.client.Get(b.Context(), vm)
	b.must(err)
	v, err := b.client.Version(b.Context())
	b.must(err)
	const clients, span = 2, 3 * time.Second
	took := make([][]float64, clients)
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			conn, err := dns.Dial("udp", v.DNS)
			if err != nil {
				b.Error(err)
				return
			}
			defer conn.Close()
			for end := time.Now().Add(span); time.Now().Before(end); {
				begin := time.Now()
				if err := conn.WriteMsg(new(dns.Msg).SetQuestion(info.Name+".vm.", dns.TypeA)); err != nil {
					b.Error(err)
					return
				}
				if r, err := conn.ReadMsg(); err != nil || len(r.Answer) != 1 {
					b.Errorf("the answer is %v, %v", r, err)
					return
				}
				took[i] = append(took[i], millis(time.Since(begin)))
			}
		})
	}
	wg.Wait()
	all := slices.Sorted(slices.Values(slices.Concat(took...)))
	if len(all) == 0 {
		b.Fatal("nothing was answered")
	}
	rate := float64(len(all)) / span.Seconds()
	b.append(row{figure: "names", unit: "questions/s", banger: number(rate)}, rate, minQuestions, rate >= minQuestions)
	b.add("names: the 99th of 100 answers", "ms", []float64{all[len(all)*99/100]}, maxQuestion)
}

// ssh compares a login with exec.
func (b *bench) ssh() {
	vm := b.newVM()
	b.cli("start", "-q", vm)
	var execs, ssh []float64
	b.cli("ssh", vm, "true") // makes the user's key
	for range 4 * b.pairs {
		execs = append(execs, millis(timed(func() { b.cli("exec", vm, "true") })))
		ssh = append(ssh, millis(timed(func() { b.cli("ssh", vm, "true") })))
	}
	b.add("banger ssh VM true", "ms", ssh, 1.5*median(execs)+150)
}
