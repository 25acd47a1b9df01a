package bridge

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"banger/internal/blob"
)

// savedSettings are the host's settings of links, from before we changed them.
type savedSettings struct {
	Links []savedLink `json:"links"`
}

// savedLink is a link by name and index, so that a new one of the same name is not
// taken for it, and which of its settings were off before.
type savedLink struct {
	Name       string `json:"name"`
	Index      int    `json:"index"`
	Forwarding bool   `json:"forwarding,omitempty"`
	ValidMark  bool   `json:"src_valid_mark,omitempty"`
}

// opened returns the links that forward because of us.
func (m savedSettings) opened() []string {
	var out []string
	for _, l := range m.Links {
		if l.Forwarding {
			out = append(out, l.Name)
		}
	}
	return out
}

func (m savedSettings) of(a *netlink.LinkAttrs) savedLink {
	for _, l := range m.Links {
		if l.Name == a.Name && l.Index == a.Index {
			return l
		}
	}
	return savedLink{Name: a.Name, Index: a.Index}
}

// with returns m and what other has besides.
func (m savedSettings) with(other savedSettings) savedSettings {
	out := savedSettings{slices.Clone(m.Links)}
	for _, l := range other.Links {
		same := func(x savedLink) bool { return x.Name == l.Name && x.Index == l.Index }
		i := slices.IndexFunc(out.Links, same)
		if i < 0 {
			out.Links = append(out.Links, l)
			continue
		}
		out.Links[i].Forwarding = out.Links[i].Forwarding || l.Forwarding
		out.Links[i].ValidMark = out.Links[i].ValidMark || l.ValidMark
	}
	return out
}

// load reads the saved settings. There are none without the file.
func (b *Bridge) load() (m savedSettings, err error) {
	data, err := os.ReadFile(b.saved)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	return m, err
}

// save writes m, completely or not at all. It is called before the change that m is for.
func (b *Bridge) save(m savedSettings) error {
	if len(m.Links) == 0 {
		err := os.Remove(b.saved)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return err
	}
	return blob.WriteJSON(b.saved, m)
}

// syncForwarding makes links to the outside forward, which answers to guests need. A routing rule
// drops all other packets that such a link would forward. It leaves a host as it is that already
// forwards, or begins to. Answers also need their mark for the reverse path check, which uses our
// routing rules too.
func (b *Bridge) syncForwarding(c Config) error {
	found, err := b.load()
	if err != nil {
		return err
	}
	all, err := isOn("all", "forwarding")
	if err != nil {
		return err
	}
	links, err := b.nl.LinkList()
	if err != nil {
		return err
	}
	want, err := b.wanted(c, found, links, all)
	if err != nil {
		return err
	}
	both := found.with(want)
	if !slices.Equal(both.Links, found.Links) {
		if err := b.save(both); err != nil {
			return err
		}
	}
	if err := b.setRules(c.routingRules(both.opened())); err != nil {
		return err
	}
	for _, l := range links {
		a := l.Attrs()
		if err := switchLink(both.of(a), want.of(a), all); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if slices.Equal(both.Links, want.Links) {
		return nil
	}
	if err := b.setRules(c.routingRules(want.opened())); err != nil {
		return err
	}
	return b.save(want)
}

// wanted returns the links that we have to change, or have changed.
func (b *Bridge) wanted(c Config, found savedSettings, links []netlink.Link, all bool) (want savedSettings, err error) {
	for _, l := range links {
		a := l.Attrs()
		if a.Name == "lo" || prefixed(a.Name) || len(c.Networks) == 0 {
			continue
		}
		addrs, err := b.nl.AddrList(l, unix.AF_INET)
		if err != nil {
			return want, err
		}
		forwards, err1 := isOn(a.Name, "forwarding")
		marks, err2 := isOn(a.Name, "src_valid_mark")
		if err := errors.Join(err1, err2); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return want, err
		}
		r := found.of(a)
		r.Forwarding, r.ValidMark = !all && (r.Forwarding || !forwards), r.ValidMark || !marks
		if len(addrs) > 0 && (r.Forwarding || r.ValidMark) {
			want.Links = append(want.Links, r)
		}
	}
	return want, nil
}

// switchLink switches on the settings in want, and switches off those that are only in was, unless
// the whole host forwards now.
func switchLink(was, want savedLink, all bool) error {
	value := map[bool]string{true: "1", false: "0"}
	if was.Forwarding && (want.Forwarding || !all) {
		if err := sysctl(was.Name, "forwarding", value[want.Forwarding]); err != nil {
			return err
		}
	}
	if was.ValidMark {
		return sysctl(was.Name, "src_valid_mark", value[want.ValidMark])
	}
	return nil
}

func isOn(link, key string) (bool, error) {
	data, err := os.ReadFile("/proc/sys/net/ipv4/conf/" + link + "/" + key)
	return strings.TrimSpace(string(data)) == "1", err
}
