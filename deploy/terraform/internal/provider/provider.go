package provider

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/provider/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/exitgate/exitgate/deploy/terraform/internal/api"
)

// Address is what configurations call this provider.
const Address = "registry.terraform.io/exitgate/exitgate"

// New returns what makes the provider of that version.
func New(version string) func() provider.Provider {
	return func() provider.Provider { return &exitgate{version: version} }
}

type exitgate struct{ version string }

// settings is the provider's block.
type settings struct {
	Endpoint      types.String `tfsdk:"endpoint"`
	Token         types.String `tfsdk:"token"`
	TokenFile     types.String `tfsdk:"token_file"`
	CACertificate types.String `tfsdk:"ca_certificate"`
	CAFile        types.String `tfsdk:"ca_file"`
}

// Metadata implements [provider.Provider].
func (p *exitgate) Metadata(_ context.Context, _ provider.MetadataRequest, res *provider.MetadataResponse) {
	res.TypeName, res.Version = "exitgate", p.version
}

// Schema implements [provider.Provider].
func (p *exitgate) Schema(_ context.Context, _ provider.SchemaRequest, res *provider.SchemaResponse) {
	res.Schema = schema.Schema{
		Description: "Classes, hosts, grants and exemptions of an exitgate gateway.",
		Attributes: map[string]schema.Attribute{
			"endpoint": schema.StringAttribute{Optional: true,
				Description: "URL of the gateway's API (listen.api), such as https://gate.example.com:3131. Default: the variable EXITGATE_API."},
			"token": schema.StringAttribute{Optional: true, Sensitive: true,
				Description: "An API token with the role editor (or provisioner, for hosts and host tokens alone). Better is token_file."},
			"token_file": schema.StringAttribute{Optional: true,
				Description: "File that holds the API token. Default: the variable EXITGATE_TOKEN_FILE."},
			"ca_certificate": schema.StringAttribute{Optional: true,
				Description: "CA certificate (PEM) that the endpoint's certificate chains to. Default: the system's."},
			"ca_file": schema.StringAttribute{Optional: true,
				Description: "File with that CA certificate. Default: the variable EXITGATE_API_CA."},
		},
	}
}

// Configure implements [provider.Provider].
func (p *exitgate) Configure(ctx context.Context, req provider.ConfigureRequest, res *provider.ConfigureResponse) {
	var s settings
	res.Diagnostics.Append(req.Config.Get(ctx, &s)...)
	s.known(&res.Diagnostics)
	if res.Diagnostics.HasError() {
		return
	}
	c := api.Config{
		Endpoint:  cmp.Or(s.Endpoint.ValueString(), os.Getenv("EXITGATE_API")),
		Token:     s.token(&res.Diagnostics),
		CA:        s.ca(&res.Diagnostics),
		UserAgent: "terraform-provider-exitgate/" + p.version,
	}
	if res.Diagnostics.HasError() {
		return
	}
	if err := api.CheckEndpoint(c.Endpoint); err != nil {
		res.Diagnostics.AddAttributeError(path.Root("endpoint"), "The endpoint cannot be used", fmt.Sprintf("%.200q: %v", c.Endpoint, err))
		return
	}
	client, err := api.New(c)
	if err != nil {
		res.Diagnostics.AddAttributeError(path.Root("ca_certificate"), "The CA certificate cannot be used", err.Error())
		return
	}
	res.ResourceData, res.DataSourceData = client, client
}

// known refuses settings that only an apply would tell: with them nothing could be read for the plan.
func (s settings) known(diags *diag.Diagnostics) {
	for name, v := range map[string]types.String{
		"endpoint": s.Endpoint, "token": s.Token, "token_file": s.TokenFile, "ca_certificate": s.CACertificate, "ca_file": s.CAFile,
	} {
		if v.IsUnknown() {
			diags.AddAttributeError(path.Root(name), "A setting of the provider is not known yet",
				name+" comes from something that this plan has yet to make. Make that first (terraform apply -target), or give the value itself.")
		}
	}
}

func (s settings) token(diags *diag.Diagnostics) string {
	token, at := s.Token.ValueString(), "token"
	if s.Token.IsNull() {
		at = "token_file"
		name := cmp.Or(s.TokenFile.ValueString(), os.Getenv("EXITGATE_TOKEN_FILE"))
		if name == "" {
			diags.AddAttributeError(path.Root(at), "The API needs a token",
				"Name the file that holds it in token_file or EXITGATE_TOKEN_FILE; on the gateway, exitgate token add --role editor --secret-file FILE makes one.")
			return ""
		}
		b, err := os.ReadFile(name)
		if err != nil {
			diags.AddAttributeError(path.Root(at), "The API token cannot be read", err.Error())
			return ""
		}
		token = strings.TrimSpace(string(b))
	}
	if err := api.CheckToken(token); err != nil {
		diags.AddAttributeError(path.Root(at), "The API token cannot be used", err.Error())
	}
	return token
}

func (s settings) ca(diags *diag.Diagnostics) []byte {
	if !s.CACertificate.IsNull() {
		return []byte(s.CACertificate.ValueString())
	}
	name := cmp.Or(s.CAFile.ValueString(), os.Getenv("EXITGATE_API_CA"))
	if name == "" {
		return nil
	}
	b, err := os.ReadFile(name)
	if err != nil {
		diags.AddAttributeError(path.Root("ca_file"), "The CA certificate cannot be read", err.Error())
	}
	return b
}

// Resources implements [provider.Provider].
func (p *exitgate) Resources(context.Context) []func() resource.Resource {
	return []func() resource.Resource{newClass, newHost, newHostToken, newGrant, newExemption}
}

// DataSources implements [provider.Provider].
func (p *exitgate) DataSources(context.Context) []func() datasource.DataSource {
	return []func() datasource.DataSource{newTrust, newProxy}
}
