package db_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

func TestAPasswordIsPreparedForSCRAMAlone(t *testing.T) {
	const password = "Gr²oss"
	s := dbtest.NewServer(t, dbtest.Options{})
	cfg := s.Config(t)
	control := dbtest.Control(t, cfg)
	hba := scan[string](t, control, "SHOW hba_file")
	for _, method := range []string{"scram-sha-256", "md5", "password"} {
		for _, stored := range []string{"scram-sha-256", "md5"} {
			if method == "scram-sha-256" && stored == "md5" {
				continue // this login is impossible
			}
			t.Run(method+" with a password stored as "+stored, func(t *testing.T) {
				if stored == "md5" { // the server hashes it unprepared
					run(t, control, "SET password_encryption = md5")
				} else {
					run(t, control, "SET password_encryption = 'scram-sha-256'")
				}
				run(t, control, "ALTER ROLE "+cfg.User+" PASSWORD '"+password+"'")
				writeHBA(t, control, hba, "host all "+cfg.User+" all "+method)
				cfg := cfg
				cfg.Host, cfg.Password = "127.0.0.1", config.Secret(password)
				connect(t, cfg)
				cfg.Password = "Grxoss"
				if _, err := db.Connect(t.Context(), connConfig(t, cfg)); db.CauseOf(err) != db.LoginRejected {
					t.Errorf("a wrong password: %v", err)
				}
			})
		}
	}
}

// writeHBA puts a rule before the server's own.
func writeHBA(t *testing.T, control *pgx.Conn, path, rule string) {
	t.Helper()
	run(t, control, "COPY (SELECT '"+rule+"') TO PROGRAM 'f="+path+"; (cat; grep -v \"^host all test_\" $f) > $f.new; mv $f.new $f'")
	run(t, control, "SELECT pg_reload_conf()")
	fields := strings.Fields(rule)
	dbtest.Eventually(t, "the rule is in force", func() bool {
		return scan[bool](t, control, "SELECT auth_method = '"+fields[len(fields)-1]+"' FROM pg_hba_file_rules ORDER BY line_number LIMIT 1")
	})
}

func TestTextInALATIN1DatabaseIsWhatWasStored(t *testing.T) {
	s := dbtest.NewServer(t, dbtest.Options{})
	cfg := s.Config(t)
	control := dbtest.Control(t, cfg)
	provider := scan[string](t, control, "SELECT CASE WHEN current_setting('server_version_num')::int >= 150000 THEN 'LOCALE_PROVIDER libc' ELSE '' END")
	run(t, control, "CREATE DATABASE old ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0 "+provider)
	cfg.Name = "old"
	conn := connect(t, cfg)
	run(t, conn, "CREATE TEMP TABLE words (word text)")
	if _, err := conn.Exec(t.Context(), "INSERT INTO words VALUES ($1)", "Grüße"); err != nil {
		t.Fatal(err)
	}
	if got := scan[string](t, conn, "SELECT word || ' ' || length(word) || ' ' || octet_length(word) FROM words"); got != "Grüße 5 5" {
		t.Errorf("stored is %q", got)
	}
}

func TestARotatedPasswordFileIsInForceAtTheNextConnection(t *testing.T) {
	for _, strategy := range slices.DeleteFunc(db.Names(), func(name string) bool { return name == "broken" }) {
		t.Run(strategy, func(t *testing.T) {
			cfg := dbtest.Config(t)
			control := dbtest.Control(t, cfg)
			dir := t.TempDir()
			writeFile(t, filepath.Join(dir, "1"), cfg.Password.Reveal()+"\n")
			writeFile(t, filepath.Join(dir, "2"), "the new one\r\n")
			mount := filepath.Join(dir, "password")
			swap(t, filepath.Join(dir, "1"), mount)
			cfg.Strategy, cfg.PasswordFile = strategy, mount // Password is the file's content, as package config has it
			cfg.Pool.MaxLifetime, cfg.Pool.HealthCheckPeriod = time.Second, 100*time.Millisecond
			d := openOn(t, cfg)
			query := func() error { return ping(t, d) }
			must(t, query())
			run(t, control, "ALTER ROLE "+cfg.User+" PASSWORD 'the new one'")
			swap(t, filepath.Join(dir, "2"), mount)
			before := d.Stat().Connected
			run(t, control, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '"+cfg.User+"'")
			dbtest.Eventually(t, "a new connection serves requests", func() bool {
				return query() == nil && d.Stat().Connected > before
			})
		})
	}
}

func TestASessionThatIsTooOldIsReplacedWithTheRotatedPassword(t *testing.T) {
	cfg := dbtest.Config(t)
	control := dbtest.Control(t, cfg)
	cfg.PasswordFile = filepath.Join(t.TempDir(), "password")
	writeFile(t, cfg.PasswordFile, cfg.Password.Reveal())
	cfg.Pool.MaxLifetime, cfg.Pool.HealthCheckPeriod = time.Second, 100*time.Millisecond
	d := openOn(t, cfg)
	must(t, ping(t, d))
	run(t, control, "ALTER ROLE "+cfg.User+" PASSWORD 'rotated'")
	writeFile(t, cfg.PasswordFile, "rotated")
	before := d.Stat().Connected
	dbtest.Eventually(t, "the pool has replaced its connection", func() bool {
		must(t, ping(t, d))
		return d.Stat().Connected > before
	})
}

// swap lets the link lead elsewhere in one step, as Kubernetes does.
func swap(t *testing.T, to, link string) {
	t.Helper()
	must(t, os.Symlink(to, link+".new"))
	must(t, os.Rename(link+".new", link))
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o600))
}

func TestAPasswordFileThatCantBeReadIsNamedWithTheReason(t *testing.T) {
	cfg := dbtest.Config(t)
	dir := t.TempDir()
	good := cfg.Password.Reveal()
	for what, c := range map[string]struct {
		make func(path string) error
		want string
	}{
		"a pipe":      {makePipe, "is not a regular file"},
		"a directory": {func(p string) error { return os.Mkdir(p, 0o700) }, "is a directory"},
		"huge":        {func(p string) error { return os.WriteFile(p, make([]byte, 1<<20), 0o600) }, "is larger than 65536 bytes"},
		"empty":       {func(p string) error { return os.WriteFile(p, []byte("\n"), 0o600) }, "is empty"},
		"two lines":   {func(p string) error { return os.WriteFile(p, []byte("a\nb"), 0o600) }, "more than one line"},
		"missing":     {func(string) error { return nil }, "can't be read: no such file"},
	} {
		t.Run(what, func(t *testing.T) {
			cfg := cfg
			cfg.PasswordFile = filepath.Join(dir, strings.ReplaceAll(what, " ", "-"))
			writeFile(t, cfg.PasswordFile, good)
			cfg.Strategy = db.PerRequest
			d := openOn(t, cfg)
			must(t, os.Remove(cfg.PasswordFile))
			must(t, c.make(cfg.PasswordFile))
			err := ping(t, d)
			if db.CauseOf(err) != db.LoginRejected || !strings.Contains(fmt.Sprint(err), c.want) {
				t.Errorf("the error is %v", err)
			}
			must(t, os.RemoveAll(cfg.PasswordFile))
			writeFile(t, cfg.PasswordFile, good)
			if err := ping(t, d); err != nil {
				t.Errorf("with the file back: %v", err)
			}
		})
	}
}

func TestALoginWithoutAnEndIsRefused(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = c.Read(make([]byte, 1<<10)) // the startup message
		_, err = c.Write([]byte("R\x00\x00\x00\x08\x00\x00\x00\x00"))
		for i := 0; err == nil; i++ {
			status := fmt.Sprintf("setting%d\x00%0*d\x00", i, 1000, i)
			_, err = c.Write(append(binary.BigEndian.AppendUint32([]byte("S"), uint32(len(status)+4)), status...))
		}
		_ = c.Close()
	}()
	cfg := config.Database{Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port, SSLMode: "disable", ConnectTimeout: 20 * time.Second}
	if _, err := db.Connect(t.Context(), connConfig(t, cfg)); err == nil || !strings.Contains(err.Error(), "is not PostgreSQL") {
		t.Errorf("the error is %v", err)
	}
}

// Without the check, the driver waits for the pipe's other end, and reads the large file whole.
func TestAFileThatTheDriverReadsWithoutAnEndIsRefused(t *testing.T) {
	dir := t.TempDir()
	pipe, large := filepath.Join(dir, "pipe"), filepath.Join(dir, "large")
	must(t, makePipe(pipe))
	writeFile(t, large, "")
	must(t, os.Truncate(large, 5<<20))
	for path, want := range map[string]string{
		pipe:        pipe + " is not a regular file",
		"/dev/zero": "/dev/zero is not a regular file",
		large:       large + " is larger than 4194304 bytes",
	} {
		for _, name := range []string{"PGPASSFILE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY"} {
			t.Run(name+" "+filepath.Base(path), func(t *testing.T) {
				t.Setenv(name, path)
				mustRefuseFile(t, config.Database{SSLMode: "require"}, name+": "+want)
			})
		}
		t.Run("sslrootcert "+filepath.Base(path), func(t *testing.T) {
			mustRefuseFile(t, config.Database{SSLMode: "verify-ca", SSLRootCert: path}, want)
		})
		t.Run("sslkey "+filepath.Base(path), func(t *testing.T) {
			mustRefuseFile(t, config.Database{SSLMode: "require", SSLCert: "postgresql.crt", SSLKey: path}, want)
		})
	}
	t.Run("PGSERVICEFILE", func(t *testing.T) {
		t.Setenv("PGSERVICEFILE", pipe)
		connConfig(t, config.Database{}) // without a service it is not read
		t.Setenv("PGSERVICE", "polls")
		mustRefuseFile(t, config.Database{}, "PGSERVICEFILE: "+pipe+" is not a regular file")
	})
	t.Run("~/.pgpass", func(t *testing.T) {
		t.Setenv("HOME", dir)
		must(t, makePipe(filepath.Join(dir, ".pgpass")))
		mustRefuseFile(t, config.Database{}, ".pgpass is not a regular file")
		t.Setenv("PGPASSFILE", os.DevNull)
		connConfig(t, config.Database{})
	})
	t.Run("a variable that the configuration overrides", func(t *testing.T) {
		t.Setenv("PGSSLROOTCERT", pipe)
		connConfig(t, config.Database{Host: "127.0.0.1", SSLMode: "require", SSLRootCert: "system"})
	})
	t.Run("PGPASSFILE /dev/null holds no password", func(t *testing.T) {
		t.Setenv("PGPASSFILE", os.DevNull)
		connConfig(t, config.Database{})
	})
}

func TestAFileThatAConnectionStringNamesIsCheckedToo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a b")
	must(t, os.Mkdir(dir, 0o700))
	pipe := filepath.Join(dir, "it's")
	must(t, makePipe(pipe))
	quoted := strings.ReplaceAll(pipe, "'", `\'`)
	for _, name := range []string{"passfile", "sslrootcert", "sslcert", "sslkey", "service=polls&servicefile"} {
		t.Run(name, func(t *testing.T) {
			keywords := strings.ReplaceAll(name, "&", " ")
			for _, dsn := range []string{
				"postgres://app:x@127.0.0.1/wall?sslmode=require&" + name + "=" + url.PathEscape(pipe),
				"host=127.0.0.1 password='a b' " + keywords + " = '" + quoted + "' user=app",
				"host=127.0.0.1 " + keywords + "=" + strings.ReplaceAll(quoted, " ", `\ `),
			} {
				if err := db.CheckFilesOf(dsn); err == nil || !strings.Contains(err.Error(), pipe+" is not a regular file") {
					t.Errorf("%s: %v", dsn, err)
				}
			}
		})
	}
	t.Setenv("PGPASSFILE", pipe)
	t.Setenv("PGSSLCERT", pipe)
	for dsn, refused := range map[string]bool{
		"host=127.0.0.1":                             true,
		"passfile=/dev/null sslmode=disable":         false,
		"postgres:///?passfile=&sslmode=disable":     false,
		"passfile=/dev/null sslmode=require":         true,
		"passfile=/dev/null sslcert='' sslkey=''":    false,
		"password='x passfile=/dev/null' sslcert=''": true,
	} {
		if err := db.CheckFilesOf(dsn); (err != nil) != refused {
			t.Errorf("%s: %v", dsn, err)
		}
	}
}

func mustRefuseFile(t *testing.T, cfg config.Database, want string) {
	t.Helper()
	if _, err := db.ConnConfig(cfg, "ddtb/test"); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("the error is %v, want %q", err, want)
	}
}

func openOn(t *testing.T, cfg config.Database) *db.DB {
	t.Helper()
	d, err := db.Open(t.Context(), cfg)
	must(t, err)
	t.Cleanup(func() {
		if err := d.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return d
}

// ping runs a declared read, which multiplex runs on a shared connection, and an ordinary query.
func ping(t *testing.T, d *db.DB) error {
	ctx, end := d.Begin(t.Context())
	defer end()
	var n int
	if err := d.Read().QueryRow(ctx, "SELECT 1").Scan(&n); err != nil {
		return err
	}
	return d.QueryRow(ctx, "SELECT 1").Scan(&n)
}
