package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"banger"
	"banger/internal/api"
	"banger/internal/text"
)

func (a *app) imageCommand() *cobra.Command {
	c := &cobra.Command{Use: "image", Short: "Work with images"}
	inspect := &cobra.Command{Use: "inspect IMAGE...", Short: "Show images as JSON", Args: usage(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			return inspectAll(a, args, func(ref string) (banger.Image, error) { return client.Image(c.Context(), absoluteReference(ref)) })
		}}
	rm := &cobra.Command{Use: "rm IMAGE...", Short: "Remove images that no VM uses", Args: usage(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			return a.each(c.Context(), args, func(client *api.Client, ref string) (string, error) {
				return ref, client.RemoveImage(c.Context(), absoluteReference(ref))
			})
		}}
	tag := &cobra.Command{Use: "tag IMAGE NAME[:TAG]", Short: "Give an image another name", Args: usage(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			img, err := client.TagImage(c.Context(), absoluteReference(args[0]), args[1])
			if err != nil {
				return err
			}
			a.say(img.Reference)
			return nil
		}}
	c.AddCommand(a.imagePullCommand(), a.imagePushCommand(), a.imageListCommand(), inspect, a.imageHistoryCommand(), tag, rm,
		a.imageRegisterCommand(), a.imagePromoteCommand(), a.imageSaveCommand(), a.imageLoadCommand(), a.imageUsageCommand(),
		a.imagePruneCommand())
	return c
}

// withEvents runs f and shows its progress: as lines for a person on stderr or, with the format json, each event as a
// line of JSON on stdout.
func (a *app) withEvents(c *cobra.Command, format string, f func(*api.Client, banger.Emit) error) error {
	if format != "" && format != "json" {
		return &exitError{exitUsage, fmt.Errorf("--format is %q, but only json is known", format)}
	}
	client, err := a.connect(c.Context())
	if err != nil {
		return err
	}
	if format == "json" {
		return f(client, func(e banger.Event) { text.WriteJSON(a.stdout, e, "") })
	}
	p := a.progress()
	err = f(client, p.emit)
	p.close()
	return err
}

// printImage prints the image that f of withEvents made.
func (a *app) printImage(img banger.Image, format string) {
	if format == "json" {
		text.WriteJSON(a.stdout, banger.Event{Image: &img}, "")
		return
	}
	a.say(img.Digest)
}

func (a *app) imagePullCommand() *cobra.Command {
	var platform, format string
	c := &cobra.Command{Use: "pull IMAGE", Short: "Fetch an image and make its root file system", Args: usage(cobra.ExactArgs(1)),
		Example: `  banger image pull docker.io/library/debian:bookworm
  banger image pull debian-bookworm            from the built-in catalogue, by the host's apt sources
  banger image pull oci:DIR[:tag]              an OCI layout; also oci-archive:FILE, docker-archive:FILE, - for stdin
  banger image pull docker-daemon:NAME         from a running docker; also podman:NAME`,
		RunE: func(c *cobra.Command, args []string) error {
			if args[0] == "docker-archive:-" || args[0] == "oci-archive:-" {
				return a.load(c, a.stdin, format)
			}
			return a.withEvents(c, format, func(client *api.Client, emit banger.Emit) error {
				img, err := client.PullImage(c.Context(), absoluteReference(args[0]), platform, emit)
				if err == nil {
					a.printImage(img, format)
				}
				return err
			})
		}}
	c.Flags().StringVar(&platform, "platform", "", "os/arch[/variant] to choose from an image of several")
	c.Flags().StringVar(&format, "format", "", "json: progress as one JSON event a line, on stdout")
	return c
}

func (a *app) imagePushCommand() *cobra.Command {
	format := ""
	c := &cobra.Command{Use: "push IMAGE", Short: "Write an image to the registry that its name says", Args: usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withEvents(c, format, func(client *api.Client, emit banger.Emit) error {
				img, err := client.PushImage(c.Context(), args[0], emit)
				if err == nil {
					a.printImage(img, format)
				}
				return err
			})
		}}
	c.Flags().StringVar(&format, "format", "", "json: progress as one JSON event a line, on stdout")
	return c
}

func (a *app) imageListCommand() *cobra.Command {
	check := false
	c := listCommand(a, listing[banger.Image]{
		use: "ls", aliases: []string{"list"}, short: "List images",
		get: func(ctx context.Context, client *api.Client) ([]banger.Image, error) {
			return client.Images(ctx, check)
		},
		name: func(img banger.Image) string { return img.Digest },
		head: []string{"REFERENCE", "DIGEST", "PLATFORM", "SIZE", "PULLED"},
		row: func(img banger.Image) []string {
			pulled := age(img.PulledAt)
			if img.Moved {
				pulled += ", the tag has moved on"
			}
			return []string{img.Reference, shortDigest(img.Digest), img.Platform, banger.FormatSize(img.Size), pulled}
		},
	})
	c.Flags().BoolVar(&check, "check", false, "ask the registries whether tags have moved on")
	return c
}

func shortDigest(digest string) string { return text.Limit(strings.TrimPrefix(digest, "sha256:"), 13) }

func (a *app) imageHistoryCommand() *cobra.Command {
	format := ""
	l := listing[banger.ImageStep]{
		name: func(s banger.ImageStep) string { return s.Layer },
		head: []string{"LAYER", "CREATED", "SIZE", "CREATED BY"},
		row: func(s banger.ImageStep) []string {
			layer, created, size := "-", "-", ""
			if s.Layer != "" {
				layer, size = shortDigest(s.Layer), banger.FormatSize(s.Size)
			}
			if !s.Created.IsZero() {
				created = age(s.Created)
			}
			return []string{layer, created, size, text.Limit(s.By, 100)}
		},
	}
	c := &cobra.Command{Use: "history IMAGE", Short: "Show how an image was built", Args: usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			steps, err := client.ImageHistory(c.Context(), absoluteReference(args[0]))
			if err != nil {
				return err
			}
			return printList(a, l, steps, format)
		}}
	c.Flags().StringVar(&format, "format", "table", "table or json")
	return c
}

func (a *app) imageRegisterCommand() *cobra.Command {
	var rootfs, kernel string
	c := &cobra.Command{Use: "register NAME --rootfs FILE",
		Short: "Use an ext4 file of the host as an image, where it lies", Args: usage(cobra.ExactArgs(1)),
		Long: "Use an ext4 file of the host as an image, where it lies. It must not change afterwards; `banger image promote` copies it.",
		RunE: func(c *cobra.Command, args []string) error {
			path, err := filepath.Abs(rootfs)
			if err != nil {
				return err
			}
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			img, err := client.RegisterImage(c.Context(), args[0], path, kernel)
			if err != nil {
				return err
			}
			a.printImage(img, "")
			return nil
		}}
	c.Flags().StringVar(&rootfs, "rootfs", "", "file that holds the file system")
	c.Flags().StringVar(&kernel, "kernel", "", "kernel that its VMs get unless they name one")
	c.MarkFlagRequired("rootfs")
	return c
}

func (a *app) imagePromoteCommand() *cobra.Command {
	return &cobra.Command{Use: "promote IMAGE", Short: "Copy a registered file into banger's own storage", Args: usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			img, err := client.PromoteImage(c.Context(), args[0])
			if err != nil {
				return err
			}
			a.printImage(img, "")
			return nil
		}}
}

func (a *app) imageSaveCommand() *cobra.Command {
	output := ""
	c := &cobra.Command{Use: "save [-o FILE] IMAGE...",
		Short: "Write images as a tar that banger, docker, podman and skopeo load", Args: usage(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			refs := make([]string, len(args))
			for i, ref := range args {
				refs[i] = absoluteReference(ref)
			}
			if output == "" && isTerminal(a.stdout) {
				return banger.Errorf(banger.CodeInvalid, "a tar is not for a terminal").WithHint("use -o FILE")
			}
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			if output == "" {
				return client.SaveImages(c.Context(), refs, a.stdout)
			}
			return writeWhole(output, func(w io.Writer) error { return client.SaveImages(c.Context(), refs, w) })
		}}
	c.Flags().StringVarP(&output, "output", "o", "", "file to write instead of stdout")
	return c
}

// writeWhole writes a file that exists completely or not at all, even after a power cut. If the file system supports
// it, the file has no name until it is complete. The kernel then removes it if this process is killed.
func writeWhole(path string, write func(io.Writer) error) error {
	dir := filepath.Dir(path)
	temp := filepath.Join(dir, fmt.Sprintf(".banger-save-%d", os.Getpid()))
	os.Remove(temp) // left by an earlier process with this id
	f, err := os.OpenFile(dir, os.O_WRONLY|unix.O_TMPFILE, 0o600)
	nameless := err == nil
	if !nameless {
		f, err = os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	}
	if err != nil {
		return err
	}
	if err = write(f); err == nil {
		err = errors.Join(f.Chmod(0o644), f.Sync())
	}
	if err == nil && nameless { // the way that open(2) describes
		err = unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.AT_FDCWD, temp, unix.AT_SYMLINK_FOLLOW)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		os.Remove(temp)
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func (a *app) imageLoadCommand() *cobra.Command {
	var input, format string
	c := &cobra.Command{Use: "load [-i FILE]", Short: "Bring in the images of a tar that docker, podman or banger saved",
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			in := a.stdin
			if input != "" && input != "-" {
				f, err := os.Open(input)
				if err != nil {
					return banger.Errorf(banger.CodeInvalid, "cannot read the archive: %w", err)
				}
				defer f.Close()
				in = f
			} else if term.IsTerminal(int(in.Fd())) {
				return banger.Errorf(banger.CodeInvalid, "stdin is a terminal, not an archive").WithHint("use -i FILE")
			}
			return a.load(c, in, format)
		}}
	c.Flags().StringVarP(&input, "input", "i", "", "file to read instead of stdin")
	c.Flags().StringVar(&format, "format", "", "json: progress as one JSON event a line, on stdout")
	return c
}

// load imports the images of an archive and prints their names.
func (a *app) load(c *cobra.Command, in io.Reader, format string) error {
	return a.withEvents(c, format, func(client *api.Client, emit banger.Emit) error {
		list, err := client.LoadImages(c.Context(), in, emit)
		for _, img := range list {
			if format == "json" {
				a.printImage(img, format)
			} else {
				a.say(img.Reference)
			}
		}
		return err
	})
}

func (a *app) imageUsageCommand() *cobra.Command {
	return listCommand(a, listing[banger.ImageUsage]{
		use: "df", short: "Show what images take on the disk, and what they share",
		get: func(ctx context.Context, client *api.Client) ([]banger.ImageUsage, error) {
			return client.ImageUsage(ctx)
		},
		name: func(u banger.ImageUsage) string { return u.Digest },
		head: []string{"DIGEST", "FILE SYSTEM", "LAYERS", "SHARED", "REFERENCES"},
		row: func(u banger.ImageUsage) []string {
			return []string{shortDigest(u.Digest), banger.FormatSize(u.Rootfs), banger.FormatSize(u.Blobs),
				banger.FormatSize(u.Shared), strings.Join(u.References, " ")}
		},
	})
}

func (a *app) imagePruneCommand() *cobra.Command {
	var all, dryRun, force bool
	c := &cobra.Command{Use: "prune", Short: "Remove images without a name and blobs of no image", Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if all && !force && !dryRun {
				if err := a.confirm("This removes every image that no VM uses. Go on?", "--force"); err != nil {
					return err
				}
			}
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			p, err := client.PruneImages(c.Context(), all, dryRun)
			if err != nil {
				return err
			}
			for _, digest := range p.Images {
				a.say(digest)
			}
			verb := "removed"
			if dryRun {
				verb = "would remove"
			}
			if !a.quiet {
				for _, k := range p.Kept {
					fmt.Fprintf(a.stderr, "%s stays: it is needed by %s\n", text.Line(cmp.Or(k.Reference, shortDigest(k.Image))), text.Line(k.By))
				}
				fmt.Fprintf(a.stderr, "%s %d images and %d blobs, %s\n", verb, len(p.Images), p.Blobs, banger.FormatSize(p.Bytes))
			}
			return nil
		}}
	c.Flags().BoolVarP(&all, "all", "a", false, "also images that have a name, but no VM")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be removed")
	c.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	return c
}

// absoluteReference makes the path in a file reference absolute, because the daemon has another working directory.
func absoluteReference(ref string) string {
	for _, scheme := range []string{"oci:", "oci-archive:", "docker-archive:"} {
		if path, ok := strings.CutPrefix(ref, scheme); ok && path != "" && !filepath.IsAbs(path) {
			if abs, err := filepath.Abs(path); err == nil {
				return scheme + abs
			}
		}
	}
	return ref
}
