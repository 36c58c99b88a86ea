//go:build !linux

package mitm

import "net"

func copyKernel(dst, src *net.TCPConn, q *quota) (int64, error) { return copyPlain(dst, src, q) }
