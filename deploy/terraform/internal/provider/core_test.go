package provider_test

import (
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-framework/providerserver"
	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tftypes"

	"github.com/exitgate/exitgate/deploy/terraform/internal/provider"
)

// A core does to the provider what Terraform does, over the plugin protocol in this process, and holds it to the rules
// that Terraform holds it to: a plan changes nothing that the configuration says, and an apply makes what was planned.
type core struct {
	t       *testing.T
	server  tfprotov6.ProviderServer
	schemas map[string]*tfprotov6.Schema
	state   map[string]instance
}

type instance struct {
	value   tftypes.Value
	private []byte
}

func newCore(t *testing.T, endpoint, tokenFile, caFile string) *core {
	t.Helper()
	c := &core{t: t, state: map[string]instance{}}
	if err := c.configure(map[string]any{"endpoint": endpoint, "token_file": tokenFile, "ca_file": caFile}); err != nil {
		t.Fatal(err)
	}
	return c
}

// configure starts the provider with that block.
func (c *core) configure(config map[string]any) error {
	c.server = providerserver.NewProtocol6(provider.New("test")())()
	s, err := c.server.GetProviderSchema(c.t.Context(), &tfprotov6.GetProviderSchemaRequest{})
	if err := problems(err, s.Diagnostics); err != nil {
		return err
	}
	c.schemas = s.ResourceSchemas
	value := c.value(s.Provider, config)
	v, err := c.server.ValidateProviderConfig(c.t.Context(), &tfprotov6.ValidateProviderConfigRequest{Config: c.dynamic(value)})
	if err := problems(err, v.Diagnostics); err != nil {
		return err
	}
	res, err := c.server.ConfigureProvider(c.t.Context(), &tfprotov6.ConfigureProviderRequest{TerraformVersion: "1.11.0", Config: c.dynamic(value)})
	return problems(err, res.Diagnostics)
}

// data reads a data source.
func (c *core) data(name string) map[string]tftypes.Value {
	c.t.Helper()
	s, err := c.server.GetProviderSchema(c.t.Context(), &tfprotov6.GetProviderSchemaRequest{})
	if err := problems(err, s.Diagnostics); err != nil {
		c.t.Fatal(err)
	}
	schema := s.DataSourceSchemas[name]
	res, err := c.server.ReadDataSource(c.t.Context(), &tfprotov6.ReadDataSourceRequest{TypeName: name, Config: c.dynamic(c.value(schema, nil))})
	if err := problems(err, res.Diagnostics); err != nil {
		c.t.Fatal(err)
	}
	return c.members(c.static(schema, res.State))
}

func problems(err error, diags []*tfprotov6.Diagnostic) error {
	if err != nil {
		return err
	}
	var words []string
	for _, d := range diags {
		if d.Severity == tfprotov6.DiagnosticSeverityError {
			words = append(words, d.Summary+": "+d.Detail)
		}
	}
	if words == nil {
		return nil
	}
	return fmt.Errorf("%s", strings.Join(words, "\n"))
}

// value makes an object of a schema; what is not there is null.
func (c *core) value(s *tfprotov6.Schema, config map[string]any) tftypes.Value {
	c.t.Helper()
	members := map[string]tftypes.Value{}
	for _, a := range s.Block.Attributes {
		members[a.Name] = c.convert(a.Type, config[a.Name])
	}
	for name := range config {
		if _, ok := members[name]; !ok {
			c.t.Fatalf("there is no attribute %s", name)
		}
	}
	return tftypes.NewValue(s.ValueType(), members)
}

func (c *core) convert(of tftypes.Type, v any) tftypes.Value {
	c.t.Helper()
	switch v := v.(type) {
	case []string:
		list := []tftypes.Value{}
		for _, e := range v {
			list = append(list, tftypes.NewValue(tftypes.String, e))
		}
		return tftypes.NewValue(of, list)
	case []int:
		list := []tftypes.Value{}
		for _, e := range v {
			list = append(list, tftypes.NewValue(tftypes.Number, e))
		}
		return tftypes.NewValue(of, list)
	case map[string]string:
		m := map[string]tftypes.Value{}
		for key, e := range v {
			m[key] = tftypes.NewValue(tftypes.String, e)
		}
		return tftypes.NewValue(of, m)
	}
	return tftypes.NewValue(of, v)
}

func (c *core) dynamic(v tftypes.Value) *tfprotov6.DynamicValue {
	c.t.Helper()
	d, err := tfprotov6.NewDynamicValue(v.Type(), v)
	if err != nil {
		c.t.Fatal(err)
	}
	return &d
}

func (c *core) static(s *tfprotov6.Schema, d *tfprotov6.DynamicValue) tftypes.Value {
	c.t.Helper()
	v, err := d.Unmarshal(s.ValueType())
	if err != nil {
		c.t.Fatal(err)
	}
	return v
}

func (c *core) members(v tftypes.Value) map[string]tftypes.Value {
	c.t.Helper()
	m := map[string]tftypes.Value{}
	if v.IsNull() {
		return m
	}
	if err := v.As(&m); err != nil {
		c.t.Fatal(err)
	}
	return m
}

func kindOf(addr string) string {
	kind, _, _ := strings.Cut(addr, ".")
	return kind
}

// refresh reads a resource that is in the state.
func (c *core) refresh(addr string) error {
	old, ok := c.state[addr]
	if !ok {
		return nil
	}
	s := c.schemas[kindOf(addr)]
	res, err := c.server.ReadResource(c.t.Context(), &tfprotov6.ReadResourceRequest{TypeName: kindOf(addr), CurrentState: c.dynamic(old.value), Private: old.private})
	if err := problems(err, res.Diagnostics); err != nil {
		return err
	}
	now := instance{c.static(s, res.NewState), res.Private}
	if c.state[addr] = now; now.value.IsNull() {
		delete(c.state, addr)
	}
	return nil
}

// A change is what was planned for one resource.
type change struct {
	action          string
	config, planned tftypes.Value
	private         []byte
}

// planOne plans one resource that is up to date, and checks the plan as Terraform does.
func (c *core) planOne(b block) (ch change, err error) {
	kind := kindOf(b.addr)
	s := c.schemas[kind]
	config := c.value(s, b.config)
	v, err := c.server.ValidateResourceConfig(c.t.Context(), &tfprotov6.ValidateResourceConfigRequest{TypeName: kind, Config: c.dynamic(config)})
	if err := problems(err, v.Diagnostics); err != nil {
		return ch, err
	}
	old, known := c.state[b.addr]
	if !known {
		old.value = tftypes.NewValue(s.ValueType(), nil)
	}
	plan := func(prior instance) (*tfprotov6.PlanResourceChangeResponse, error) {
		res, err := c.server.PlanResourceChange(c.t.Context(), &tfprotov6.PlanResourceChangeRequest{
			TypeName: kind, PriorState: c.dynamic(prior.value), Config: c.dynamic(config), PriorPrivate: prior.private,
			ProposedNewState: c.dynamic(c.proposed(s, prior.value, config)),
		})
		return res, problems(err, res.Diagnostics)
	}
	res, err := plan(old)
	if err != nil {
		return ch, err
	}
	ch = change{config: config, planned: c.static(s, res.PlannedState), private: res.PlannedPrivate}
	switch {
	case !known:
		ch.action = "create"
	case ch.planned.Equal(old.value):
	case len(res.RequiresReplace) > 0:
		ch.action, old = "replace", instance{value: tftypes.NewValue(s.ValueType(), nil)}
		if res, err = plan(old); err != nil {
			return ch, err
		}
		ch.planned, ch.private = c.static(s, res.PlannedState), res.PlannedPrivate
	default:
		ch.action = "update"
	}
	return ch, c.valid(s, b.addr, old.value, config, ch.planned)
}

// proposed is what Terraform proposes: what the configuration says, and where it says nothing and the provider may, what
// there was.
func (c *core) proposed(s *tfprotov6.Schema, prior, config tftypes.Value) tftypes.Value {
	was, is, out := c.members(prior), c.members(config), map[string]tftypes.Value{}
	for _, a := range s.Block.Attributes {
		switch old, ok := was[a.Name]; {
		case is[a.Name].IsNull() && a.Computed && ok:
			out[a.Name] = old
		default:
			out[a.Name] = is[a.Name]
		}
	}
	return tftypes.NewValue(s.ValueType(), out)
}

func (c *core) valid(s *tfprotov6.Schema, addr string, prior, config, planned tftypes.Value) error {
	was, is, will := c.members(prior), c.members(config), c.members(planned)
	for _, a := range s.Block.Attributes {
		old, ok := was[a.Name]
		switch v := will[a.Name]; {
		case v.Equal(is[a.Name]), ok && !old.IsNull() && v.Equal(old), is[a.Name].IsNull() && a.Computed:
		default:
			return fmt.Errorf("%s: the plan has %s for %s where the configuration has %s", addr, v, a.Name, is[a.Name])
		}
	}
	return nil
}

func (c *core) applyOne(b block, ch change) error {
	old, known := c.state[b.addr]
	kind := kindOf(b.addr)
	s := c.schemas[kind]
	if ch.action == "replace" {
		if err := c.destroy(b.addr); err != nil {
			return err
		}
		known = false
	}
	if !known {
		old.value = tftypes.NewValue(s.ValueType(), nil)
	}
	res, err := c.server.ApplyResourceChange(c.t.Context(), &tfprotov6.ApplyResourceChangeRequest{
		TypeName: kind, PriorState: c.dynamic(old.value), PlannedState: c.dynamic(ch.planned), Config: c.dynamic(ch.config), PlannedPrivate: ch.private,
	})
	if err := problems(err, res.Diagnostics); err != nil {
		return err
	}
	now := instance{c.static(s, res.NewState), res.Private}
	c.state[b.addr] = now
	is := c.members(now.value)
	for name, v := range c.members(ch.planned) {
		if !is[name].IsFullyKnown() || v.IsFullyKnown() && !v.Equal(is[name]) {
			return fmt.Errorf("%s: provider produced inconsistent result: %s is %s, and %s was planned", b.addr, name, is[name], v)
		}
	}
	return nil
}

func (c *core) destroy(addr string) error {
	old, kind := c.state[addr], kindOf(addr)
	null := tftypes.NewValue(c.schemas[kind].ValueType(), nil)
	res, err := c.server.ApplyResourceChange(c.t.Context(), &tfprotov6.ApplyResourceChangeRequest{
		TypeName: kind, PriorState: c.dynamic(old.value), PlannedState: c.dynamic(null), Config: c.dynamic(null), PlannedPrivate: old.private,
	})
	if err := problems(err, res.Diagnostics); err != nil {
		return err
	}
	delete(c.state, addr)
	return nil
}

// gone returns what is in the state and not in the configuration, in the order in which it is removed.
func (c *core) gone(blocks []block) []string {
	var out []string
	for addr := range c.state {
		if !slices.ContainsFunc(blocks, func(b block) bool { return b.addr == addr }) {
			out = append(out, addr)
		}
	}
	slices.SortFunc(out, func(a, b string) int { return order(a) - order(b) })
	return out
}

// order is the reverse of how resources depend on one another.
func order(addr string) int {
	return slices.Index([]string{"exitgate_exemption", "exitgate_grant", "exitgate_host_token", "exitgate_host", "exitgate_class"}, kindOf(addr))
}

func (c *core) plan(blocks ...block) (map[string]string, error) {
	out := map[string]string{}
	for _, b := range blocks {
		if err := c.refresh(b.addr); err != nil {
			return nil, err
		}
		ch, err := c.planOne(b)
		if err != nil {
			return nil, err
		}
		if ch.action != "" {
			out[b.addr] = ch.action
		}
	}
	for _, addr := range c.gone(blocks) {
		if err := c.refresh(addr); err != nil {
			return nil, err
		}
		if _, ok := c.state[addr]; ok {
			out[addr] = "delete"
		}
	}
	return out, nil
}

func (c *core) apply(blocks ...block) error {
	for _, addr := range c.gone(blocks) {
		if err := c.destroy(addr); err != nil {
			return err
		}
	}
	for _, b := range blocks {
		if err := c.refresh(b.addr); err != nil {
			return err
		}
		ch, err := c.planOne(b)
		if err == nil && ch.action != "" {
			err = c.applyOne(b, ch)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *core) adopt(addr, id string, _ ...block) error {
	kind := kindOf(addr)
	res, err := c.server.ImportResourceState(c.t.Context(), &tfprotov6.ImportResourceStateRequest{TypeName: kind, ID: id})
	if err := problems(err, res.Diagnostics); err != nil {
		return err
	}
	r := res.ImportedResources[0]
	c.state[addr] = instance{c.static(c.schemas[kind], r.State), r.Private}
	if err := c.refresh(addr); err != nil {
		return err
	}
	if _, ok := c.state[addr]; !ok {
		return fmt.Errorf("Cannot import non-existent remote object") //nolint:staticcheck // Terraform's own words
	}
	return nil
}

func (c *core) read(addr, attribute string) any {
	c.t.Helper()
	v, ok := c.members(c.state[addr].value)[attribute]
	if !ok {
		c.t.Fatalf("the state has no %s of %s", attribute, addr)
	}
	return c.plain(v)
}

// plain returns a value as JSON has it.
func (c *core) plain(v tftypes.Value) any {
	c.t.Helper()
	switch of := v.Type(); {
	case v.IsNull():
		return nil
	case of.Is(tftypes.String):
		var s string
		c.must(v.As(&s))
		return s
	case of.Is(tftypes.Bool):
		var b bool
		c.must(v.As(&b))
		return b
	case of.Is(tftypes.Number):
		n := new(big.Float)
		c.must(v.As(&n))
		f, _ := n.Float64()
		return f
	case of.Is(tftypes.Map{}):
		out := map[string]any{}
		for key, e := range c.members(v) {
			out[key] = c.plain(e)
		}
		return out
	}
	var list []tftypes.Value
	c.must(v.As(&list))
	out := []any{}
	for _, e := range list {
		out = append(out, c.plain(e))
	}
	return out
}

func (c *core) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
