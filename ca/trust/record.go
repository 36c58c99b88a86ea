package trust

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
)

// The kinds of an act.
const (
	kindDir      = "dir"      // a directory that was made
	kindFile     = "file"     // a file that was written, or part of one
	kindKeystore = "keystore" // a root in a Java keystore
	kindNSS      = "nss"      // a root in an NSS database
	kindUnit     = "unit"     // a systemd unit that was enabled
)

// An act is one change of the host, and all that is needed to undo it.
type act struct {
	Kind   string      `json:"kind"`
	Path   string      `json:"path"`
	Name   string      `json:"name,omitempty"`   // of the entries in a store, with commas; of a unit
	Edit   string      `json:"edit,omitempty"`   // how our part is taken out of a file that others changed since
	Backup string      `json:"backup,omitempty"` // what was there before, below the undo directory; "" is nothing
	Mode   fs.FileMode `json:"mode,omitempty"`   // of what was there before
	After  string      `json:"after,omitempty"`  // SHA-256 of what was left; "" when it is not known
	Tool   string      `json:"tool,omitempty"`   // the program that undoes it
	Hook   string      `json:"hook,omitempty"`   // what has to run when it changes
}

func (a act) key() string { return a.Kind + " " + a.Path }

// A record is the list of acts that are in force, oldest first, as the file says it.
type record struct {
	Version int        `json:"version"`
	Acts    []act      `json:"acts"`
	Next    int        `json:"next"` // number of the next backup
	Vars    []Variable `json:"variables,omitempty"`
}

func (r *record) find(key string) *act {
	for i := range r.Acts {
		if r.Acts[i].key() == key {
			return &r.Acts[i]
		}
	}
	return nil
}

// stores lists where the roots are.
func (r *record) stores() []string {
	var list []string
	for _, a := range r.Acts {
		if a.Hook == hookStore || a.Kind == kindKeystore || a.Kind == kindNSS {
			list = append(list, a.Path)
		}
	}
	return list
}

func (r *record) clone() record {
	c := *r
	c.Acts = slices.Clone(r.Acts)
	return c
}

const recordVersion = 1

func (h Host) recordPath() string { return path.Join(h.state(), "undo.json") }
func (h Host) backupDir() string  { return path.Join(h.state(), "undo") }

// readRecord returns an empty record when there is none.
func (h Host) readRecord() (record, error) {
	r := record{Version: recordVersion}
	b, found, err := h.tree().read(h.recordPath())
	if errors.Is(err, fs.ErrPermission) {
		return r, fmt.Errorf("read the undo record: %w: run this with sudo", err)
	}
	if err != nil || !found {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("the undo record %s is damaged: %w: nothing is changed without it", h.recordPath(), err)
	}
	if r.Version != recordVersion {
		return r, fmt.Errorf("the undo record %s is of version %d, and this program knows %d", h.recordPath(), r.Version, recordVersion)
	}
	return r, nil
}

func (h Host) writeRecord(r record) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return h.tree().write(h.recordPath(), append(b, '\n'), 0o600)
}

// keep puts what was there before into the undo directory, and returns its name.
func (x *run) keep(old []byte) (string, error) {
	name := strconv.Itoa(x.rec.Next)
	x.rec.Next++
	if err := x.makeDir(x.h.backupDir(), 0o700); err != nil {
		return "", err
	}
	return name, x.t.write(path.Join(x.h.backupDir(), name), old, 0o600)
}

func (x *run) kept(a act) ([]byte, error) {
	b, found, err := x.t.read(path.Join(x.h.backupDir(), a.Backup))
	if err == nil && !found {
		err = fmt.Errorf("what %s was before is not in %s any more", a.Path, x.h.backupDir())
	}
	return b, err
}
