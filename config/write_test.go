package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ddtb/config"
)

func TestATextIsSetInAFileThatStaysAsItIs(t *testing.T) {
	const name = "databases.default.strategy"
	for what, c := range map[string]struct{ before, after string }{
		"in place of the old one": {
			"# mine\n[databases.default]\n  strategy = 'pool' # why\n[server]\naddr = \":1\"\n",
			"# mine\n[databases.default]\n  strategy = \"persistent\" # why\n[server]\naddr = \":1\"\n",
		},
		"in its table, before others": {
			"[databases.default] # here\nname = \"a\"\n  [databases.default.pool]\nmax_size = 3\n",
			"[databases.default] # here\nstrategy = \"persistent\"\nname = \"a\"\n  [databases.default.pool]\nmax_size = 3\n",
		},
		"as a dotted key":          {"databases.default.strategy = \"pool\"\n", "databases.default.strategy = \"persistent\"\n"},
		"in a table that ends":     {"[databases.default]", "[databases.default]\nstrategy = \"persistent\"\n"},
		"behind a byte order mark": {"\ufeff[databases.default]\n", "\ufeff[databases.default]\nstrategy = \"persistent\"\n"},
		"in an empty file":         {"", "\n[databases.default]\nstrategy = \"persistent\"\n"},
		"where a comment is":       {"#strategy = \"pool\"\n", "#strategy = \"pool\"\n\n[databases.default]\nstrategy = \"persistent\"\n"},
		"where it is shorter than what was there": {
			"[databases.default]\nstrategy = \"per-request, and much more than that\"\n",
			"[databases.default]\nstrategy = \"persistent\"\n",
		},
	} {
		t.Run(what, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ddtb.toml")
			if err := os.WriteFile(path, []byte(c.before), 0o640); err != nil {
				t.Fatal(err)
			}
			if err := config.SetText(path, name, "persistent"); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if err != nil || string(got) != c.after {
				t.Errorf("%v\n%s", err, got)
			}
			if info, err := os.Stat(path); err != nil || info.Mode() != 0o640 {
				t.Error(info.Mode(), err)
			}
		})
	}
}

func TestAFileThatCannotBeEditedStaysAsItIs(t *testing.T) {
	for name, c := range map[string]struct{ content, want string }{
		"as it is not TOML":                {"[databases.default\nstrategy = \"pool\"\n", "ddtb config check"},
		"as it has dotted keys":            {"databases.default.name = \"x\"\n", `strategy = "pool"`},
		"as it has dotted keys in a table": {"[databases]\ndefault.name = \"x\"\n", `strategy = "pool"`},
		"as it has an inline table":        {"[databases]\ndefault = {name = \"x\"}\n", `strategy = "pool"`},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ddtb.toml")
			if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			err := config.SetText(path, "databases.default.strategy", "pool")
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v", err)
			}
			if got, _ := os.ReadFile(path); string(got) != c.content {
				t.Errorf("the file is now\n%s", got)
			}
		})
	}
}
