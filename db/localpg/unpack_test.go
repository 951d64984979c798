package localpg

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// archive writes a .tgz of these entries, in npm's format.
func archive(t *testing.T, entries ...tar.Header) string {
	t.Helper()
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	w := tar.NewWriter(z)
	for _, h := range entries {
		text := h.PAXRecords["text"]
		h.PAXRecords = nil
		if h.Size == 0 {
			h.Size = int64(len(text))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write([]byte(text)) // an entry that claims more than it has can't be closed
	}
	_ = w.Close()
	_ = z.Close()
	name := filepath.Join(t.TempDir(), "package.tgz")
	if err := os.WriteFile(name, buf.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func file(name, text string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, PAXRecords: map[string]string{"text": text}}
}

func TestAnArchiveIsUnpackedWithItsLinks(t *testing.T) {
	program := file("package/native/bin/postgres", "program")
	program.Mode = 0o755
	tgz := archive(t, program, file("package/native/lib/libpq.so.5.18", "library"),
		file("package/"+linksName, `[{"source":"native/lib/libpq.so.5.18","target":"native/lib/libpq.so.5"},
			{"source":"native/lib/libpq.so.5.18","target":"native/libpq.so"}]`))
	dir := filepath.Join(t.TempDir(), "unpacked")
	if err := unpackFile(tgz, dir); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"bin/postgres": "program", "lib/libpq.so.5": "library", "libpq.so": "library"} {
		if got, err := os.ReadFile(filepath.Join(dir, "native", name)); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
	if to, err := os.Readlink(filepath.Join(dir, "native/lib/libpq.so.5")); err != nil || to != "libpq.so.5.18" {
		t.Errorf("the link leads to %q, %v", to, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "native/bin/postgres")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the program's mode is %v, %v", info.Mode(), err)
	}
}

func TestAnArchiveCanNotWriteOutsideOfItsFolder(t *testing.T) {
	huge := file("package/huge", "")
	huge.Size = maxUnpacked + 1
	for name, c := range map[string]struct {
		entries []tar.Header
		says    string
	}{
		"a name that climbs":     {[]tar.Header{file("package/../../out", "x")}, "leads out"},
		"an absolute name":       {[]tar.Header{file("package//etc/out", "x")}, "leads out"},
		"a symbolic link":        {[]tar.Header{{Typeflag: tar.TypeSymlink, Name: "package/l", Linkname: "/etc"}}, "does not belong"},
		"a hard link":            {[]tar.Header{{Typeflag: tar.TypeLink, Name: "package/l", Linkname: "/etc/passwd"}}, "does not belong"},
		"a link that climbs":     {[]tar.Header{file("package/"+linksName, `[{"source":"../../x","target":"native/y"}]`)}, "leads out"},
		"a link placed outside":  {[]tar.Header{file("package/"+linksName, `[{"source":"native/x","target":"/tmp/y"}]`)}, "leads out"},
		"a file given twice":     {[]tar.Header{file("package/a", "1"), file("package/a", "2")}, "exists"},
		"more than the bound":    {[]tar.Header{huge}, "more than"},
		"a list of links broken": {[]tar.Header{file("package/"+linksName, `{`)}, linksName},
	} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			dir := filepath.Join(parent, "unpacked")
			if err := unpackFile(archive(t, c.entries...), dir); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("want an error that says %q, got %v", c.says, err)
			}
			if left, _ := os.ReadDir(parent); len(left) != 1 {
				t.Errorf("beside the folder: %v", left)
			}
		})
	}
}

func TestATruncatedArchiveIsRefused(t *testing.T) {
	tgz := archive(t, file("package/a", strings.Repeat("text ", 1000)))
	if err := os.Truncate(tgz, 60); err != nil {
		t.Fatal(err)
	}
	if err := unpackFile(tgz, filepath.Join(t.TempDir(), "unpacked")); err == nil {
		t.Error("it was unpacked")
	}
}
