package view

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/command"
	"banger/internal/cli/format"
	"banger/internal/cli/spec"
)

// kinds are the kinds of things that inspect shows, in the order in which it looks for a name. The second word is
// docker's.
var kinds = [][]string{{"vm", "container"}, {"image"}, {"network"}, {"kernel"}}

// inspection is one run of inspect.
type inspection struct {
	kind string // "" means the first kind that has the name
	env  bool
}

// NewInspect returns the command inspect. A kind other than "" makes it show things of that kind alone.
func NewInspect(a *command.App, kind string) *cobra.Command {
	o := &inspection{kind: kind}
	c := &cobra.Command{
		Use:   "inspect VM...",
		Short: "Show everything about VMs as JSON",
		Args:  command.Usage(cobra.MinimumNArgs(1)),
	}
	if kind == "" {
		c.Use = "inspect THING..."
		c.Short = "Show everything about VMs, images, networks or kernels as JSON"
		c.Flags().StringVar(&o.kind, "type", "", "only look for a vm, image, network or kernel")
	}
	c.Flags().BoolVar(&o.env, "show-env", false,
		"show the values that -e gave, which are "+banger.HiddenValue+" otherwise")
	command.Inspects(a, c, fields, o.get)
	inspect := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		if o.kind != "" && !slices.ContainsFunc(kinds, o.is) {
			return command.UsageErrorf("--type is %q, but must be vm, image, network or kernel", o.kind)
		}
		return inspect(c, args)
	}
	return c
}

// is reports whether the user has chosen a kind.
func (o *inspection) is(kind []string) bool { return slices.Contains(kind, o.kind) }

// get returns the thing that ref names.
func (o *inspection) get(ctx context.Context, client *client.Client, ref string) (any, error) {
	for _, kind := range kinds {
		if o.kind != "" && !o.is(kind) {
			continue
		}
		v, err := o.read(ctx, client, kind[0], ref)
		if err == nil {
			return v, nil
		}
		absent := banger.CodeOf(err) == banger.CodeNotFound ||
			kind[0] != "vm" && banger.CodeOf(err) == banger.CodeInvalid // no thing of the kind can have such a name
		if o.kind != "" || !absent {
			return nil, err
		}
	}
	return nil, banger.Errorf(banger.CodeNotFound, "there is no VM, image, network or kernel %.100q", ref).
		WithHint("see: banger ps -a, banger images")
}

func (o *inspection) read(ctx context.Context, client *client.Client, kind, ref string) (any, error) {
	switch kind {
	case "image":
		return client.Image(ctx, spec.AbsoluteReference(ref))
	case "network":
		return client.Network(ctx, ref)
	case "kernel":
		return client.Kernel(ctx, ref)
	}
	if o.env {
		return client.GetWithEnv(ctx, ref)
	}
	return client.Get(ctx, ref)
}

// fields returns docker's fields of a thing.
func fields(v any) map[string]any {
	switch v := v.(type) {
	case banger.VM:
		return format.InspectVM(v)
	case banger.Image:
		return format.InspectImage(v)
	case banger.Network:
		return format.InspectNetwork(v)
	}
	return nil
}
