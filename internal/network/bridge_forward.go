package network

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// memory is what we found before we changed it.
type memory struct {
	Links []remembered `json:"links"` // that did not forward
}

// remembered is a link by name and index, so that a new one of the same name is not
// taken for it.
type remembered struct {
	Name  string `json:"name"`
	Index int    `json:"index"`
}

func (m memory) names() []string {
	var out []string
	for _, l := range m.Links {
		out = append(out, l.Name)
	}
	return out
}

func (b *Bridge) recall() (m memory, err error) {
	data, err := os.ReadFile(b.memory)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	return m, err
}

// remember writes m before the change that it is for, whole or not at all.
func (b *Bridge) remember(m memory) error {
	if len(m.Links) == 0 {
		err := os.Remove(b.memory)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return err
	}
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(b.memory), filepath.Base(b.memory)+".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), b.memory)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// syncForwarding lets links to the outside forward, which the answers to guests
// need, and closes each for whatever is not ours by a routing rule. A host that
// forwards already, or begins to, is left as it is.
func (b *Bridge) syncForwarding(c BridgeConfig) error {
	m, err := b.recall()
	if err != nil {
		return err
	}
	all, err := forwards("all")
	if err != nil {
		return err
	}
	links, err := b.nl.LinkList()
	if err != nil {
		return err
	}
	var want memory
	for _, l := range links {
		a := l.Attrs()
		if a.Name == "lo" || prefixed(a.Name) || len(c.Networks) == 0 || all {
			continue
		}
		on, err := forwards(a.Name)
		if err != nil {
			return err
		}
		r := remembered{a.Name, a.Index}
		addrs, err := b.nl.AddrList(l, unix.AF_INET)
		if err != nil {
			return err
		}
		if len(addrs) > 0 && (!on || slices.Contains(m.Links, r)) {
			want.Links = append(want.Links, r)
		}
	}
	both := memory{Links: slices.Clone(m.Links)}
	for _, l := range want.Links {
		if !slices.Contains(both.Links, l) {
			both.Links = append(both.Links, l)
		}
	}
	if !slices.Equal(both.Links, m.Links) {
		if err := b.remember(both); err != nil {
			return err
		}
	}
	if err := b.setRules(c.routingRules(both.names())); err != nil {
		return err
	}
	for _, l := range both.Links {
		keep := slices.Contains(want.Links, l)
		exists := slices.ContainsFunc(links, func(x netlink.Link) bool { return x.Attrs().Index == l.Index && x.Attrs().Name == l.Name })
		if !exists || !keep && all {
			continue // gone, or somebody else wants it to forward
		}
		if err := sysctl(l.Name, "forwarding", map[bool]string{true: "1", false: "0"}[keep]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if slices.Equal(want.Links, m.Links) {
		return nil
	}
	if err := b.setRules(c.routingRules(want.names())); err != nil {
		return err
	}
	return b.remember(want)
}

func forwards(link string) (bool, error) {
	data, err := os.ReadFile("/proc/sys/net/ipv4/conf/" + link + "/forwarding")
	return strings.TrimSpace(string(data)) == "1", err
}
