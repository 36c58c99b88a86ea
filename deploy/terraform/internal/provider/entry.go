package provider

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"

	"github.com/exitgate/exitgate/deploy/terraform/internal/api"
)

// An entry is a resource: one kind of entry of the gateway, with a model M of its attributes and a noun W of the API.
type entry[M, W any] struct {
	noun       string // what people call one: "host token"
	collection string // its path: "host-tokens"
	key        string // the attribute by which it is imported: "id"

	schema schema.Schema
	// checks say what is wrong with a configuration that validators of single attributes do not see; nil: nothing.
	checks func(*M, *diag.Diagnostics)
	// id is where a model has its id; "" before it is made means that the gateway would choose one.
	id     func(*M) string
	reason func(*M) string
	// origin returns what the gateway says of an entry.
	origin func(*W) api.Origin
	// send makes of a model what the gateway is told.
	send func(ctx context.Context, m *M, diags *diag.Diagnostics) W
	// settle completes what is sent for a new entry, where the provider chooses what the configuration leaves out; nil:
	// nothing.
	settle func(*W)
	// merge completes what is sent for an update from what is there now, where the configuration leaves it out; nil: nothing.
	merge func(config *M, w *W, now W)
	// fill brings a model up to date with what the gateway says. Was is what it said when the model was last brought up to
	// date, nil at an import: an attribute keeps its words unless was and now differ in it.
	fill func(ctx context.Context, m *M, was *W, now W) diag.Diagnostics

	client *api.Client
}

func (e *entry[M, W]) path(m *M) string { return e.collection + "/" + url.PathEscape(e.id(m)) }

// Metadata implements [resource.Resource].
func (e *entry[M, W]) Metadata(_ context.Context, req resource.MetadataRequest, res *resource.MetadataResponse) {
	res.TypeName = req.ProviderTypeName + "_" + strings.ReplaceAll(e.noun, " ", "_")
}

// Schema implements [resource.Resource].
func (e *entry[M, W]) Schema(_ context.Context, _ resource.SchemaRequest, res *resource.SchemaResponse) {
	res.Schema = e.schema
}

// Configure implements [resource.ResourceWithConfigure].
func (e *entry[M, W]) Configure(_ context.Context, req resource.ConfigureRequest, _ *resource.ConfigureResponse) {
	e.client, _ = req.ProviderData.(*api.Client) // nil while the configuration is only validated
}

// ValidateConfig implements [resource.ResourceWithValidateConfig].
func (e *entry[M, W]) ValidateConfig(ctx context.Context, req resource.ValidateConfigRequest, res *resource.ValidateConfigResponse) {
	var m M
	res.Diagnostics.Append(req.Config.Get(ctx, &m)...)
	if e.checks != nil && !res.Diagnostics.HasError() {
		e.checks(&m, &res.Diagnostics)
	}
}

// Create implements [resource.Resource].
func (e *entry[M, W]) Create(ctx context.Context, req resource.CreateRequest, res *resource.CreateResponse) {
	var m M
	res.Diagnostics.Append(req.Plan.Get(ctx, &m)...)
	w := e.send(ctx, &m, &res.Diagnostics)
	if res.Diagnostics.HasError() {
		return
	}
	if e.settle != nil {
		e.settle(&w)
	}
	var made W
	if err := e.client.Add(ctx, e.collection, w, &made); err != nil {
		e.failed(&res.Diagnostics, "made", err)
		return
	}
	res.Diagnostics.Append(e.fill(ctx, &m, &made, made)...)
	res.Diagnostics.Append(res.State.Set(ctx, &m)...)
	res.Diagnostics.Append(remember(ctx, res.Private, made)...)
}

// Read implements [resource.Resource].
func (e *entry[M, W]) Read(ctx context.Context, req resource.ReadRequest, res *resource.ReadResponse) {
	var m M
	res.Diagnostics.Append(req.State.Get(ctx, &m)...)
	if res.Diagnostics.HasError() {
		return
	}
	var now W
	err := e.client.Get(ctx, e.path(&m), &now)
	if api.Is(err, http.StatusNotFound) {
		res.State.RemoveResource(ctx)
		return
	}
	if err != nil {
		e.failed(&res.Diagnostics, "read", err)
		return
	}
	if from := e.origin(&now).Source; from != "" && from != "store" {
		res.Diagnostics.AddWarning("The "+e.noun+" stands in a file",
			fmt.Sprintf("%s %s stands in %s on the gateway. It is changed there; Terraform cannot.", e.noun, e.id(&m), from))
	}
	was, diags := recall[W](ctx, req.Private)
	res.Diagnostics.Append(diags...)
	res.Diagnostics.Append(e.fill(ctx, &m, was, now)...)
	res.Diagnostics.Append(res.State.Set(ctx, &m)...)
	res.Diagnostics.Append(remember(ctx, res.Private, now)...)
}

// Update implements [resource.Resource].
func (e *entry[M, W]) Update(ctx context.Context, req resource.UpdateRequest, res *resource.UpdateResponse) {
	var m, config M
	res.Diagnostics.Append(req.Plan.Get(ctx, &m)...)
	res.Diagnostics.Append(req.Config.Get(ctx, &config)...)
	w := e.send(ctx, &m, &res.Diagnostics)
	if res.Diagnostics.HasError() {
		return
	}
	if e.merge != nil {
		var now W
		if err := e.client.Get(ctx, e.path(&m), &now); err != nil {
			e.failed(&res.Diagnostics, "changed", err)
			return
		}
		e.merge(&config, &w, now)
	}
	var made W
	if err := e.client.Put(ctx, e.path(&m), w, &made); err != nil {
		e.failed(&res.Diagnostics, "changed", err)
		return
	}
	res.Diagnostics.Append(e.fill(ctx, &m, &made, made)...)
	res.Diagnostics.Append(res.State.Set(ctx, &m)...)
	res.Diagnostics.Append(remember(ctx, res.Private, made)...)
}

// Delete implements [resource.Resource]. What somebody else removed already is removed.
func (e *entry[M, W]) Delete(ctx context.Context, req resource.DeleteRequest, res *resource.DeleteResponse) {
	var m M
	res.Diagnostics.Append(req.State.Get(ctx, &m)...)
	if res.Diagnostics.HasError() {
		return
	}
	err := e.client.Delete(ctx, e.path(&m), removal(e.reason(&m)))
	if err != nil && !api.Is(err, http.StatusNotFound) {
		e.failed(&res.Diagnostics, "removed", err)
	}
}

// ImportState implements [resource.ResourceWithImportState].
func (e *entry[M, W]) ImportState(ctx context.Context, req resource.ImportStateRequest, res *resource.ImportStateResponse) {
	resource.ImportStatePassthroughID(ctx, path.Root(e.key), req, res)
}

// failed says what went wrong, in the gateway's words where it answered.
func (e *entry[M, W]) failed(diags *diag.Diagnostics, done string, err error) {
	detail := err.Error()
	if done == "made" && api.Is(err, http.StatusConflict) {
		detail += fmt.Sprintf("\n\nIf it is this one, take it over: terraform import exitgate_%s.NAME ID.", strings.ReplaceAll(e.noun, " ", "_"))
	}
	diags.AddError(fmt.Sprintf("The %s could not be %s", e.noun, done), detail)
}

// maxReason bounds a reason, in bytes.
const maxReason = 1000

// removal makes the reason of a removal of the reason for which an entry was made.
func removal(reason string) string {
	s := "removed by Terraform; it was made for: " + reason
	return strings.ToValidUTF8(s[:min(len(s), maxReason)], "")
}

// formKey is where the private state has the form that the gateway gave back.
const formKey = "form"

// A keeper is the private state of one resource.
type keeper interface {
	SetKey(ctx context.Context, key string, value []byte) diag.Diagnostics
}

// remember keeps the gateway's form of an entry, without its secret.
func remember(ctx context.Context, private keeper, w any) (diags diag.Diagnostics) {
	if t, ok := w.(api.HostToken); ok {
		t.Secret = ""
		w = t
	}
	b, err := json.Marshal(w)
	if err != nil {
		diags.AddError("The gateway's answer cannot be kept", err.Error())
		return diags
	}
	return private.SetKey(ctx, formKey, b)
}

type reader interface {
	GetKey(ctx context.Context, key string) ([]byte, diag.Diagnostics)
}

// recall returns the form that was kept; nil where there is none.
func recall[W any](ctx context.Context, private reader) (*W, diag.Diagnostics) {
	b, diags := private.GetKey(ctx, formKey)
	if b == nil || diags.HasError() {
		return nil, diags
	}
	w := new(W)
	if err := json.Unmarshal(b, w); err != nil {
		return nil, diags // of another version of the provider: the state takes the gateway's words
	}
	return w, diags
}
