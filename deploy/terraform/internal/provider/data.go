package provider

import (
	"context"

	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/exitgate/exitgate/deploy/terraform/internal/api"
)

// A source is a data source: what the gateway says at one path, a noun W of the API, as a model M.
type source[M, W any] struct {
	name, path string
	schema     schema.Schema
	model      func(context.Context, W) (M, diag.Diagnostics)

	client *api.Client
}

// Metadata implements [datasource.DataSource].
func (s *source[M, W]) Metadata(_ context.Context, req datasource.MetadataRequest, res *datasource.MetadataResponse) {
	res.TypeName = req.ProviderTypeName + "_" + s.name
}

// Schema implements [datasource.DataSource].
func (s *source[M, W]) Schema(_ context.Context, _ datasource.SchemaRequest, res *datasource.SchemaResponse) {
	res.Schema = s.schema
}

// Configure implements [datasource.DataSourceWithConfigure].
func (s *source[M, W]) Configure(_ context.Context, req datasource.ConfigureRequest, _ *datasource.ConfigureResponse) {
	s.client, _ = req.ProviderData.(*api.Client)
}

// Read implements [datasource.DataSource].
func (s *source[M, W]) Read(ctx context.Context, _ datasource.ReadRequest, res *datasource.ReadResponse) {
	var w W
	if err := s.client.Get(ctx, s.path, &w); err != nil {
		res.Diagnostics.AddError("The gateway cannot be asked for its "+s.name, err.Error())
		return
	}
	m, diags := s.model(ctx, w)
	res.Diagnostics.Append(diags...)
	res.Diagnostics.Append(res.State.Set(ctx, &m)...)
}

type trust struct {
	Roots        types.String `tfsdk:"roots"`
	Fingerprints types.List   `tfsdk:"fingerprints"`
	Identity     types.String `tfsdk:"identity"`
	Enroll       types.String `tfsdk:"enroll"`
}

func newTrust() datasource.DataSource {
	return &source[trust, api.Trust]{
		name: "trust", path: "trust",
		schema: schema.Schema{
			Description: "What hosts have to trust.",
			Attributes: map[string]schema.Attribute{
				"roots":        schema.StringAttribute{Computed: true, Description: "The interception roots in force (PEM); during a rotation both."},
				"fingerprints": schema.ListAttribute{Computed: true, ElementType: types.StringType, Description: "SHA-256 of each of them, in hex."},
				"identity": schema.StringAttribute{Computed: true,
					Description: "SHA-256 of the identity root, by which a host knows the gateway when it enrols (exitgate enroll --fingerprint); empty where there is none."},
				"enroll": schema.StringAttribute{Computed: true, Description: "URL that hosts enrol at (exitgate enroll --gateway); empty where there is none."},
			},
		},
		model: func(ctx context.Context, w api.Trust) (m trust, diags diag.Diagnostics) {
			m.Roots, m.Identity, m.Enroll = types.StringValue(w.Roots), types.StringValue(w.Identity), types.StringValue(w.Enroll)
			m.Fingerprints, diags = types.ListValueFrom(ctx, types.StringType, append([]string{}, w.Fingerprints...))
			return m, diags
		},
	}
}

type proxy struct {
	HTTP    types.String `tfsdk:"http"`
	HTTPS   types.String `tfsdk:"https"`
	NoProxy types.List   `tfsdk:"no_proxy"`
	PACURL  types.String `tfsdk:"pac_url"`
}

func newProxy() datasource.DataSource {
	return &source[proxy, api.Proxy]{
		name: "proxy", path: "proxy",
		schema: schema.Schema{
			Description: "What hosts set to use the gateway.",
			Attributes: map[string]schema.Attribute{
				"http":     schema.StringAttribute{Computed: true, Description: "URL of the proxy for http destinations (http_proxy)."},
				"https":    schema.StringAttribute{Computed: true, Description: "URL of the proxy for https destinations (https_proxy)."},
				"no_proxy": schema.ListAttribute{Computed: true, ElementType: types.StringType, Description: "What is reached without it (no_proxy)."},
				"pac_url":  schema.StringAttribute{Computed: true, Description: "URL of the PAC file; empty where there is none."},
			},
		},
		model: func(ctx context.Context, w api.Proxy) (m proxy, diags diag.Diagnostics) {
			m.HTTP, m.HTTPS, m.PACURL = types.StringValue(w.HTTP), types.StringValue(w.HTTPS), types.StringValue(w.PACURL)
			m.NoProxy, diags = types.ListValueFrom(ctx, types.StringType, append([]string{}, w.NoProxy...))
			return m, diags
		},
	}
}
