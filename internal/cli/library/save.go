package library

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/cli/command"
	"banger/internal/cli/render"
	"banger/internal/cli/spec"
)

func newImageSave(a *command.App) *cobra.Command {
	output := ""
	c := &cobra.Command{
		Use:   "save [-o FILE] IMAGE...",
		Short: "Write images as a tar that banger, docker, podman and skopeo load",
		Args:  command.Usage(cobra.MinimumNArgs(1)),
		RunE:  func(c *cobra.Command, args []string) error { return runImageSave(c.Context(), a, output, args) },
	}
	c.Flags().StringVarP(&output, "output", "o", "", "file to write instead of stdout")
	return c
}

// runImageSave writes images to the file output, or to stdout if output is "".
func runImageSave(ctx context.Context, a *command.App, output string, args []string) error {
	refs := make([]string, len(args))
	for i, ref := range args {
		refs[i] = spec.AbsoluteReference(ref)
	}
	if output == "" && render.IsTerminal(a.Stdout) {
		return banger.Errorf(banger.CodeInvalid, "a tar is not for a terminal").WithHint("use -o FILE")
	}
	client, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	if output == "" {
		return client.SaveImages(ctx, refs, a.Stdout)
	}
	err = writeWhole(output, func(w io.Writer) error { return client.SaveImages(ctx, refs, w) })
	if number, ok := errors.AsType[unix.Errno](err); ok {
		return banger.Errorf(banger.CodeDisk, "cannot write %s: %w", output, number)
	}
	return err
}

func newImageLoad(a *command.App) *cobra.Command {
	c := &cobra.Command{
		Use:   "load [-i FILE]",
		Short: "Bring in the images of a tar that docker, podman or banger saved",
		Args:  command.Usage(cobra.NoArgs),
	}
	return reads(a, c, func(ctx context.Context, o command.Operation, in io.Reader, _ []string) error {
		return o.Images(o.Client.LoadImages(ctx, in, o.Emit))
	})
}

func newImageExtend(a *command.App) *cobra.Command {
	var note banger.CommitNote
	c := &cobra.Command{
		Use:     "extend [-i FILE] IMAGE NAME[:TAG]",
		Short:   "Make an image of another one and one more layer, a plain tar",
		Example: "  tar c -C files . | banger image extend debian-bookworm mine:v1",
		Args:    command.Usage(cobra.ExactArgs(2)),
	}
	c.Flags().StringVarP(&note.Author, "author", "a", "", "who made it, for the image's history")
	c.Flags().StringVarP(&note.Message, "message", "m", "", "what it is, for the image's history")
	return reads(a, c, func(ctx context.Context, o command.Operation, in io.Reader, args []string) error {
		return o.Image(o.Client.ExtendImage(ctx, spec.AbsoluteReference(args[0]), args[1], in, note, o.Emit))
	})
}

// reads makes c a command that reads an archive from stdin or a file.
func reads(a *command.App, c *cobra.Command, use func(ctx context.Context, o command.Operation, in io.Reader,
	args []string) error) *cobra.Command {
	input := ""
	c.Flags().StringVarP(&input, "input", "i", "", "file to read instead of stdin")
	var in *os.File
	command.WithProgress(a, c, func(ctx context.Context, o command.Operation, args []string) error {
		return use(ctx, o, in, args)
	})
	load := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		if in = a.Stdin; input == "" || input == "-" {
			if render.IsTerminal(in) {
				return banger.Errorf(banger.CodeInvalid, "stdin is a terminal, not an archive").WithHint("use -i FILE")
			}
			return load(c, args)
		}
		f, err := os.Open(input)
		if err != nil {
			return banger.Errorf(banger.CodeInvalid, "cannot read the archive %s: %w", input, banger.Cause(err))
		}
		defer f.Close()
		in = f
		return load(c, args)
	}
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
		self := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
		err = unix.Linkat(unix.AT_FDCWD, self, unix.AT_FDCWD, temp, unix.AT_SYMLINK_FOLLOW)
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
