package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"banger"
)

// truth is what a client knows of its own objects: their names, and what was acknowledged for each. Keys are "vm
// NAME", "image REFERENCE" and "kernel NAME".
type truth map[string]string

// settled returns t without the fact that a VM runs, which changes when its VMM is killed.
func (t truth) settled() truth {
	list := truth{}
	for key, value := range t {
		list[key] = strings.TrimSuffix(value, runs)
	}
	return list
}

// without returns the entries of t that differ in other.
func (t truth) without(other truth) truth {
	list := maps.Clone(t)
	maps.DeleteFunc(list, func(key, value string) bool { return other[key] == value })
	return list
}

// runs is the end of the entry of a running VM.
const runs = ", runs"

// only returns the error of a request whose answer is not needed.
func only[T any](_ T, err error) error { return err }

// request is a request of a client, and what is true after its success.
type request struct {
	text  string
	do    func(context.Context) error
	apply func(truth)
}

// stormClient sends one request after another while the daemon is killed.
type stormClient struct {
	*storm
	n     int
	dice  *rand.Rand
	world *stormWorld

	known                    truth
	done, uncertain, refused int // counts of requests: acknowledged; cut off; refused
}

// loop sends requests until the time is over, and then checks everything that it has.
func (c *stormClient) loop(until time.Time) {
	c.known = truth{}
	for time.Now().Before(until) {
		c.ready()
		r := c.next()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		err := r.do(ctx)
		cancel()
		after := maps.Clone(c.known)
		r.apply(after)
		switch {
		case err == nil:
			c.done++
			c.known = after
			if c.dice.IntN(5) == 0 {
				c.look(r.text, c.known, c.known)
			}
		case isLost(err):
			c.uncertain++
			c.look(r.text, c.known, after)
		default:
			c.refused++
			if banger.CodeOf(err) == banger.CodeInternal {
				c.fault("client %d, %s: %v", c.n, r.text, err)
			}
			c.look(fmt.Sprintf("%s, refused as %v", r.text, err), c.known, after)
		}
	}
	c.ready()
	c.look("the end", c.known, c.known)
}

// isLost reports whether the daemon went away before it had answered.
func isLost(err error) bool {
	lost := []string{"the daemon does not answer", "the daemon went away", "cannot read the daemon's answer"}
	return slices.ContainsFunc(lost, func(text string) bool { return strings.Contains(err.Error(), text) })
}

// look fails the test if the daemon's answer is neither the truth before a request nor the truth after it. From then
// on, the client takes the daemon's answer as its truth.
func (c *stormClient) look(text string, before, after truth) {
	var have truth
	var ids, reasons map[string]string
	for limit := time.Now().Add(patience); ; {
		c.ready()
		var err error
		if have, ids, reasons, err = c.ask(); err == nil {
			break
		}
		if !isLost(err) || time.Now().After(limit) {
			c.fault("client %d, behind %s: %v", c.n, text, err)
			return
		}
	}
	settled := have.settled()
	if !maps.Equal(settled, before.settled()) && !maps.Equal(settled, after.settled()) {
		c.fault("client %d, behind %s: there is %v; before it was %v, and then to be %v",
			c.n, text, have.without(before), before.without(have), after.without(have))
	}
	for key, value := range have {
		was, will := strings.HasSuffix(before[key], runs), strings.HasSuffix(after[key], runs)
		is := strings.HasSuffix(value, runs)
		if before[key] != "" && is != was && is != will && (is || !c.isHurt(ids[key])) {
			c.fault("client %d, behind %s: %s is %q (%s), not %q; its VM %s was not hurt",
				c.n, text, key, value, reasons[key], before[key], ids[key])
		}
	}
	c.known = have
}

// ask returns what the daemon has for this client, with the ids of VMs and the reasons for their states.
func (c *stormClient) ask() (have truth, ids, reasons map[string]string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	have, ids, reasons = truth{}, map[string]string{}, map[string]string{}
	vms, err := c.api.List(ctx, true, nil)
	images, ierr := c.api.Images(ctx, false)
	kernels, kerr := c.api.Kernels(ctx)
	if err = errors.Join(err, ierr, kerr); err != nil {
		return nil, nil, nil, err
	}
	for _, vm := range vms {
		if !c.owns(vm.Name) {
			continue
		}
		for !vm.State.AtRest() && vm.State != banger.StateRunning { // the daemon continues work that another daemon began
			time.Sleep(10 * time.Millisecond)
			if vm, err = c.api.Get(ctx, vm.ID); err != nil {
				return nil, nil, nil, err
			}
		}
		reasons["vm "+vm.Name] = vm.Reason
		have["vm "+vm.Name], ids["vm "+vm.Name] = settings(vm), vm.ID
	}
	for _, img := range images {
		if strings.Contains(img.Reference, fmt.Sprintf("/c%d/", c.n)) {
			have["image "+img.Reference] = img.Digest
		}
	}
	for _, k := range kernels {
		if c.owns(k.Name) {
			have["kernel "+k.Name] = k.Version
		}
	}
	return have, ids, reasons, nil
}

func (c *stormClient) owns(name string) bool {
	return strings.HasPrefix(name, fmt.Sprintf("c%d-", c.n))
}

// settings returns the settings of a VM that requests can change.
func settings(vm banger.VM) string {
	var ports []int
	for _, f := range vm.Spec.Forwards {
		ports = append(ports, int(f.GuestPort))
	}
	text := fmt.Sprintf("%s %v", vm.Spec.Policy.Default, ports)
	if !vm.State.AtRest() {
		text += runs
	}
	return text
}

// next chooses a request that fits the truth.
func (c *stormClient) next() request {
	switch c.dice.IntN(16) {
	case 0:
		return c.nextImage()
	case 1:
		return c.nextKernel()
	}
	name := fmt.Sprintf("c%d-%c", c.n, 'a'+rune(c.dice.IntN(3)))
	have := c.known["vm "+name]
	if have == "" {
		return c.create(name)
	}
	if c.dice.IntN(3) > 0 {
		return c.change(name, have)
	}
	return c.turn(name, have)
}

func (c *stormClient) create(name string) request {
	start := c.dice.IntN(2) == 0
	spec := banger.Spec{Name: name, Image: c.world.image, Kernel: stormKernel, Pull: banger.PullNever,
		Memory: banger.MinMemory, Disk: banger.MinDisk}
	value := banger.Allow + " []"
	if start {
		value += runs
	}
	return request{fmt.Sprintf("create %s, started: %v", name, start), func(ctx context.Context) error {
		_, err := c.api.Create(ctx, spec, nil, start, banger.Discard)
		return err
	}, func(t truth) { t["vm "+name] = value }}
}

// turn starts, stops or removes a VM.
func (c *stormClient) turn(name, have string) request {
	key := "vm " + name
	switch {
	case c.dice.IntN(3) == 0:
		return request{"rm -f " + name,
			func(ctx context.Context) error { return c.api.Remove(ctx, name, true) },
			func(t truth) { delete(t, key) }}
	case strings.HasSuffix(have, runs):
		return request{"stop " + name,
			func(ctx context.Context) error { return only(c.api.Stop(ctx, name, time.Second)) },
			func(t truth) { t[key] = strings.TrimSuffix(have, runs) }}
	}
	return request{"start " + name, func(ctx context.Context) error {
		_, err := c.api.Start(ctx, name, false, false, banger.Discard)
		return err
	}, func(t truth) { t[key] = have + runs }}
}

// change renames a VM, or changes its policy or its ports.
func (c *stormClient) change(name, have string) request {
	key := "vm " + name
	up := ""
	if strings.HasSuffix(have, runs) {
		up = runs
	}
	policy, list, _ := strings.Cut(strings.TrimSuffix(have, runs), " ")
	var ports []int
	for p := range strings.FieldsSeq(strings.Trim(list, "[]")) {
		var n int
		fmt.Sscan(p, &n)
		ports = append(ports, n)
	}
	switch c.dice.IntN(3) {
	case 0:
		to := fmt.Sprintf("c%d-%c", c.n, 'a'+rune(c.dice.IntN(3)))
		if c.known["vm "+to] == "" {
			return request{"rename " + name + " " + to,
				func(ctx context.Context) error { return only(c.api.Rename(ctx, name, to)) },
				func(t truth) { t["vm "+to] = have; delete(t, key) }}
		}
	case 1:
		p := 1000 + c.dice.IntN(1000)
		if !slices.Contains(ports, p) && len(ports) < 5 {
			f := banger.Forward{Protocol: "tcp", HostIP: "127.0.0.1", GuestPort: uint16(p)}
			return request{fmt.Sprintf("port add %s %d", name, p),
				func(ctx context.Context) error { return only(c.api.AddForward(ctx, name, f)) },
				func(t truth) { t[key] = fmt.Sprintf("%s %v%s", policy, append(slices.Clone(ports), p), up) }}
		}
	}
	p := banger.Policy{Default: []string{banger.Allow, banger.Deny}[c.dice.IntN(2)]}
	return request{"policy " + name + " " + p.Default,
		func(ctx context.Context) error { return only(c.api.SetPolicy(ctx, name, p)) },
		func(t truth) { t[key] = fmt.Sprintf("%s %v%s", p.Default, ports, up) }}
}

func (c *stormClient) nextImage() request {
	ref := c.world.registry.Ref(fmt.Sprintf("c%d/image", c.n), "v1")
	if c.known["image "+ref] != "" {
		return request{"image rm " + ref,
			func(ctx context.Context) error { return c.api.RemoveImage(ctx, ref) },
			func(t truth) { delete(t, "image "+ref) }}
	}
	return request{"image pull " + ref,
		func(ctx context.Context) error { return only(c.api.PullImage(ctx, ref, "", banger.Discard)) },
		func(t truth) { t["image "+ref] = c.world.digests[c.n] }}
}

func (c *stormClient) nextKernel() request {
	name := fmt.Sprintf("c%d-kernel", c.n)
	if c.known["kernel "+name] != "" {
		return request{"kernel rm " + name,
			func(ctx context.Context) error { return c.api.RemoveKernel(ctx, name) },
			func(t truth) { delete(t, "kernel "+name) }}
	}
	return request{"kernel import " + name, func(ctx context.Context) error {
		_, err := c.api.ImportKernel(ctx, name, c.world.vmlinux, c.world.modules, banger.Discard)
		return err
	}, func(t truth) { t["kernel "+name] = stormVersion }}
}
