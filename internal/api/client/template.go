package client

import (
	"context"
	"net/url"
	"strconv"

	"banger"
)

// Templates returns the templates from which VMs start, the one that was used last first.
func (c templateClient) Templates(ctx context.Context) (list []banger.Template, err error) {
	return list, c.call(ctx, "GET", "/v1/templates", nil, nil, &list)
}

// PruneTemplates removes the templates from which no VM can start any more or, with all, every template. It returns
// those. With dryRun, it removes none.
func (c templateClient) PruneTemplates(ctx context.Context, all, dryRun bool) (removed []banger.Template, err error) {
	query := url.Values{"all": {strconv.FormatBool(all)}, "dry_run": {strconv.FormatBool(dryRun)}}
	return removed, c.call(ctx, "POST", "/v1/templates/prune", query, nil, &removed)
}

// RemoveTemplate removes the template whose id starts with ref.
func (c templateClient) RemoveTemplate(ctx context.Context, ref string) error {
	return c.call(ctx, "DELETE", "/v1/templates/"+ref, nil, nil, nil)
}
