package supervisor

import (
	"context"
	"time"

	"banger"
	"banger/internal/parking"
)

// Update changes what a user wants of a VM. Sizes of a VM that is not at rest wait for its next boot.
func (s *Supervisor) Update(ctx context.Context, ref string, u banger.Update) (banger.VM, error) {
	return s.alter(ctx, ref, func(ctx context.Context, m *machine) error {
		next, err := parking.Updated(m.Snapshot(), u, time.Now())
		if err != nil {
			return err
		}
		if u.CPUs != nil || u.Memory != nil {
			if err := s.checkHost(parking.AtNextBoot(next), banger.Discard); err != nil {
				return err
			}
		}
		if err := m.store(ctx, next); err != nil {
			return err
		}
		m.Update(func(vm *banger.VM) { *vm = next })
		return nil
	})
}
