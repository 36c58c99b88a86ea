//go:build !linux

package doctor

import "errors"

var errNotHere = errors.New("this cannot be seen on this system")

func ntp() (NTP, error) { return NTP{}, errNotHere }

func disk(string) (Disk, error) { return Disk{}, errNotHere }
