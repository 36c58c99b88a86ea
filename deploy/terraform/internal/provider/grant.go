package provider

import (
	"context"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringdefault"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/exitgate/exitgate/deploy/terraform/internal/api"
)

type grant struct {
	ID           types.String `tfsdk:"id"`
	Class        types.String `tfsdk:"class"`
	Host         types.String `tfsdk:"host"`
	To           types.String `tfsdk:"to"`
	Scheme       types.String `tfsdk:"scheme"`
	Ports        types.Set    `tfsdk:"ports"`
	Methods      types.Set    `tfsdk:"methods"`
	Paths        types.Set    `tfsdk:"paths"`
	Headers      types.Map    `tfsdk:"headers"`
	MaxRequest   types.Int64  `tfsdk:"max_request"`
	MaxResponse  types.Int64  `tfsdk:"max_response"`
	EncodedSlash types.Bool   `tfsdk:"encoded_slash"`
	Audit        types.Bool   `tfsdk:"audit"`
	Until        types.String `tfsdk:"until"`
	Lease        types.String `tfsdk:"lease"`
	Reason       types.String `tfsdk:"reason"`
	By           types.String `tfsdk:"by"`
	At           types.String `tfsdk:"at"`
}

func newGrant() resource.Resource {
	return &entry[grant, api.Grant]{
		noun: "grant", collection: "grants", key: "id",
		schema: schema.Schema{
			Description: "What lets a class of hosts, or one host, reach a resource.",
			Attributes:  grantAttributes(),
		},
		checks: func(m *grant, diags *diag.Diagnostics) { checkSubject(m.Class, m.Host, diags) },
		id:     func(m *grant) string { return m.ID.ValueString() },
		reason: func(m *grant) string { return m.Reason.ValueString() },
		origin: func(w *api.Grant) api.Origin { return w.Origin },
		send:   sendGrant,
		settle: func(w *api.Grant) {
			if w.ID == "" {
				w.ID = api.NewID("g")
			}
		},
		fill: fillGrant,
	}
}

func grantAttributes() map[string]schema.Attribute {
	class, host := subjectAttributes()
	return map[string]schema.Attribute{
		"id": idAttribute("grant"), "class": class, "host": host,
		"to": schema.StringAttribute{Required: true, Validators: []validator.String{text{notEmpty}},
			Description: `A name, every name below one ("*.example.com"), an address, or a range of addresses.`},
		"scheme": schema.StringAttribute{Optional: true, Computed: true, Default: stringdefault.StaticString("https"),
			Description: "https (the default), http, or any."},
		"ports":   setAttribute(types.Int64Type, "Left out: 443 for https, 80 for http, both for any.", ports{}),
		"methods": setAttribute(types.StringType, `HTTP methods; left out: GET and HEAD; ["*"]: any.`, each{text{notEmpty}}),
		"paths": setAttribute(types.StringType, `Paths, in whole segments: "/a" is /a and all below it, "/a/" only what is below it, "/a$" only /a itself, `+
			`and a segment "*" any one segment. Left out: every path.`, each{text{notEmpty}}),
		"headers": schema.MapAttribute{Optional: true, ElementType: types.StringType,
			Description: "Names of request headers, and the glob that a value of each must match."},
		"max_request":   bytesAttribute("Largest request body, in bytes; 0: the gateway's default."),
		"max_response":  bytesAttribute("Largest response body, in bytes; 0: the gateway's default."),
		"encoded_slash": flagAttribute("This server takes %2F inside a path segment."),
		"audit":         flagAttribute("Carry, and record that it would be refused."),
		"until":         optionalAttribute("When it ends (RFC 3339); left out: it does not.", text{moment}),
		"lease":         optionalAttribute("It ends when it was neither used nor renewed for so long, such as 30d.", text{span}),
		"reason":        reasonAttribute(), "by": byAttribute(), "at": atAttribute(),
	}
}

func sendGrant(ctx context.Context, m *grant, diags *diag.Diagnostics) api.Grant {
	w := api.Grant{
		ID: m.ID.ValueString(), Class: m.Class.ValueString(), Host: m.Host.ValueString(), To: m.To.ValueString(), Scheme: m.Scheme.ValueString(),
		Ports: listOf[int64](ctx, m.Ports, diags), Methods: listOf[string](ctx, m.Methods, diags), Paths: listOf[string](ctx, m.Paths, diags),
		MaxRequest: m.MaxRequest.ValueInt64(), MaxResponse: m.MaxResponse.ValueInt64(), EncodedSlash: m.EncodedSlash.ValueBool(),
		Audit: m.Audit.ValueBool(), Reason: m.Reason.ValueString(), Until: timeOf(m.Until), Lease: m.Lease.ValueString(),
	}
	if !m.Headers.IsNull() {
		diags.Append(m.Headers.ElementsAs(ctx, &w.Headers, false)...)
	}
	return w
}

func fillGrant(ctx context.Context, m *grant, was *api.Grant, now api.Grant) (diags diag.Diagnostics) {
	if now.Scheme == "" {
		now.Scheme = "https" // what it means
	}
	keepString(&m.ID, field(was, func(w *api.Grant) *string { return &w.ID }), now.ID)
	keepOptional(&m.Class, field(was, func(w *api.Grant) *string { return &w.Class }), now.Class)
	keepOptional(&m.Host, field(was, func(w *api.Grant) *string { return &w.Host }), now.Host)
	keepString(&m.To, field(was, func(w *api.Grant) *string { return &w.To }), now.To)
	keepString(&m.Scheme, field(was, func(w *api.Grant) *string { return &w.Scheme }), now.Scheme)
	keepSet(ctx, &m.Ports, types.Int64Type, field(was, func(w *api.Grant) *[]int64 { return &w.Ports }), now.Ports, &diags)
	keepSet(ctx, &m.Methods, types.StringType, field(was, func(w *api.Grant) *[]string { return &w.Methods }), now.Methods, &diags)
	keepSet(ctx, &m.Paths, types.StringType, field(was, func(w *api.Grant) *[]string { return &w.Paths }), now.Paths, &diags)
	keepMap(ctx, &m.Headers, field(was, func(w *api.Grant) *map[string]string { return &w.Headers }), now.Headers, &diags)
	keepInt(&m.MaxRequest, field(was, func(w *api.Grant) *int64 { return &w.MaxRequest }), now.MaxRequest)
	keepInt(&m.MaxResponse, field(was, func(w *api.Grant) *int64 { return &w.MaxResponse }), now.MaxResponse)
	keepBool(&m.EncodedSlash, field(was, func(w *api.Grant) *bool { return &w.EncodedSlash }), now.EncodedSlash)
	keepBool(&m.Audit, field(was, func(w *api.Grant) *bool { return &w.Audit }), now.Audit)
	keepTime(&m.Until, field(was, func(w *api.Grant) *time.Time { return &w.Until }), now.Until)
	keepOptional(&m.Lease, field(was, func(w *api.Grant) *string { return &w.Lease }), now.Lease)
	keepString(&m.Reason, field(was, func(w *api.Grant) *string { return &w.Reason }), now.Reason)
	fillOrigin(&m.By, &m.At, now.Origin)
	return diags
}
