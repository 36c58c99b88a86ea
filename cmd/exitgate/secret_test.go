package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSecret(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("A_SECRET", "from the environment")
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	file("phrase", "from systemd\n", 0o444)
	for s, want := range map[Secret]string{
		"":                  "",
		"env:A_SECRET":      "from the environment",
		"credential:phrase": "from systemd",
		Secret("file:" + file("good", "from a file\r\n", 0o600)):         "from a file",
		Secret("file:" + file("group", " spaces stay ", 0o640)):          " spaces stay ",
		Secret("file:" + file("open", "x", 0o604)):                       "ERR everybody",
		Secret("file:" + file("empty", "\n", 0o600)):                     "ERR empty",
		Secret("file:" + file("void", "", 0o600)):                        "ERR empty",
		Secret("file:" + file("long", strings.Repeat("x", 5000), 0o600)): "ERR longer",
		"file:/nonexistent":      "ERR no such file",
		"env:NOT_SET":            "ERR empty",
		"credential:nonexistent": "ERR no such file",
	} {
		b, err := s.value()
		got := string(b)
		if err != nil {
			got = "ERR " + err.Error()
		}
		if wantErr, ok := strings.CutPrefix(want, "ERR "); got != want && !(ok && err != nil && strings.Contains(got, wantErr)) {
			t.Errorf("%s: %q, want %q", s, got, want)
		}
	}
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	if _, err := Secret("credential:phrase").value(); err == nil || !strings.Contains(err.Error(), "LoadCredential") {
		t.Error(err)
	}
	for s, ok := range map[string]bool{"file:a": true, "env:A": true, "credential:a": true, "swordfish": false, "file:": false, "credential:../a": false, "pass:x": false} {
		if err := checkSecret(s); (err == nil) != ok || err != nil && strings.Contains(err.Error(), "swordfish") {
			t.Errorf("%s: %v", s, err)
		}
	}
	for s, ok := range map[string]bool{
		"offline": true, "pkcs11:token=t;object=o?pin-source=/p": true, "tpmkms:name=o": true,
		"root.key": false, "pkcs11:token=t?pin-value=1234": false, "pkcs11:": false, "a b:c": false,
	} {
		if err := checkKeyURI(s); (err == nil) != ok || err != nil && strings.Contains(err.Error(), "1234") {
			t.Errorf("%s: %v", s, err)
		}
	}
}
