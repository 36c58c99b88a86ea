package trust

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path"
	"strings"
	"time"
)

// A Command is a program of the host that is run.
type Command struct {
	Argv     []string // the first is its path below the root directory; so are the others that name files
	Stdin    []byte
	UID, GID int // run as
}

// A Runner runs commands on the host. The output is both streams, and is bounded.
type Runner interface {
	Run(ctx context.Context, c Command) (output []byte, err error)
}

// commandTime bounds one command: update-ca-certificates with Java's hook takes seconds.
const commandTime = 2 * time.Minute

// maxOutput bounds what is kept of a command's output.
const maxOutput = 64 << 10

// A localRunner runs commands on this machine, with root as their root directory. They inherit no variable, so a
// token in ours is not handed on.
type localRunner struct{ root, home string }

// Run implements Runner.
func (l localRunner) Run(ctx context.Context, c Command) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.Argv[0], c.Argv[1:]...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=" + l.home, "XDG_RUNTIME_DIR=" + userRuntime()}
	cmd.Stdin = bytes.NewReader(c.Stdin)
	var out bounded
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	cmd.Dir = "/"
	confine(cmd, l.root, c.UID, c.GID)
	err := cmd.Run()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return out.Bytes(), err
}

// A bounded buffer drops what is past its bound.
type bounded struct{ bytes.Buffer }

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if room := maxOutput - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// commandError says which program failed, and the last that it said.
func commandError(c Command, out []byte, err error) error {
	last := ""
	for line := range strings.Lines(string(out)) {
		if s := strings.TrimSpace(line); s != "" {
			last = s
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("it did not end within %s", commandTime)
	}
	if last != "" {
		return fmt.Errorf("%s: %w: %.200s", path.Base(c.Argv[0]), err, last)
	}
	return fmt.Errorf("%s: %w", path.Base(c.Argv[0]), err)
}
