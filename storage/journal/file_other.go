//go:build !linux

package journal

import "os"

type plainFile struct{ *os.File }

func newFile(f *os.File) file { return plainFile{f} }

// Prepare implements file; this system has nothing for it.
func (plainFile) Prepare(int64) error { return nil }
