package doctor

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

func ntp() (n NTP, err error) {
	var t unix.Timex // modes 0: it only reads
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return n, fmt.Errorf("adjtimex: %w", err)
	}
	n.Synced = state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0
	n.MaxError = time.Duration(t.Maxerror) * time.Microsecond
	return n, nil
}

func disk(dir string) (d Disk, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return d, fmt.Errorf("statfs %s: %w", dir, err)
	}
	return Disk{Free: int64(s.Bavail) * s.Bsize, Size: int64(s.Blocks) * s.Bsize, FreeInodes: int64(s.Ffree), AllInodes: int64(s.Files)}, nil
}
