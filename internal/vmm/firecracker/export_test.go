package firecracker

import (
	"context"
	"net/http"
	"os"
	"path/filepath"

	"banger/internal/vmm"
)

const SpareDrives = spareDrives

// FillSpare has Firecracker open a disk, a file of the same file system, as a spare drive of a VM that runs.
func FillSpare(ctx context.Context, p vmm.Process, i int, disk string) error {
	running, name := p.(*process), spareName(i)
	if err := os.Rename(disk, filepath.Join(running.config.Dir, name)); err != nil {
		return err
	}
	body := map[string]string{"drive_id": name, "path_on_host": spares(outside(running.config).Dir, spareDrives)[i].Path}
	return running.api.call(ctx, http.MethodPatch, "/drives/"+name, body, nil)
}
