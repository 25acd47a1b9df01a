package bridge

import (
	"context"
	"testing"
	"time"

	"banger/internal/ipaddr"
	"banger/internal/testing/processtest"

	"banger/internal/notation"
)

func TestBridgePolicyHolds(t *testing.T) {
	processtest.Long(t)
	l := newLab(t, defaultNet(), namedNet())
	for _, port := range []int{22, 53, 80, 443} {
		l.host.serve(port)
	}
	l.outside.serve(80)
	l.outside.serve(443)
	l.config.Ports = []Port{l.port(1, 0, "allow"), l.port(2, 0, "allow"), l.port(3, 1, "deny"), l.port(4, 1, "allow"),
		l.port(5, 0, "allow host tcp:80\nallow 8.8.8.8 tcp:443\ndeny 8.8.8.0/24\n"+
			"allow any udp\nallow 10.77.0.1\ndefault deny")}
	l.apply()
	vms := []*place{}
	for _, p := range l.config.Ports {
		vm := l.boot(p)
		vm.serve(80)
		vms = append(vms, vm)
	}
	for _, c := range []struct {
		vm   int
		to   string
		want bool
		why  string
	}{
		{0, "tcp 8.8.8.8:80", true, "masquerade"},
		{0, "udp 9.9.9.2:443", true, "masquerade"},
		{0, "tcp 10.77.0.1:80", false, "private addresses are closed"},
		{0, "tcp 169.254.169.254:80", false, "metadata is closed"},
		{0, "tcp 172.30.1.1:53", true, "DNS"},
		{0, "udp 172.30.1.1:53", true, "DNS"},
		{0, "tcp 172.30.1.1:22", false, "the host is closed"},
		{0, "tcp 9.9.9.1:22", false, "the host is closed by any of its addresses"},
		{0, "tcp 9.9.9.1:53", false, "DNS is at the gateway only"},
		{0, "tcp 172.30.2.1:53", false, "other networks' gateways are closed"},
		{0, "tcp 172.30.1.3:80", false, "default VMs are isolated"},
		{0, "tcp 172.30.2.4:80", false, "other networks are closed"},
		{2, "tcp 172.30.2.5:80", true, "VMs of a named network reach each other"},
		{3, "udp 172.30.2.4:80", true, "VMs of a named network reach each other"},
		{2, "tcp 8.8.8.8:80", false, "default deny"},
		{2, "tcp 172.30.2.1:53", true, "DNS"},
		{4, "tcp 8.8.8.8:443", true, "the first rule that matches"},
		{4, "tcp 8.8.8.8:80", false, "the second rule"},
		{4, "udp 8.8.8.8:80", false, "the second rule"},
		{4, "udp 9.9.9.2:80", true, "the third rule"},
		{4, "tcp 8.8.4.4:80", false, "the default"},
		{4, "tcp 10.77.0.1:80", true, "a rule that names a private address"},
		{4, "tcp 172.30.1.1:80", true, "allow host"},
		{4, "tcp 172.30.1.1:443", false, "allow host, other port"},
	} {
		t.Run(c.to+" "+c.why, func(t *testing.T) {
			if got := vms[c.vm].reaches(c.to[:3], c.to[4:]); got != c.want {
				t.Errorf("VM %d reaches it: %v, but should: %v", c.vm, got, c.want)
			}
		})
	}
	t.Run("the host reaches a VM", func(t *testing.T) {
		if !l.host.reaches("tcp", "172.30.1.2:80") {
			t.Error("it does not")
		}
	})
	t.Run("the outside reaches no VM", func(t *testing.T) {
		l.outside.route("172.30.1.0/24", "9.9.9.1")
		if l.outside.reaches("tcp", "172.30.1.2:80") {
			t.Error("it does")
		}
	})
}

func TestALiveChangeCutsFlows(t *testing.T) {
	l := newLab(t, defaultNet())
	l.outside.serve(80)
	l.config.Ports = []Port{l.port(1, 0, "allow")}
	l.apply()
	vm := l.boot(l.config.Ports[0])
	kept, err := vm.dial("tcp", "8.8.8.8:80")
	l.host.must(err)
	defer kept.Close()
	cut, err := vm.dial("tcp", "8.8.4.4:80")
	l.host.must(err)
	defer cut.Close()
	l.host.must(echo(cut, time.Second))
	l.config.Ports[0].Policy, err = notation.ParsePolicy("allow 8.8.8.8\ndeny any")
	l.host.must(err)
	start := time.Now()
	l.apply()
	if took := time.Since(start); took > time.Second {
		t.Errorf("the change took %v", took)
	}
	if echo(cut, time.Second) == nil {
		t.Error("a flow that is forbidden now goes on")
	}
	if err := echo(kept, time.Second); err != nil {
		t.Errorf("a flow that is still allowed was cut: %v", err)
	}
}

func TestNamesOpenAndCloseAddresses(t *testing.T) {
	processtest.Long(t)
	l := newLab(t, defaultNet())
	l.outside.serve(80)
	l.outside.serve(443)
	l.config.Ports = []Port{l.port(1, 0, "allow *.example tcp:80\ndefault deny"),
		l.port(2, 0, "allow 8.8.8.8 tcp:443\ndeny bad.example\ndefault allow")}
	l.apply()
	one, two := l.boot(l.config.Ports[0]), l.boot(l.config.Ports[1])
	if one.reaches("tcp", "8.8.8.8:80") {
		t.Error("an address is open before it has a name")
	}
	for _, p := range l.config.Ports {
		l.host.must(l.bridge.Learn(context.Background(), p.ID, "bad.example", ipaddr.FromNumber(8<<24|8<<16|8<<8|8),
			time.Minute))
	}
	for _, c := range []struct {
		vm   *place
		to   string
		want bool
	}{{one, "8.8.8.8:80", true}, {one, "8.8.8.8:443", false}, {one, "8.8.4.4:80", false},
		{two, "8.8.8.8:80", false}, {two, "8.8.8.8:443", true}, {two, "8.8.4.4:80", true}} {
		if got := c.vm.reaches("tcp", c.to); got != c.want {
			t.Errorf("%s is reached: %v", c.to, got)
		}
	}
}
