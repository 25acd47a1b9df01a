package boot

import "testing"

// TestAnnouncedDisks: only the event of a whole disk that was added announces one.
func TestAnnouncedDisks(t *testing.T) {
	for event, want := range map[string]string{
		"add@/devices/pci0000:00/0000:00:03.0/virtio1/block/vda\x00ACTION=add\x00DEVTYPE=disk\x00": "vda",
		"add@/devices/platform/virtio-mmio.1/virtio1/block/vdb\x00ACTION=add\x00":                  "vdb",
		"add@/devices/pci0000:00/0000:00:03.0/virtio1/block/vda/vda1\x00ACTION=add\x00":            "",
		"add@/devices/pci0000:00/0000:00:03.0/virtio1\x00ACTION=add\x00":                           "",
		"change@/devices/pci0000:00/0000:00:03.0/virtio1/block/vda\x00ACTION=change\x00":           "",
		"add@/module/virtio_blk\x00": "",
		"":                           "",
	} {
		if got := announced(event); got != want {
			t.Errorf("%q announces %q, not %q", event, got, want)
		}
	}
}
