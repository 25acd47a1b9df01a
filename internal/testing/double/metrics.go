package main

import (
	"encoding/json"
	"fmt"
	"time"
)

// diskUse is the part of BlockDeviceMetrics that the double has (block/virtio/metrics.rs).
type diskUse struct {
	Read    uint64 `json:"read_bytes"`
	Written uint64 `json:"write_bytes"`
}

// flushMetrics writes a line of metrics: for each drive and for all together, the difference to the
// line before (logger/metrics.rs, SharedIncMetric). Without a file it does nothing, as
// Metrics::write does.
func (m *microVM) flushMetrics() error {
	if m.metrics == nil {
		return nil
	}
	if err := m.qmp("query-blockstats", nil); err != nil {
		return err
	}
	var disks []struct {
		Node  string `json:"node-name"`
		Stats struct {
			Read    uint64 `json:"rd_bytes"`
			Written uint64 `json:"wr_bytes"`
		}
	}
	if err := json.Unmarshal(m.answer, &disks); err != nil {
		return err
	}
	line, all, counted := map[string]any{"utc_timestamp_ms": time.Now().UnixMilli()}, diskUse{}, map[string]diskUse{}
	for _, d := range disks {
		now, before := diskUse{d.Stats.Read, d.Stats.Written}, m.counted[d.Node]
		since := diskUse{now.Read - before.Read, now.Written - before.Written}
		counted[d.Node] = now
		all.Read += since.Read
		all.Written += since.Written
		for i, drive := range m.drives {
			if d.Node == fmt.Sprintf("drive%d", i) {
				line["block_"+drive.ID] = since
			}
		}
	}
	line["block"] = all
	data, err := json.Marshal(line)
	if err != nil {
		return err
	}
	m.counted = counted
	_, err = m.metrics.Write(append(data, '\n'))
	return err
}
