package network

import (
	"os"
	"testing"

	"banger"
)

// TestTheTablesAsText compares the tables of two VMs with testdata/bridge.nft; what
// the kernel has is compared with the same declaration in TestApplyTwiceChangesNothing.
func TestTheTablesAsText(t *testing.T) {
	deny, err := banger.ParsePolicy("allow 8.8.8.0/24 tcp:80,443\nallow host tcp:8080\ndefault deny")
	if err != nil {
		t.Fatal(err)
	}
	c := BridgeConfig{Networks: []BridgeNetwork{defaultNet(), namedNet()}, Ports: []BridgePort{
		{ID: "000000000001", Network: "default", Address: addrOf(number(defaultNet().Gateway()) + 1), MAC: MAC("1"), Policy: banger.Policy{Default: banger.Allow}},
		{ID: "000000000002", Network: "team", Address: addrOf(number(namedNet().Gateway()) + 1), MAC: MAC("2"), Policy: deny},
	}}
	got := text(c.tables())
	want, err := os.ReadFile("testdata/bridge.nft")
	if err != nil {
		t.Fatalf("%v; it should be:\n%s", err, got)
	}
	if got != string(want) {
		t.Errorf("the tables are\n%s", got)
	}
}
