//go:build unix

package main

import (
	"os"
	"syscall"
)

// tryLock takes the lock of f unless another process has it.
func tryLock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }
