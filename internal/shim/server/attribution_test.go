package server

import (
	"testing"

	"banger/internal/guest"
)

// TestADenialDoesNotWaitForItsProcess checks that each denial is recorded, whether or not the agent knows the process.
func TestADenialDoesNotWaitForItsProcess(t *testing.T) {
	v := startShim(t, userNetwork())
	if _, err := v.agent().Configure(v.ctx(), guest.Config{}); err != nil {
		t.Fatal(err)
	}
	a := v.server.attribution
	tcp, dns, other := newDenial(1), newDenial(2), newDenial(3)
	tcp.Source, dns.Source, other.Source = 50000, 50001, 50002
	dns.Protocol = "dns"
	a.refuse(tcp)
	if list := written(t, v.server.denials, -1); len(list) != 1 {
		t.Errorf("before the guest gets its refusal there are %+v", list)
	}
	a.note(dns)
	a.wg.Wait()
	a.asking <- struct{}{} // another question is open
	a.refuse(other)
	<-a.asking
	a.refuse(other)
	list := written(t, v.server.denials, -1)
	if len(list) != 3 || list[2].Count != 2 || list[0].PID != 0 {
		t.Errorf("they are %+v", list)
	}
}
