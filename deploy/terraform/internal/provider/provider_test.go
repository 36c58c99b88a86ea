package provider_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/exitgate/exitgate/deploy/terraform/internal/gate"
)

// until is an end well ahead, in a spelling that is not the gateway's.
func until() string {
	return time.Now().Add(90 * 24 * time.Hour).In(time.FixedZone("", 2*3600)).Format("2006-01-02T15:04:05.000-07:00")
}

// everything is a configuration with each resource, spelled as people write and the gateway does not: ranges that are not
// sorted, addresses with a length, names and methods in the wrong case, times elsewhere.
func everything() []block {
	end := until()
	return []block{
		{"exitgate_class.build", map[string]any{"name": "build", "reason": "CI runners"}},
		{"exitgate_host.runner", map[string]any{"name": "runner-07", "class": "build", "reason": "new runner",
			"addresses": []string{"192.0.2.128/28", "192.0.2.7/32", "2001:DB8:0::1"}, "networks": []string{"198.51.100.0/24", "192.0.2.0/24"}}},
		{"exitgate_host.own", map[string]any{"name": "runner-08", "class": "build", "reason": "it registers its addresses"}},
		{"exitgate_host_token.runners", map[string]any{"class": "build", "reason": "autoscaling", "uses": 5, "ttl": "2h", "networks": []string{"198.51.100.0/24", "192.0.2.0/24"}}},
		{"exitgate_grant.packages", map[string]any{"class": "build", "to": "Packages.Example.com.", "reason": "downloads", "scheme": "HTTPS",
			"methods": []string{"post", "GET", "head"}, "paths": []string{"/simple", "/%7euser", "/a%2fb"}, "ports": []int{8443, 443},
			"headers": map[string]string{"X-Team": "ci-*"}, "max_request": 65536, "encoded_slash": true, "until": end, "lease": "30d"}},
		{"exitgate_grant.host", map[string]any{"id": "to-runner", "host": "runner-07", "to": "bücher.example", "reason": "${not a template} %{nor this}"}},
		{"exitgate_exemption.updates", map[string]any{"class": "build", "to": "UPDATES.example.org", "ports": []int{443, 22}, "raw": true, "max_bytes": 1 << 33,
			"until": end, "reason": "pinned updater"}},
	}
}

func creations(blocks []block) map[string]string {
	out := map[string]string{}
	for _, b := range blocks {
		out[b.addr] = "create"
	}
	return out
}

// TestLife makes each resource, changes it in place and by replacement, and removes it. Each plan after an apply is empty.
func TestLife(t *testing.T) {
	worlds(t, "", func(t *testing.T, g *gate.Gate, w world) {
		blocks := everything()
		applied(t, w, creations(blocks), blocks...)
		secret, _ := w.read("exitgate_host_token.runners", "secret").(string)
		if !strings.HasPrefix(secret, "xgh_") {
			t.Errorf("the token's secret is %q", secret)
		}
		if by := w.read("exitgate_class.build", "by"); by != "token:terraform" {
			t.Errorf("the class is by %v", by)
		}
		for _, want := range []string{`"192.0.2.7"`, `"2001:db8::1"`} {
			if list := g.Run("host", "list", "-o", "json"); !strings.Contains(list, want) {
				t.Errorf("the gateway has no address %s: %s", want, list)
			}
		}

		blocks[0] = blocks[0].with(map[string]any{"description": "CI", "audit": true})
		blocks[1] = blocks[1].with(map[string]any{"addresses": []string{"192.0.2.7/32"}, "networks": nil, "disabled": true})
		blocks[3] = blocks[3].with(map[string]any{"uses": 6})
		blocks[4] = blocks[4].with(map[string]any{"methods": nil, "paths": nil, "headers": nil, "until": nil, "lease": nil, "scheme": "any"})
		blocks[6] = blocks[6].with(map[string]any{"reason": "pinned updater, looked at again"})
		applied(t, w, map[string]string{blocks[0].addr: "update", blocks[1].addr: "update", blocks[3].addr: "update", blocks[4].addr: "update", blocks[6].addr: "update"}, blocks...)
		if now := w.read("exitgate_host_token.runners", "secret"); now != secret {
			t.Error("an update changed the token's secret")
		}

		id := w.read("exitgate_grant.packages", "id")
		blocks[3] = blocks[3].with(map[string]any{"keepers": map[string]string{"image": "2"}})
		blocks[5] = blocks[5].with(map[string]any{"id": "of-runner"})
		applied(t, w, map[string]string{blocks[3].addr: "replace", blocks[5].addr: "replace"}, blocks...)
		if now := w.read("exitgate_host_token.runners", "secret"); now == secret || now == nil {
			t.Error("the new token has the old one's secret")
		}
		if now := w.read("exitgate_grant.packages", "id"); now != id || id == nil {
			t.Errorf("the grant's id was %v and is %v", id, now)
		}

		gone := map[string]string{}
		for _, b := range blocks {
			gone[b.addr] = "delete"
		}
		planned(t, w, gone)
		if err := w.apply(); err != nil {
			t.Fatal(err)
		}
		for _, noun := range []string{"class", "host", "grant", "exempt"} {
			if list := strings.TrimSpace(g.Run(noun, "list", "-o", "json")); list != "[]" {
				t.Errorf("after destroy there are %s", list)
			}
		}
	})
}

// TestDrift changes and removes elsewhere what Terraform made: the next plan puts it right, and what is the host's own is
// left alone.
func TestDrift(t *testing.T) {
	worlds(t, "", func(t *testing.T, g *gate.Gate, w world) {
		blocks := everything()
		if err := w.apply(blocks...); err != nil {
			t.Fatal(err)
		}
		g.Run("host", "disable", "runner-07", "--reason", "an incident")
		g.Run("host", "add", "runner-08", "--class", "build", "--address", "192.0.2.99", "--reason", "it registers its addresses", "--replace")
		g.Run("class", "add", "build", "--audit", "--description", "theirs", "--reason", "learning", "--replace")
		g.Run("grant", "rm", "to-runner", "--reason", "not needed")
		applied(t, w, map[string]string{blocks[0].addr: "update", blocks[1].addr: "update", blocks[5].addr: "create"}, blocks...)
		if list := g.Run("host", "list", "-o", "json"); !strings.Contains(list, "192.0.2.99") {
			t.Errorf("the host's own address is gone: %s", list)
		}

		// An update of something else leaves the host's own addresses as they are at that moment.
		blocks[2] = blocks[2].with(map[string]any{"networks": []string{"192.0.2.0/24"}})
		applied(t, w, map[string]string{blocks[2].addr: "update"}, blocks...)
		if list := g.Run("host", "list", "-o", "json"); !strings.Contains(list, "192.0.2.99") {
			t.Errorf("the host's own address is gone: %s", list)
		}
		blocks[2] = blocks[2].with(map[string]any{"addresses": []string{}})
		applied(t, w, map[string]string{blocks[2].addr: "update"}, blocks...)
		if list := g.Run("host", "list", "-o", "json"); strings.Contains(list, "192.0.2.99") {
			t.Errorf("the host still has an address: %s", list)
		}

		// All that was made is removed elsewhere, then destroyed.
		g.Run("grant", "rm", "to-runner", "--reason", "not needed")
		g.Run("host", "rm", "runner-08", "--reason", "not needed")
		if err := w.apply(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestImport takes over what was made elsewhere.
func TestImport(t *testing.T) {
	worlds(t, "classes: {app: {audit: false}}\n", func(t *testing.T, g *gate.Gate, w world) {
		g.Run("class", "add", "build", "--reason", "CI runners")
		g.Run("host", "add", "runner-07", "--class", "build", "--address", "192.0.2.7", "--reason", "new runner")
		g.Run("grant", "add", "--id", "pkg", "--class", "build", "--reason", "downloads", "--method", "GET", "https://packages.example.com/simple")
		g.Run("exempt", "add", "--id", "upd", "--class", "build", "--until", "90d", "--reason", "pinned", "updates.example.org")
		made := g.Run("host", "token", "--class", "build", "--reason", "autoscaling", "-o", "json")
		_, id, _ := strings.Cut(made, `"id": "`)
		id, _, _ = strings.Cut(id, `"`)
		end := between(g.Run("exempt", "list", "-o", "json"), `"until": "`, `"`)
		blocks := []block{
			{"exitgate_class.build", map[string]any{"name": "build", "reason": "CI runners"}},
			{"exitgate_host.runner", map[string]any{"name": "runner-07", "class": "build", "addresses": []string{"192.0.2.7"}, "reason": "new runner"}},
			{"exitgate_host_token.t", map[string]any{"class": "build", "reason": "autoscaling"}},
			{"exitgate_grant.pkg", map[string]any{"id": "pkg", "class": "build", "to": "packages.example.com", "paths": []string{"/simple"}, "methods": []string{"GET"}, "reason": "downloads"}},
			{"exitgate_exemption.upd", map[string]any{"class": "build", "to": "updates.example.org", "until": end, "reason": "pinned"}},
		}
		for i, name := range []string{"build", "runner-07", id, "pkg", "upd"} {
			if err := w.adopt(blocks[i].addr, name, blocks...); err != nil {
				t.Fatal(err)
			}
		}
		clean(t, w, blocks...)

		refused(t, w.adopt("exitgate_host.none", "nobody", append(blocks, block{"exitgate_host.none", blocks[1].config})...), "Cannot import non-existent remote object")

		// Other words for the same are one update that changes nothing, and then no difference.
		blocks[1] = blocks[1].with(map[string]any{"addresses": []string{"192.0.2.7/32"}})
		applied(t, w, map[string]string{blocks[1].addr: "update"}, blocks...)

		// What stands in a file is read, and neither changed nor removed.
		file := block{"exitgate_class.app", map[string]any{"name": "app", "reason": "of the file"}}
		all := append(blocks, file)
		if err := w.adopt(file.addr, "app", all...); err != nil {
			t.Fatal(err)
		}
		refused(t, w.apply(append(blocks, file.with(map[string]any{"audit": true}))...), "class app stands in exitgate.yaml")
		refused(t, w.apply(blocks...), "change it there")
	})
}

func between(s, from, to string) string {
	_, s, _ = strings.Cut(s, from)
	s, _, _ = strings.Cut(s, to)
	return s
}

// TestRefusals holds errors to the words of whoever knows: the provider for what can be told from a configuration, the
// gateway for the rest.
func TestRefusals(t *testing.T) {
	g := gate.New(t, "")
	w := newCore(t, g.Endpoint, g.TokenFile, g.CAFile)
	class := block{"exitgate_class.build", map[string]any{"name": "build", "reason": "CI runners"}}
	grant := block{"exitgate_grant.g", map[string]any{"class": "build", "to": "example.com", "reason": "r"}}
	token := block{"exitgate_host_token.t", map[string]any{"class": "build", "reason": "r"}}
	for _, c := range []struct {
		block block
		want  string
	}{
		{class.with(map[string]any{"name": "a b"}), "letters, digits, dots, dashes and underscores"},
		{class.with(map[string]any{"reason": " "}), "it is empty"},
		{grant.with(map[string]any{"host": "x"}), "Set class, or host, and not both"},
		{grant.with(map[string]any{"class": nil}), "Set class, or host, and not both"},
		{grant.with(map[string]any{"until": "tomorrow"}), "RFC 3339"},
		{grant.with(map[string]any{"lease": "soon"}), "time span"},
		{grant.with(map[string]any{"ports": []int{0}}), "a port is 1 to 65535"},
		{grant.with(map[string]any{"max_request": -1}), "it is a number from 0"},
		{token.with(map[string]any{"ttl": "1h", "until": "2030-01-01T00:00:00Z"}), "Set ttl, or until"},
		{token.with(map[string]any{"networks": []string{"here"}}), "neither an address"},
	} {
		_, err := w.plan(c.block)
		refused(t, err, c.want)
	}
	if err := w.apply(class); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		block block
		want  string
	}{
		{grant.with(map[string]any{"to": "*.com"}), "public suffix"},
		{grant.with(map[string]any{"class": "biuld"}), "did you mean build?"},
		{grant.with(map[string]any{"until": "2001-01-01T00:00:00Z"}), "has passed"},
		{token.with(map[string]any{"until": "2999-01-01T00:00:00Z"}), "a token lives a year at most"},
		{block{"exitgate_class.again", class.config}, "terraform import exitgate_class.NAME ID"},
		{block{"exitgate_host.unknown", map[string]any{"name": "h", "class": "unknown", "reason": "r"}}, "it needs a class"},
	} {
		refused(t, w.apply(class, c.block), c.want)
	}
	g.Run("host", "add", "h", "--class", "build", "--reason", "not of Terraform")
	refused(t, w.apply(), "class build: it has 1 hosts; remove them first")
}

// TestRoles holds that a token reaches as far as its role, and that the error says so.
func TestRoles(t *testing.T) {
	g := gate.New(t, "")
	viewer := g.Dir + "/viewer"
	g.Run("token", "add", "graphs", "--role", "viewer", "--reason", "graphs", "--secret-file", viewer)
	w := newCore(t, g.Endpoint, viewer, g.CAFile)
	refused(t, w.apply(block{"exitgate_class.build", map[string]any{"name": "build", "reason": "r"}}), "token:graphs has the role viewer, and this needs editor")
}

// TestSources reads what hosts need.
func TestSources(t *testing.T) {
	g := gate.New(t, "")
	w := newCore(t, g.Endpoint, g.TokenFile, g.CAFile)
	trust := w.data("exitgate_trust")
	if roots, _ := w.plain(trust["roots"]).(string); !strings.HasPrefix(roots, "-----BEGIN CERTIFICATE-----") {
		t.Errorf("the roots are %q", roots)
	}
	if prints, _ := w.plain(trust["fingerprints"]).([]any); len(prints) != 1 || len(prints[0].(string)) < 64 {
		t.Errorf("the fingerprints are %v", prints)
	}
	proxy := w.data("exitgate_proxy")
	for _, name := range []string{"http", "https"} {
		if url, _ := w.plain(proxy[name]).(string); !strings.HasPrefix(url, "http://127.0.0.1:") {
			t.Errorf("%s is %q", name, url)
		}
	}
	if list := asJSON(t, w.plain(proxy["no_proxy"])); !strings.Contains(list, `"localhost"`) {
		t.Errorf("no_proxy is %s", list)
	}
}

// TestSettings holds that settings that cannot be used are said before anything is asked, and never the token.
func TestSettings(t *testing.T) {
	t.Setenv("EXITGATE_API", "")
	t.Setenv("EXITGATE_TOKEN_FILE", "")
	t.Setenv("EXITGATE_API_CA", "")
	file := t.TempDir() + "/token"
	if err := os.WriteFile(file, []byte("xgh_quite\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		config map[string]any
		want   string
	}{
		{map[string]any{"endpoint": "https://gate.example.com"}, "The API needs a token"},
		{map[string]any{"endpoint": "https://gate.example.com", "token_file": "/nonexistent"}, "no such file"},
		{map[string]any{"endpoint": "https://gate.example.com", "token_file": file}, "it is a token that hosts enrol with"},
		{map[string]any{"endpoint": "https://gate.example.com", "token": "xga_quite\nX: y"}, "it holds spaces"},
		{map[string]any{"endpoint": "http://gate.example.com", "token": "xga_quite"}, "it is a URL such as https://"},
		{map[string]any{"token": "xga_quite"}, "it is a URL such as https://"},
		{map[string]any{"endpoint": "https://u:p@gate.example.com", "token": "xga_quite"}, "without a token in it"},
		{map[string]any{"endpoint": "https://gate.example.com", "token": "xga_quite", "ca_certificate": "none"}, "there is no certificate in it"},
		{map[string]any{"endpoint": "https://gate.example.com", "token": "xga_quite", "ca_file": "/nonexistent"}, "no such file"},
	} {
		err := (&core{t: t, state: map[string]instance{}}).configure(c.config)
		refused(t, err, c.want)
		if strings.Contains(err.Error(), "_quite") {
			t.Errorf("the error holds the token: %v", err)
		}
	}
}

// TestExample runs the example of README.md, from an empty gateway to an empty gateway.
func TestExample(t *testing.T) {
	program := terraformProgram(t)
	g := gate.New(t, "")
	w := newTerraform(t, program, g.Endpoint, g.TokenFile, g.CAFile)
	b, err := os.ReadFile("../../example/main.tf")
	if err != nil {
		t.Fatal(err)
	}
	w.write("main.tf", b)
	for _, args := range [][]string{{"validate"}, {"apply", "-input=false", "-auto-approve"}, {"plan", "-input=false", "-detailed-exitcode"}} {
		if _, err := w.run(args...); err != nil {
			t.Fatal(err)
		}
	}
	data, err := w.run("output", "-raw", "user_data")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(data, "#cloud-config\n") || !strings.Contains(data, "xgh_") {
		t.Errorf("the user data are %s", data)
	}
	if list := g.Run("grant", "list"); !strings.Contains(list, "releases, ticket 4712") {
		t.Errorf("the gateway's grants are %s", list)
	}
	if out, err := w.run("destroy", "-input=false", "-auto-approve"); err != nil || strings.Contains(out, "xgh_") {
		t.Errorf("destroy: %v", err)
	}
}
