package library

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/account"
	"banger/internal/cli/command"
	"banger/internal/cli/format"
	"banger/internal/cli/render"
)

func newImageList(a *command.App) *cobra.Command {
	check := false
	c := &cobra.Command{
		Use:     "ls [IMAGE]",
		Aliases: []string{"list"},
		Short:   "List images",
		Args:    command.Usage(cobra.MaximumNArgs(1)),
	}
	c.Flags().BoolVar(&check, "check", false, "ask the registries whether tags have moved on; the exit code is 1 if one "+
		"cannot be asked")
	whole := c.Flags().Bool("no-trunc", false, "whole digests")
	var list []banger.Image
	command.Lists(a, c, command.Listing[banger.Image]{
		Get: func(ctx context.Context, client *client.Client, args []string) (_ []banger.Image, err error) {
			if check {
				list, err = checked(ctx, client)
			} else {
				list, err = client.Images(ctx, false)
			}
			if len(args) == 1 {
				list = slices.DeleteFunc(list, func(img banger.Image) bool { return !hasName(img.Reference, args[0]) })
			}
			return list, err
		},
		Name: func(img banger.Image) string { return img.Digest },
		Head: []string{"REFERENCE", "DIGEST", "PLATFORM", "SIZE", "PULLED"},
		Row: func(img banger.Image) []string {
			pulled := render.Age(img.PulledAt)
			switch {
			case img.Moved:
				pulled += ", the tag has moved on"
			case img.Unchecked != "":
				pulled += ", not checked"
			}
			digest := img.Digest
			if !*whole {
				digest = render.Digest(digest)
			}
			return []string{img.Reference, digest, img.Platform, banger.FormatSize(img.Size), pulled}
		},
		Docker: format.Image,
	})
	show := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := show(c, args); err != nil {
			return err
		}
		var result error
		for _, img := range list {
			if img.Unchecked != "" {
				render.Line(a.Stderr, "banger: cannot check "+img.Reference+": "+img.Unchecked)
				result = &command.ExitError{Code: command.ExitFailed}
			}
		}
		return result
	}
	return c
}

// checked returns all images as their registries know them now.
func checked(ctx context.Context, client *client.Client) ([]banger.Image, error) {
	list, err := client.Images(ctx, false)
	if err != nil {
		return nil, err
	}
	refs := make([]string, len(list))
	for i, img := range list {
		refs[i] = img.Reference
	}
	ctx, failed := account.WithKnown(ctx, refs...)
	if list, err = client.Images(ctx, true); err != nil {
		return nil, err
	}
	for i, img := range list {
		// Without its login, a registry may have refused the request.
		if err := failed[img.Reference]; err != nil && img.Unchecked != "" {
			list[i].Unchecked = err.Error()
		}
	}
	return list, nil
}

// hasName reports whether a reference is name, which may lack what docker adds, or any tag of it.
func hasName(reference, name string) bool {
	for _, prefix := range []string{"", "docker.io/", "docker.io/library/"} {
		rest, ok := strings.CutPrefix(reference, prefix+name)
		if ok && (rest == "" || rest[0] == ':' && !strings.Contains(rest, "/")) {
			return true
		}
	}
	return false
}
