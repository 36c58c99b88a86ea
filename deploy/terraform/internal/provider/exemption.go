package provider

import (
	"context"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/exitgate/exitgate/deploy/terraform/internal/api"
)

type exemption struct {
	ID       types.String `tfsdk:"id"`
	Class    types.String `tfsdk:"class"`
	Host     types.String `tfsdk:"host"`
	To       types.String `tfsdk:"to"`
	Ports    types.Set    `tfsdk:"ports"`
	Raw      types.Bool   `tfsdk:"raw"`
	MaxBytes types.Int64  `tfsdk:"max_bytes"`
	Until    types.String `tfsdk:"until"`
	Reason   types.String `tfsdk:"reason"`
	By       types.String `tfsdk:"by"`
	At       types.String `tfsdk:"at"`
}

func newExemption() resource.Resource {
	class, host := subjectAttributes()
	return &entry[exemption, api.Exemption]{
		noun: "exemption", collection: "exemptions", key: "id",
		schema: schema.Schema{
			Description: "What lets a class of hosts, or one host, reach a destination unread. It always ends.",
			Attributes: map[string]schema.Attribute{
				"id": idAttribute("exemption"), "class": class, "host": host,
				"to": schema.StringAttribute{Required: true, Validators: []validator.String{text{notEmpty}},
					Description: `A name, every name below one ("*.example.com"), an address, or a range of addresses.`},
				"ports":     setAttribute(types.Int64Type, "Left out: 443.", ports{}),
				"raw":       flagAttribute("The protocol is not TLS, so that there is no name to compare (ssh, a database)."),
				"max_bytes": bytesAttribute("Most bytes of one flow, both directions together; 0: the gateway's default."),
				"until": schema.StringAttribute{Required: true, Description: "When it ends (RFC 3339), at most two years ahead.",
					Validators: []validator.String{text{moment}}},
				"reason": reasonAttribute(), "by": byAttribute(), "at": atAttribute(),
			},
		},
		checks: func(m *exemption, diags *diag.Diagnostics) { checkSubject(m.Class, m.Host, diags) },
		id:     func(m *exemption) string { return m.ID.ValueString() },
		reason: func(m *exemption) string { return m.Reason.ValueString() },
		origin: func(w *api.Exemption) api.Origin { return w.Origin },
		send: func(ctx context.Context, m *exemption, diags *diag.Diagnostics) api.Exemption {
			return api.Exemption{
				ID: m.ID.ValueString(), Class: m.Class.ValueString(), Host: m.Host.ValueString(), To: m.To.ValueString(),
				Ports: listOf[int64](ctx, m.Ports, diags), Raw: m.Raw.ValueBool(), MaxBytes: m.MaxBytes.ValueInt64(),
				Until: timeOf(m.Until), Reason: m.Reason.ValueString(),
			}
		},
		settle: func(w *api.Exemption) {
			if w.ID == "" {
				w.ID = api.NewID("x")
			}
		},
		fill: fillExemption,
	}
}

func fillExemption(ctx context.Context, m *exemption, was *api.Exemption, now api.Exemption) (diags diag.Diagnostics) {
	keepString(&m.ID, field(was, func(w *api.Exemption) *string { return &w.ID }), now.ID)
	keepOptional(&m.Class, field(was, func(w *api.Exemption) *string { return &w.Class }), now.Class)
	keepOptional(&m.Host, field(was, func(w *api.Exemption) *string { return &w.Host }), now.Host)
	keepString(&m.To, field(was, func(w *api.Exemption) *string { return &w.To }), now.To)
	keepSet(ctx, &m.Ports, types.Int64Type, field(was, func(w *api.Exemption) *[]int64 { return &w.Ports }), now.Ports, &diags)
	keepBool(&m.Raw, field(was, func(w *api.Exemption) *bool { return &w.Raw }), now.Raw)
	keepInt(&m.MaxBytes, field(was, func(w *api.Exemption) *int64 { return &w.MaxBytes }), now.MaxBytes)
	keepTime(&m.Until, field(was, func(w *api.Exemption) *time.Time { return &w.Until }), now.Until)
	keepString(&m.Reason, field(was, func(w *api.Exemption) *string { return &w.Reason }), now.Reason)
	fillOrigin(&m.By, &m.At, now.Origin)
	return diags
}
