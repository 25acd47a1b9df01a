package boot

import (
	"testing"
	"time"

	"banger/internal/guest"
)

func TestWhatIsDoneToAClock(t *testing.T) {
	const ms = int64(time.Millisecond)
	for _, tt := range []struct {
		offset    int64
		now, kept bool
		want      adjustment
	}{
		{20 * ms, false, false, slew}, {-20 * ms, false, false, slew}, {1000 * ms, false, false, slew},
		{1001 * ms, false, false, step}, {-1001 * ms, false, false, step}, {-1 << 63, false, false, step},
		{20 * ms, true, false, step}, {-1, true, false, step},
		{20 * ms, false, true, leave}, {20 * ms, true, true, leave}, {-999 * ms, true, true, leave},
		{1001 * ms, false, true, step}, {-1001 * ms, true, true, step},
	} {
		if got := adjust(guest.Correction{OffsetNanos: tt.offset, Now: tt.now}, tt.kept); got != tt.want {
			t.Errorf("%+v: %s", tt, got)
		}
	}
}
