package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"ddtb/db"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// write makes a file of the test's own, which only its owner may read.
func write(t testing.TB, path, content string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// load loads a file with the content, and the environment.
func load(t testing.TB, content string, environ ...string) (*Config, error) {
	t.Helper()
	path := write(t, filepath.Join(t.TempDir(), "ddtb.toml"), content)
	return Load(Options{File: path, Environ: environ})
}

func mustLoad(t testing.TB, content string, environ ...string) *Config {
	t.Helper()
	c, err := load(t, content, environ...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// values returns c without the origins of its values.
func values(c Config) Config {
	c.File, c.FileState, c.Origins, c.Warnings = "", "", nil, nil
	return c
}

func equal[T any](t testing.TB, what string, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s is\n%+v, want\n%+v", what, got, want)
	}
}

func TestNothingSetGivesTheDefaults(t *testing.T) {
	c, err := Load(Options{})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "the configuration", values(*c), values(Default()))
	equal(t, "the file", c.File, "")
	equal(t, "the warnings", len(c.Warnings), 0)
}

func TestThreeLinesAreACompleteFile(t *testing.T) {
	c := mustLoad(t, `
[databases.default]
name = "ddtb_debug"
user = "www"
password = "your password"
`)
	want := Default()
	d := want.Databases["default"]
	d.Name, d.User, d.Password = "ddtb_debug", "www", "your password"
	want.Databases["default"] = d
	equal(t, "the configuration", values(*c), values(want))
	equal(t, "the host, which is the Unix socket as with Django,", d.Host, "")
}

func TestDefaultsAreWithinTheirBounds(t *testing.T) {
	c := Default()
	d := c.Databases["default"]
	for _, k := range keysOf(&c, map[string]*Database{"default": &d}) {
		if problem := k.set(reread(k)); problem != "" {
			t.Errorf("%s: %s", k.name, problem)
		}
	}
}

// reread is the key's value as a file would hold it.
func reread(k *key) any {
	switch p := k.target.(type) {
	case *[]string, *db.Hosts:
		return []any{}
	case *int:
		return int64(*p)
	case *time.Duration:
		return brief(*p)
	case *Secret:
		return p.Reveal()
	}
	return reflect.ValueOf(k.target).Elem().Interface()
}

func TestPlaceOfTheFile(t *testing.T) {
	for _, tt := range []struct {
		name        string
		options     Options
		path, named string
	}{
		{"flag first", Options{File: "/f.toml", Environ: []string{"DDTB_CONFIG=/e.toml"}}, "/f.toml", "--config"},
		{"then the variable", Options{Environ: []string{"DDTB_CONFIG=/e.toml", "XDG_CONFIG_HOME=/x"}}, "/e.toml", "DDTB_CONFIG"},
		{"then XDG", Options{Environ: []string{"XDG_CONFIG_HOME=/x", "HOME=/h"}}, "/x/ddtb.toml", ""},
		{"a relative XDG is ignored", Options{Environ: []string{"XDG_CONFIG_HOME=x", "HOME=/h"}}, "/h/.config/ddtb.toml", ""},
		{"then home", Options{Environ: []string{"HOME=/h", "DDTB_CONFIG="}}, "/h/.config/ddtb.toml", ""},
		{"no home, no file", Options{}, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path, named := tt.options.Path()
			equal(t, "the path", path, tt.path)
			equal(t, "who named it", named, tt.named)
		})
	}
}

func TestDefaultFileIsReadFromHome(t *testing.T) {
	home := t.TempDir()
	path := write(t, filepath.Join(home, ".config", "ddtb.toml"), "[server]\nreplicas = 3\n")
	c, err := Load(Options{Environ: []string{"HOME=" + home}})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "the file", c.File, path)
	equal(t, "replicas", c.Server.Replicas, 3)
}

func TestLaterLayersGoOverEarlierOnes(t *testing.T) {
	const key = "databases.default.application_name"
	layers := []struct{ environ, want, origin string }{
		{"", "from the file", "ddtb.toml:2"},
		{"PGAPPNAME=libpq", "libpq", "environment variable PGAPPNAME"},
		{"DATABASE_URL=postgres:///?application_name=url", "url", "environment variable DATABASE_URL"},
		{"DDTB_DATABASES_DEFAULT_APPLICATION_NAME=own", "own", "environment variable DDTB_DATABASES_DEFAULT_APPLICATION_NAME"},
	}
	var environ []string
	for _, l := range layers {
		environ = append([]string{l.environ}, environ...)
		c := mustLoad(t, "[databases.default]\napplication_name = 'from the file'\n", environ...)
		equal(t, "the name", c.Databases["default"].ApplicationName, l.want)
		equal(t, "its origin", strings.ReplaceAll(c.Origins[key].String(), c.File, "ddtb.toml"), l.origin)
	}
	c, err := Load(Options{Environ: environ, Flags: []Flag{{"--app", key, "flag"}}})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "the name", c.Databases["default"].ApplicationName, "flag")
	equal(t, "its origin", c.Origins[key].String(), "--app")
	equal(t, "the origin of what nobody set", c.Origins["server.addr"].String(), "default")
}

func TestDurationsAreGosOrSeconds(t *testing.T) {
	for text, want := range map[string]time.Duration{
		`"10s"`: 10 * time.Second, `10`: 10 * time.Second, `1_0`: 10 * time.Second, `1.001`: 1001 * time.Millisecond,
		`0xa`: 10 * time.Second, `"1m30s"`: 90 * time.Second, `1e1`: 10 * time.Second,
	} {
		c := mustLoad(t, "[databases.default.pool]\ntimeout = "+text)
		equal(t, text, c.Databases["default"].Pool.Timeout, want)
	}
	for text, want := range map[string]time.Duration{
		`"none"`: db.Forever, `"None"`: db.Forever, `0`: 0, `"0s"`: 0, `600`: 600 * time.Second,
	} {
		c := mustLoad(t, "[databases.default.persistent]\nconn_max_age = "+text)
		equal(t, text, c.Databases["default"].Persistent.ConnMaxAge, want)
	}
}

func TestEveryWayToWriteAKeyIsRead(t *testing.T) {
	for name, content := range map[string]string{
		"table":            "[databases.default.pool]\nmax_size = 7",
		"dotted":           "databases.default.pool.max_size = 7",
		"dotted in table":  "[databases.default]\npool.max_size = 7",
		"inline":           "databases = {default = {pool = {max_size = 7}}}",
		"inline and below": "[databases.default]\npool = {max_size = 7}\n[databases.default.keepalive]\ncount = 4",
		"quoted":           "['databases'.\"default\".pool]\n\"max_size\" = 7",
		"spaced":           "[ databases . default . pool ]\n  max_size\t=\t7 # comment",
		"CRLF":             "[databases.default.pool]\r\nmax_size = 7\r\n",
		"byte order mark":  "\ufeff[databases.default.pool]\nmax_size = 7",
		"empty list":       "[server]\ntrusted_proxies = []\n[databases.default.pool]\nmax_size = 7",
	} {
		t.Run(name, func(t *testing.T) {
			c := mustLoad(t, content)
			equal(t, "max_size", c.Databases["default"].Pool.MaxSize, 7)
			equal(t, "the proxies", c.Server.TrustedProxies, nil)
		})
	}
}

func TestAReplicaHasWhatThePrimaryHasButForItsPlace(t *testing.T) {
	const primary = "[databases.default]\nname = 'a'\nhost = 'p'\nport = 1\npassword = 'x'\npool.max_size = 3\n"
	c := mustLoad(t, primary+"[databases.replica]\nhost = 'r'\nmax_lag = '1s'")
	want := db.DefaultSettings()
	want.Name, want.Host, want.Password, want.Pool.MaxSize, want.MaxLag = "a", "r", "x", 3, time.Second
	equal(t, "the replica", c.Databases["replica"], want)
	want.Budget = 6
	c = mustLoad(t, primary, "DDTB_DATABASES_REPLICA_HOST=r", "DDTB_DATABASES_REPLICA_MAX_LAG=1s", "DDTB_FLEET_BUDGET=6")
	equal(t, "the replica", c.Databases["replica"], want)
	c = mustLoad(t, "")
	equal(t, "the number of databases", len(c.Databases), 1)
}

func TestAReplicaInheritsThePasswordInForce(t *testing.T) {
	secret := write(t, filepath.Join(t.TempDir(), "secret"), "from the file")
	file := "[databases.default]\npassword_file = '" + secret + "'\n[databases.replica]\nhost = 'r'\n"
	t.Run("of the environment, over a file", func(t *testing.T) {
		c := mustLoad(t, file, "PGPASSWORD=env")
		r := c.Databases["replica"]
		equal(t, "the password", r.Password.Reveal(), "env")
		equal(t, "the file that connections read", r.PasswordFile, "")
		equal(t, "the number of warnings", len(c.Warnings), 1)
	})
	t.Run("of a file, which is read once", func(t *testing.T) {
		must(t, os.Chmod(secret, 0o644))
		c := mustLoad(t, file)
		r := c.Databases["replica"]
		equal(t, "the password", r.Password.Reveal(), "from the file")
		equal(t, "the file that connections read", r.PasswordFile, secret)
		equal(t, "the number of warnings", len(c.Warnings), 1)
	})
	t.Run("unless it has a file of its own", func(t *testing.T) {
		own := write(t, filepath.Join(t.TempDir(), "own"), "own")
		c := mustLoad(t, file+"password_file = '"+own+"'", "PGPASSWORD=env")
		equal(t, "the password", c.Databases["replica"].Password.Reveal(), "own")
	})
	t.Run("and a mistake in it is reported once", func(t *testing.T) {
		_, err := load(t, strings.ReplaceAll(file, secret, secret+".lost"))
		mistakes, _ := errors.AsType[Mistakes](err)
		equal(t, "the number of mistakes", len(mistakes), 1)
	})
}

func TestWhatAReplicaInheritsKeepsItsOrigin(t *testing.T) {
	const primary, replica = "[databases.default]\nuser = 'u'\n", "\n[databases.replica]\nhost = 'r'\n"
	c := mustLoad(t, primary+replica)
	equal(t, "the user's line", c.Origins["databases.replica.user"].Line, 2)
	equal(t, "the origin of what nobody set", c.Origins["databases.replica.name"].String(), "default")
	for _, tt := range []struct {
		name, content, want string
	}{
		{"a pair", primary + "sslcert = 'c'" + replica, "F:3:11: databases.default.sslcert"},
		{"half of a pair", primary + "sslcert = 'c'\nsslkey = 'k'" + replica + "sslcert = ''", "F:7:11: databases.replica.sslcert"},
		{"a size over the budget", primary + "pool = {min_size = 5, max_size = 'auto'}" + replica + "[fleet]\nbudget = 2", "F:3:20: databases.default.pool.min_size"},
		{"a size that the replica's own limit makes too large", primary + "pool.min_size = 5" + replica + "pool.max_size = 3", "F:6:17: databases.replica.pool.min_size"},
		{"a replica without a host", primary + "[databases.replica]\nmax_lag = '1s'", "F:4:11: databases.replica.host"},
	} {
		t.Run(tt.name+" is reported where it is set", func(t *testing.T) {
			path := write(t, filepath.Join(t.TempDir(), "ddtb.toml"), tt.content)
			_, err := Load(Options{File: path})
			mistakes, _ := errors.AsType[Mistakes](err)
			equal(t, "the number of mistakes", len(mistakes), 1)
			equal(t, "the place of "+said(path, err), strings.HasPrefix(said(path, err), tt.want+": "), true)
		})
	}
	t.Run("a setting without effect is warned of once", func(t *testing.T) {
		c := mustLoad(t, replica, "CONN_MAX_AGE=5")
		equal(t, "the number of warnings", len(c.Warnings), 1)
	})
}

func TestPathsBeginAtTheFilesFolder(t *testing.T) {
	c := mustLoad(t, "[databases.default]\nsslrootcert = 'ca.pem'\n[mail]\ndir = '~/mails'", "HOME=/h", "DDTB_CONFIG=x")
	equal(t, "the relative path", c.Databases["default"].SSLRootCert, filepath.Join(filepath.Dir(c.File), "ca.pem"))
	equal(t, "the path at home", c.Mail.Dir, "/h/mails")
	c = mustLoad(t, "", "DDTB_MAIL_DIR=mails")
	equal(t, "the path of the environment", c.Mail.Dir, "mails")
}

func TestPasswordFile(t *testing.T) {
	secret := write(t, filepath.Join(t.TempDir(), "secret"), " from the file \r\n")
	const file, direct = "[databases.default]\npassword_file = '%'\n", "password = 'direct'\n"
	for _, tt := range []struct {
		name, content string
		environ       []string
		want          Secret
		warnings      int
	}{
		{"is read without its line break", file, nil, " from the file ", 0},
		{"goes over a password beside it", file + direct, nil, " from the file ", 1},
		{"gives way to a password of the environment", file, []string{"PGPASSWORD=env"}, "env", 1},
		{
			"of the environment goes over a password of the file", "[databases.default]\n" + direct,
			[]string{"DDTB_DATABASES_DEFAULT_PASSWORD_FILE=" + secret},
			" from the file ", 1,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := mustLoad(t, strings.ReplaceAll(tt.content, "%", secret), tt.environ...)
			equal(t, "the password", c.Databases["default"].Password.Reveal(), tt.want.Reveal())
			equal(t, "the number of warnings", len(c.Warnings), tt.warnings)
			equal(t, "leaks", leaks(strings.Join(c.Warnings, ""), "direct (", "env ", "from the file"), false)
		})
	}
	c := mustLoad(t, "[mail]\npassword_file = '"+secret+"'")
	equal(t, "the mail password", c.Mail.Password.Reveal(), " from the file ")
	equal(t, "its origin", c.Origins["mail.password"].String(), secret)
}

func leaks(text string, secrets ...string) bool {
	for _, s := range secrets {
		if strings.Contains(text, s) {
			return true
		}
	}
	return false
}

func TestOpenFilesWithPasswordsAreWarnedOf(t *testing.T) {
	dir := t.TempDir()
	secret := write(t, filepath.Join(dir, "secret"), "s3cret")
	file := write(t, filepath.Join(dir, "ddtb.toml"),
		"[databases.default]\npassword = 'x'\n[mail]\npassword_file = 'secret'")
	bare := write(t, filepath.Join(dir, "bare.toml"), "[databases.default]\nname = 'x'\npassword = ''")
	for _, path := range []string{secret, file, bare} {
		if err := os.Chmod(path, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	c, err := Load(Options{File: file})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "the warnings", c.Warnings, []string{
		file + " holds a password and can be read by others (mode 0640): chmod 600 " + file,
		secret + " holds a password and can be read by others (mode 0640): chmod 600 " + secret,
	})
	c, err = Load(Options{File: bare})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "the number of warnings about a file without a password", len(c.Warnings), 0)
}

func TestALibpqPasswordFileThatOthersCanReadIsWarnedOfIfItIsUsed(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "pgpass")
	const database = "[databases.default]\nname = 'polls'\nuser = 'www'\n"
	for _, c := range []struct {
		name, config, line string
		warned             bool
	}{
		{"for every database", database, "*:*:*:*:x", true},
		{"for this one", database + "host = 'db'", "db:5432:polls:www:x", true},
		{"for the socket", database + "host = '/run/postgresql'", "localhost:*:polls:www:x", true},
		{"for the account's own", "", "localhost:5432:me:me:x", true},
		{"for another host", database, "db:*:*:*:x", false},
		{"for another port", database, "*:5433:*:*:x", false},
		{"for another database", database, "*:*:other:*:x", false},
		{"for another user", database, "*:*:*:other:x", false},
		{"in a comment", database, "# *:*:*:*:x", false},
		{"though the configuration has a password", database + "password = 'x'", "*:*:*:*:x", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			must(t, os.Chmod(write(t, file, c.line+"\n"), 0o640))
			var want []string
			if c.warned {
				want = []string{file + " holds a password and can be read by others (mode 0640): chmod 600 " + file}
			}
			equal(t, "the warnings", mustLoad(t, c.config, "PGPASSFILE="+file).Warnings, want)
		})
	}
}

func TestAPoolerWithoutADirectWayIsWarnedOf(t *testing.T) {
	const pooler = "[databases.default]\npooler = 'pgbouncer'\n"
	c := mustLoad(t, pooler)
	equal(t, "the warnings", c.Warnings, []string{
		"databases.default.pooler is set (" + c.File + ":2) without direct_host: migrations and monitoring go through the " +
			"pooler, where advisory locks don't hold; set direct_host and direct_port to PostgreSQL's own.",
	})
	c = mustLoad(t, pooler+"direct_host = 'h'")
	equal(t, "the warnings with a direct way", c.Warnings, nil)
}
