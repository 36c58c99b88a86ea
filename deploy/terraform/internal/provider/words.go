package provider

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

// The two directions between attributes and what the gateway says.
//
// Each keep function brings one attribute up to date: it stays as it is unless it is unknown or the gateway's words of it
// have changed. What is empty is null where the configuration may leave it out.

// stays reports whether an attribute keeps its words.
func stays[T any](v attr.Value, was *T, now T, equal func(a, b T) bool) bool {
	return !v.IsUnknown() && was != nil && equal(*was, now)
}

func same[T comparable](a, b T) bool { return a == b }

func keepString(v *types.String, was *string, now string) {
	if stays(*v, was, now, same) {
		return
	}
	*v = types.StringValue(now)
}

// keepOptional is keepString where "" is what the configuration leaves out.
func keepOptional(v *types.String, was *string, now string) {
	if stays(*v, was, now, same) {
		return
	}
	if *v = types.StringNull(); now != "" {
		*v = types.StringValue(now)
	}
}

func keepBool(v *types.Bool, was *bool, now bool) {
	if !stays(*v, was, now, same) {
		*v = types.BoolValue(now)
	}
}

func keepInt(v *types.Int64, was *int64, now int64) {
	if !stays(*v, was, now, same) {
		*v = types.Int64Value(now)
	}
}

// keepTime writes a time as RFC 3339 in UTC; the zero time is null.
func keepTime(v *types.String, was *time.Time, now time.Time) {
	if stays(*v, was, now, time.Time.Equal) {
		return
	}
	if *v = types.StringNull(); !now.IsZero() {
		*v = types.StringValue(now.UTC().Format(time.RFC3339Nano))
	}
}

// keepSet is for sets that the configuration may leave out.
func keepSet[T comparable](ctx context.Context, v *types.Set, of attr.Type, was *[]T, now []T, diags *diag.Diagnostics) {
	if stays(*v, was, now, slices.Equal) {
		return
	}
	if *v = types.SetNull(of); len(now) > 0 {
		set, d := types.SetValueFrom(ctx, of, now)
		diags.Append(d...)
		*v = set
	}
}

func keepMap(ctx context.Context, v *types.Map, was *map[string]string, now map[string]string, diags *diag.Diagnostics) {
	if stays(*v, was, now, maps.Equal) {
		return
	}
	if *v = types.MapNull(types.StringType); len(now) > 0 {
		m, d := types.MapValueFrom(ctx, types.StringType, now)
		diags.Append(d...)
		*v = m
	}
}

// listOf returns what is in a set, in some order; an empty list where there is none.
func listOf[T any](ctx context.Context, v types.Set, diags *diag.Diagnostics) []T {
	out := []T{}
	if !v.IsNull() && !v.IsUnknown() {
		diags.Append(v.ElementsAs(ctx, &out, false)...)
	}
	return out
}

// timeOf reads a time that a validator has checked; the zero time where there is none.
func timeOf(v types.String) time.Time {
	t, err := time.Parse(time.RFC3339, v.ValueString())
	if err != nil {
		return time.Time{}
	}
	return t
}

// field returns where was has a member, and nil where there is no was.
func field[W, T any](was *W, at func(*W) *T) *T {
	if was == nil {
		return nil
	}
	return at(was)
}
