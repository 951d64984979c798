package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestSecretsNeverPrint(t *testing.T) {
	const secret = "hunter2"
	d := Database{Password: secret}
	c := Config{Databases: map[string]Database{"default": d}, Mail: Mail{Password: secret}, Sentry: Sentry{DSN: secret}}
	var out bytes.Buffer
	for _, v := range []any{Secret(secret), &d, d, c, &c, []Secret{secret}, map[string]Secret{"k": secret}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%30v", "%T", "%z", "%U"} {
			fmt.Fprintf(&out, verb, v)
		}
		fmt.Fprintln(&out, fmt.Errorf("wrapped: %w", errors.New(fmt.Sprint(v))))
		must(t, json.NewEncoder(&out).Encode(v))
		for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			slog.New(h).Info("m", "k", v, slog.Any("l", v), slog.Group("g", "k", v))
		}
	}
	must(t, c.WriteTOML(&out))
	hex, decimal := fmt.Sprintf("%x", secret), fmt.Sprintf("%d", []byte(secret))
	for _, form := range []string{secret, hex, strings.ToUpper(hex), decimal} {
		if i := strings.Index(out.String(), form); i >= 0 {
			t.Errorf("%q is in …%s…", form, out.String()[max(0, i-60):i+len(form)])
		}
	}
	equal(t, "what is shown instead", fmt.Sprintf("%v %#v", Secret(secret), Secret(secret)), `[redacted] "[redacted]"`)
	equal(t, "the empty secret", fmt.Sprintf("%v", Secret("")), "")
	equal(t, "the secret itself", Secret(secret).Reveal(), secret)
}

func TestAMistakeShowsNoURL(t *testing.T) {
	const user = "postgres://ops:hunter2@h:5432/wall"
	for name, content := range map[string]string{
		"the endpoint of traces": "[tracing]\nendpoint = 'http://ops:hunter2@otel:4318'", "a host": "[databases.default]\nhost = '" + user + "'",
		"a list of hosts": "[databases.default]\nhosts = ['ops:hunter2@h']", "the address of the site": "[server]\nbase_url = 'https://h/?key=hunter2'",
		"a name": "[databases.default]\nname = '" + user + strings.Repeat("x", 40) + "'",
	} {
		if _, err := load(t, content); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
