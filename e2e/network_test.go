package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/miekg/dns"
	"github.com/rogpeppe/go-internal/testscript"
)

// fetch URL TEXT checks that URL returns TEXT, within the time in which the agent notices a new
// port. ! fetch URL checks that the URL cannot be reached.
func cmdFetch(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, false, neg && len(args) != 1 || !neg && len(args) != 2, "fetch URL TEXT, or ! fetch URL")
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	last := ""
	ok := poll(30*time.Second, func() bool {
		resp, err := client.Get(args[0])
		if err != nil {
			last = err.Error()
			return neg
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		last = fmt.Sprint(string(body), err)
		return !neg && err == nil && strings.Contains(string(body), args[1])
	})
	if !ok {
		ts.Fatalf("%s: %s", args[0], last)
	}
}

// datagram ADDRESS TEXT sends TEXT and checks that it comes back.
func cmdDatagram(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, neg, len(args) != 2, "datagram ADDRESS TEXT")
	conn, err := net.Dial("udp", args[0])
	ts.Check(err)
	defer conn.Close()
	buf := make([]byte, 1500)
	ok := poll(30*time.Second, func() bool {
		conn.SetDeadline(time.Now().Add(2 * time.Second))
		if _, err := io.WriteString(conn, args[1]); err != nil {
			return false
		}
		n, err := conn.Read(buf)
		return err == nil && string(buf[:n]) == args[1]
	})
	if !ok {
		ts.Fatalf("no answer")
	}
}

// ask SERVER NAME WANT asks a DNS server for a name's addresses, or for the names of an address,
// and checks the code and the records of the answer.
func cmdAsk(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, neg, len(args) != 3, "ask SERVER NAME WANT")
	q := new(dns.Msg).SetQuestion(dns.Fqdn(args[1]), dns.TypeA)
	if reverse, err := dns.ReverseAddr(args[1]); err == nil {
		q.SetQuestion(reverse, dns.TypePTR)
	}
	r, err := dns.Exchange(q, args[0])
	ts.Check(err)
	got := dns.RcodeToString[r.Rcode]
	for _, rr := range r.Answer {
		got += " " + dns.Field(rr, 1)
	}
	if got != args[2] {
		ts.Fatalf("%s is %q", args[1], got)
	}
}
