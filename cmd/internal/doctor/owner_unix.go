//go:build unix

package doctor

import (
	"io/fs"
	"strconv"
	"syscall"
)

// otherOwner returns the user that st belongs to when dir belongs to another.
func otherOwner(st, dir fs.FileInfo) string {
	a, aok := st.Sys().(*syscall.Stat_t)
	b, bok := dir.Sys().(*syscall.Stat_t)
	if !aok || !bok || a.Uid == b.Uid {
		return ""
	}
	return "user " + strconv.Itoa(int(a.Uid))
}
