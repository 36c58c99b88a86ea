package provider_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/exitgate/exitgate/deploy/terraform/internal/gate"
)

// A block is a resource of a configuration. Each depends on those before it.
type block struct {
	addr   string // exitgate_class.build
	config map[string]any
}

func (b block) with(change map[string]any) block {
	b.config = maps.Clone(b.config)
	for name, v := range change {
		if b.config[name] = v; v == nil {
			delete(b.config, name)
		}
	}
	return b
}

// A world is what plans and applies configurations: Terraform itself, or the stand-in of core_test.go that speaks the
// plugin protocol in this process, where Terraform is not there.
type world interface {
	// plan returns what an apply would do to each resource that it would change: "create", "update", "delete", "replace".
	plan(blocks ...block) (map[string]string, error)
	apply(blocks ...block) error
	// adopt imports the resource of that address, which is among the blocks, by its id.
	adopt(addr, id string, blocks ...block) error
	// read returns an attribute in the state, as JSON has it.
	read(addr, attribute string) any
}

func TestMain(m *testing.M) {
	code := m.Run()
	gate.Clean()
	os.Exit(code)
}

// worlds runs a scenario in each world there is, with a gateway of its own.
func worlds(t *testing.T, more string, scenario func(t *testing.T, g *gate.Gate, w world)) {
	t.Helper()
	t.Run("protocol", func(t *testing.T) {
		t.Parallel()
		g := gate.New(t, more)
		scenario(t, g, newCore(t, g.Endpoint, g.TokenFile, g.CAFile))
	})
	t.Run("terraform", func(t *testing.T) {
		t.Parallel()
		program := terraformProgram(t)
		g := gate.New(t, more)
		scenario(t, g, newTerraform(t, program, g.Endpoint, g.TokenFile, g.CAFile))
	})
}

// terraformProgram returns the terraform binary. It is no Debian package, so that a machine may be without it;
// scripts/test-terraform says so aloud.
func terraformProgram(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("terraform")
	if err != nil {
		t.Skip("NOT RUN: terraform is not on this machine; the same scenario ran over the plugin protocol")
	}
	return program
}

// clean fails unless a plan is empty.
func clean(t *testing.T, w world, blocks ...block) {
	t.Helper()
	planned(t, w, map[string]string{}, blocks...)
}

func planned(t *testing.T, w world, want map[string]string, blocks ...block) {
	t.Helper()
	got, err := w.plan(blocks...)
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(got, want) {
		t.Fatalf("the plan is %v, want %v", got, want)
	}
}

// applied plans, applies and plans again, which has to be empty.
func applied(t *testing.T, w world, want map[string]string, blocks ...block) {
	t.Helper()
	planned(t, w, want, blocks...)
	if err := w.apply(blocks...); err != nil {
		t.Fatal(err)
	}
	clean(t, w, blocks...)
}

// refused fails unless the error holds what is said.
func refused(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", want)
	}
	if !strings.Contains(strings.Join(strings.Fields(err.Error()), " "), want) {
		t.Fatalf("the error is %v\nwant one with %q", err, want)
	}
}

// terraform is the real one.
type terraform struct {
	t       *testing.T
	program string
	dir     string
	env     []string
}

func newTerraform(t *testing.T, program, endpoint, tokenFile, caFile string) *terraform {
	w := &terraform{t: t, program: program, dir: t.TempDir()}
	rc := fmt.Sprintf("provider_installation {\n  dev_overrides {\n    \"exitgate/exitgate\" = %q\n  }\n  direct {}\n}\n", providerDir(t))
	w.write("terraform.rc", []byte(rc))
	w.env = append(os.Environ(), "TF_CLI_CONFIG_FILE="+filepath.Join(w.dir, "terraform.rc"), "CHECKPOINT_DISABLE=1", "NO_COLOR=1", "TF_IN_AUTOMATION=1",
		"EXITGATE_API="+endpoint, "EXITGATE_TOKEN_FILE="+tokenFile, "EXITGATE_API_CA="+caFile)
	return w
}

// providerDir builds the provider beside exitgate.
func providerDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(filepath.Dir(gate.Program(t)), "provider")
	c := exec.Command("go", "build", "-o", filepath.Join(dir, "terraform-provider-exitgate"), "../..")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build the provider: %v\n%s", err, out)
	}
	return dir
}

func (w *terraform) write(name string, b []byte) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), b, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// run returns what terraform printed, or an error with it when the exit code is not 0.
func (w *terraform) run(args ...string) (string, error) {
	out, code, err := w.exit(args...)
	if err == nil && code != 0 {
		err = fmt.Errorf("terraform %s: exit code %d", args[0], code)
	}
	return out, err
}

// exit is run with the exit code, which may be 2 (of -detailed-exitcode).
func (w *terraform) exit(args ...string) (out string, code int, err error) {
	c := exec.Command(w.program, args...)
	c.Dir, c.Env = w.dir, w.env
	var errs strings.Builder
	c.Stderr = &errs
	b, err := c.Output()
	if args[0] != "show" {
		w.t.Logf("$ terraform %s\n%s%s", strings.Join(args, " "), b, errs.String())
	}
	if c.ProcessState != nil && c.ProcessState.ExitCode() == 2 {
		return string(b), 2, nil
	}
	if err != nil {
		return "", 1, fmt.Errorf("terraform %s: %w\n%s", args[0], err, strings.ReplaceAll(errs.String(), "│", ""))
	}
	return string(b), 0, nil
}

// configure writes the configuration in Terraform's JSON syntax.
func (w *terraform) configure(blocks []block) {
	w.t.Helper()
	resources, before := map[string]map[string]any{}, []string{}
	for _, b := range blocks {
		kind, name, _ := strings.Cut(b.addr, ".")
		if resources[kind] == nil {
			resources[kind] = map[string]any{}
		}
		config := map[string]any{"depends_on": slices.Clone(before)}
		for key, v := range b.config {
			if s, ok := v.(string); ok {
				v = strings.ReplaceAll(strings.ReplaceAll(s, "${", "$${"), "%{", "%%{")
			}
			config[key] = v
		}
		resources[kind][name], before = config, append(before, b.addr)
	}
	config := map[string]any{"terraform": map[string]any{"required_providers": map[string]any{"exitgate": map[string]any{"source": "exitgate/exitgate"}}}}
	if len(blocks) > 0 {
		config["resource"] = resources
	}
	b, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		w.t.Fatal(err)
	}
	w.write("main.tf.json", b)
}

func (w *terraform) plan(blocks ...block) (map[string]string, error) {
	w.configure(blocks)
	_, code, err := w.exit("plan", "-input=false", "-no-color", "-detailed-exitcode", "-out=plan")
	if err != nil {
		return nil, err
	}
	out, err := w.run("show", "-json", "plan")
	if err != nil {
		return nil, err
	}
	var p struct {
		Changes []struct {
			Address string
			Change  struct{ Actions []string }
		} `json:"resource_changes"`
	}
	if err := json.Unmarshal([]byte(out), &p); err != nil {
		return nil, err
	}
	changes := map[string]string{}
	for _, c := range p.Changes {
		switch actions := c.Change.Actions; {
		case len(actions) == 2:
			changes[c.Address] = "replace"
		case actions[0] != "no-op":
			changes[c.Address] = actions[0]
		}
	}
	if (code == 0) != (len(changes) == 0) {
		return nil, fmt.Errorf("terraform plan: exit code %d for the changes %v", code, changes)
	}
	return changes, nil
}

func (w *terraform) apply(blocks ...block) error {
	w.configure(blocks)
	_, err := w.run("apply", "-input=false", "-no-color", "-auto-approve")
	return err
}

func (w *terraform) adopt(addr, id string, blocks ...block) error {
	w.configure(blocks)
	_, err := w.run("import", "-input=false", "-no-color", addr, id)
	return err
}

func (w *terraform) read(addr, attribute string) any {
	w.t.Helper()
	out, err := w.run("show", "-json")
	if err != nil {
		w.t.Fatal(err)
	}
	var s struct {
		Values struct {
			Root struct {
				Resources []struct {
					Address string
					Values  map[string]any
				}
			} `json:"root_module"`
		}
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		w.t.Fatal(err)
	}
	for _, r := range s.Values.Root.Resources {
		if r.Address == addr {
			return r.Values[attribute]
		}
	}
	w.t.Fatalf("the state has no %s", addr)
	return nil
}
