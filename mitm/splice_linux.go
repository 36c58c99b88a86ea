package mitm

import (
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// copyKernel moves src to dst with splice(2) until the end of src. It holds a pipe only while bytes are moving,
// so that an idle pair of sockets costs two descriptors and not six (which io.Copy between sockets takes).
func copyKernel(dst, src *net.TCPConn, q *quota) (total int64, err error) {
	sr, err := src.SyscallConn()
	if err != nil {
		return 0, err
	}
	dw, err := dst.SyscallConn()
	if err != nil {
		return 0, err
	}
	for {
		if eof, err := waitReadable(sr); err != nil || eof {
			return total, err
		}
		p, err := takePipe()
		if err != nil {
			return total, err
		}
		n, err := p.burst(dw, sr, q)
		total += n
		if err != nil || q.over.Load() {
			p.close() // it may hold bytes of this flow
			return total, err
		}
		pipes.Put(p)
	}
}

// waitReadable waits, holding nothing but its goroutine, until src has bytes or its end.
func waitReadable(sr rawReader) (eof bool, err error) {
	var one [1]byte
	var rerr error
	err = sr.Read(func(fd uintptr) bool {
		n, _, e := unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		switch e {
		case unix.EAGAIN, unix.EINTR:
			return false
		}
		eof, rerr = n == 0 && e == nil, e
		return true
	})
	if err == nil && rerr != nil {
		err = rerr
	}
	return eof, err
}

type pipe struct{ r, w int }

var pipes sync.Pool // of *pipe, empty

func takePipe() (*pipe, error) {
	if p, _ := pipes.Get().(*pipe); p != nil {
		return p, nil
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, err
	}
	unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, 256<<10) // refused beyond the user's share: the default does
	return &pipe{fds[0], fds[1]}, nil
}

func (p *pipe) close() { unix.Close(p.r); unix.Close(p.w) }

type rawReader interface {
	Read(func(uintptr) bool) error
}
type rawWriter interface {
	Write(func(uintptr) bool) error
}

// spliceStep is how many bytes one splice(2) may take into the pipe.
const spliceStep = 1 << 20

// burst moves what is there now, and returns how many bytes dw took.
func (p *pipe) burst(dw rawWriter, sr rawReader, q *quota) (total int64, err error) {
	for {
		n, full, e := q.fill(spliceStep, func(room int64) (int64, error) { return p.fill(sr, room) })
		switch {
		case full && total > 0: // it may have been the last byte: waitReadable tells
			return total, nil
		case full:
			q.over.Store(true)
			return 0, nil
		case e == unix.EAGAIN, e == nil && n == 0: // drained, or at its end: waitReadable tells which
			return total, nil
		case e == unix.EINTR:
			continue
		case e != nil:
			return total, e
		}
		m, err := p.drain(dw, n)
		total += m
		if err != nil {
			return total, err
		}
	}
}

// fill takes at most room bytes from the socket into the pipe.
func (p *pipe) fill(sr rawReader, room int64) (n int64, err error) {
	var e error
	if err := sr.Read(func(fd uintptr) bool {
		n, e = unix.Splice(int(fd), nil, p.w, nil, int(room), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		return true
	}); err != nil {
		return 0, err
	}
	return max(n, 0), e
}

// drain moves the pipe's n bytes to the socket, and waits for it where it must.
func (p *pipe) drain(dw rawWriter, n int64) (moved int64, err error) {
	for moved < n {
		var m int64
		var e error
		if err := dw.Write(func(fd uintptr) bool {
			m, e = unix.Splice(p.r, nil, int(fd), nil, int(n-moved), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
			return e != unix.EAGAIN
		}); err != nil {
			return moved, writeError{err}
		}
		if e != nil && e != unix.EINTR {
			return moved, writeError{e}
		}
		moved += max(m, 0)
	}
	return moved, nil
}
