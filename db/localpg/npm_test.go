package localpg

import (
	"os"
	"path/filepath"
	"testing"
)

func TestThePackageHasTheLibrariesOtherNames(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"native/bin/postgres": "program", "native/lib/libpq.so.5.18": "library",
		linksName: `[{"source":"native/lib/libpq.so.5.18","target":"native/lib/libpq.so.5"},
			{"source":"native/lib/libpq.so.5.18","target":"native/libpq.so"}]`,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := makeLinks(dir); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"lib/libpq.so.5": "library", "libpq.so": "library"} {
		if got, err := os.ReadFile(filepath.Join(dir, "native", name)); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
}

func TestALinkOutOfThePackageIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "native"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, linksName), []byte(`[{"source":"native/x","target":"../x"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := makeLinks(dir); err == nil {
		t.Error("a link was made outside")
	}
}
