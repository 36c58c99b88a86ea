package journal

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"syscall"
)

// A mappedFile is written by way of memory that is mapped to it once it is prepared, which costs a fraction of a system
// call for each frame, and survives the death of the process just as well: the pages are the kernel's.
type mappedFile struct {
	*os.File
	m []byte // nil: not prepared, or what the file system cannot map
}

func newFile(f *os.File) file { return &mappedFile{File: f} }

// Prepare implements file.
func (f *mappedFile) Prepare(size int64) error {
	if int64(len(f.m)) >= size {
		return nil
	}
	err := f.control(func(fd int) error { return syscall.Fallocate(fd, 0, 0, size) })
	if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS) {
		return nil // without room that is set aside it is written to as any file
	}
	if err != nil {
		return &os.PathError{Op: "fallocate", Path: f.Name(), Err: err}
	}
	return f.control(func(fd int) error {
		m, err := syscall.Mmap(fd, 0, int(size), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
		if err != nil {
			return nil // likewise
		}
		f.unmap()
		f.m = m
		return nil
	})
}

// WriteAt implements file. Where the memory cannot be written, since the disk failed under it, that is an error.
func (f *mappedFile) WriteAt(b []byte, off int64) (n int, err error) {
	if off+int64(len(b)) > int64(len(f.m)) {
		return f.File.WriteAt(b, off)
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			n, err = 0, &os.PathError{Op: "write", Path: f.Name(), Err: fmt.Errorf("the disk failed under it: %v", r)}
		}
	}()
	return copy(f.m[off:], b), nil
}

// Truncate replaces that of os.File: memory beyond the end of the file cannot be written.
func (f *mappedFile) Truncate(size int64) error {
	f.unmap()
	return f.File.Truncate(size)
}

// Sync is fdatasync(2): a file that is used again has its blocks and its length already, and then a sync writes data and
// nothing else, which does not hold up those who write meanwhile.
func (f *mappedFile) Sync() error {
	err := f.control(func(fd int) (err error) {
		for err = syscall.EINTR; err == syscall.EINTR; {
			err = syscall.Fdatasync(fd)
		}
		return err
	})
	if err != nil {
		return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
	}
	return nil
}

// Close replaces that of os.File.
func (f *mappedFile) Close() error {
	f.unmap()
	return f.File.Close()
}

func (f *mappedFile) unmap() {
	if f.m != nil {
		syscall.Munmap(f.m) // of what Mmap returned
		f.m = nil
	}
}

func (f *mappedFile) control(do func(fd int) error) (err error) {
	c, cerr := f.SyscallConn()
	if cerr != nil {
		return cerr
	}
	if cerr := c.Control(func(fd uintptr) { err = do(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}
