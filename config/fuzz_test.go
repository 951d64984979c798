package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzLoad gives Load what people write by mistake, around a password that must not come out again.
func FuzzLoad(f *testing.F) {
	golden, err := os.ReadFile("testdata/mistakes.txt")
	if err != nil {
		f.Fatal(err)
	}
	for text := range strings.SplitSeq(string(golden), "=== ") {
		_, text, _ = strings.Cut(text, "\n")
		content, _, _ := strings.Cut(text, "\n--->\n")
		f.Add(content, "u:", "@h:1/n?sslmode=disable", "1")
	}
	f.Add(sample, "u:%", "/@h", "none")
	f.Add("[databases.default]\nname = 'x'", "", "", "-1")
	f.Add("[databases.default]\npassword = [", "u:p?", "#@", "1e400")
	const secret = "S3CRET"
	path := filepath.Join(f.TempDir(), "ddtb.toml")
	f.Fuzz(func(t *testing.T, before, user, host, age string) {
		if strings.Contains(before+user+host+age, secret) {
			return
		}
		write(t, path, before+"\npassword = \""+secret+"\"\n"+age)
		c, err := Load(Options{File: path, Environ: []string{
			"DATABASE_URL=postgres://" + user + secret + host, "CONN_MAX_AGE=" + age, "DDTB_SERVER_ADDR=" + user,
			"DDTB_" + age + "=1", "DDTB_MAIL_ADMINS=" + host, "PGPASSWORD=" + secret + "\x00",
		}})
		text := said(path, err)
		if c != nil {
			var shown strings.Builder
			if err := c.WriteTOML(&shown); err != nil {
				t.Fatal(err)
			}
			text = strings.Join(c.Warnings, "\n")
			if _, err := load(t, shown.String()); err != nil {
				t.Fatalf("what is shown can't be loaded: %v\n%s", err, shown.String())
			}
		}
		if strings.Contains(text, secret) {
			t.Fatalf("the secret is in %s", text)
		}
	})
}
