package daemon

import (
	"strings"

	"banger/internal/cgroup"
)

// describeGroups says where VMs have control groups. problem says what the groups do not limit, or why there are
// none.
func describeGroups(groups *cgroup.Tree, err error) (where, problem string) {
	if err != nil {
		return "", err.Error()
	}
	if missing := groups.Missing(); len(missing) > 0 {
		problem = "this host has no controller of version 2 for " + strings.Join(missing, ", ")
	}
	return groups.Dir(), problem
}
