package db_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

func connConfig(t *testing.T, cfg config.Database) *pgx.ConnConfig {
	t.Helper()
	cc, err := db.ConnConfig(cfg, "ddtb/test")
	must(t, err)
	return cc
}

func connect(t *testing.T, cfg config.Database) *pgx.Conn {
	t.Helper()
	conn, err := db.Connect(t.Context(), connConfig(t, cfg))
	must(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func TestTheEnvironmentDoesNotReachAConnectionASecondTime(t *testing.T) {
	for name, value := range map[string]string{
		"PGHOST": "elsewhere", "PGPORT": "1", "PGDATABASE": "other", "PGUSER": "other", "PGPASSWORD": "other", "PGSSLMODE": "verify-full",
		"PGAPPNAME": "other", "PGCONNECT_TIMEOUT": "1", "PGTARGETSESSIONATTRS": "standby", "PGOPTIONS": "-c work_mem=77MB",
	} {
		t.Setenv(name, value)
	}
	cfg := dbtest.Config(t)
	conn := connect(t, cfg)
	got := scan[string](t, conn, `SELECT concat_ws(' ', current_database(), current_user, current_setting('application_name'),
		current_setting('work_mem'))`)
	if want := cfg.Name + " " + cfg.User + " ddtb/test 77MB"; got != want {
		t.Errorf("the session is %q, want %q", got, want)
	}
	cfg.Host, cfg.Port, cfg.Name, cfg.Password, cfg.SSLMode = "", 0, "", "", ""
	cc := connConfig(t, cfg)
	if cc.Host == "elsewhere" || cc.Port != 5432 || cc.Database != "" || cc.Password != "" {
		t.Errorf("what the configuration leaves open: host %q, port %d, database %q, password %q", cc.Host, cc.Port, cc.Database, cc.Password)
	}
}

func TestARootCertificateTurnsNoTLSOn(t *testing.T) {
	for _, root := range []string{"system", "/missing.pem"} {
		t.Setenv("PGSSLROOTCERT", root)
		cfg := db.DefaultSettings()
		cfg.Host, cfg.SSLMode, cfg.SSLRootCert = "127.0.0.1", "disable", root
		if cc, err := db.ConnConfig(cfg, "a"); err != nil || cc.TLSConfig != nil {
			t.Errorf("%s: %v, %v", root, cc, err)
		}
	}
}

func TestWithoutAHostTheMachinesOwnSocketIsMeant(t *testing.T) {
	cc := connConfig(t, config.Database{Name: "a", User: "b"})
	if !filepath.IsAbs(cc.Host) && cc.Host != "localhost" {
		t.Errorf("the host is %q", cc.Host)
	}
}

func TestNamesAndPasswordsMayHoldAnyCharacter(t *testing.T) {
	cfg := dbtest.Config(t)
	control := dbtest.Control(t, cfg)
	odd := `it's a \ "name" with = and spaces `
	run(t, control, "CREATE ROLE "+pgx.Identifier{odd}.Sanitize()+" LOGIN PASSWORD '"+strings.ReplaceAll(odd, "'", "''")+"'")
	t.Cleanup(func() {
		_, err := control.Exec(context.Background(), "DROP ROLE "+pgx.Identifier{odd}.Sanitize())
		if err != nil {
			t.Error(err)
		}
	})
	cfg.User, cfg.Password = odd, config.Secret(odd)
	if user := scan[string](t, connect(t, cfg), "SELECT current_user"); user != odd {
		t.Errorf("logged in as %q", user)
	}
}

func TestANULInASettingIsRefusedBeforeAnyLogin(t *testing.T) {
	for name, set := range map[string]func(*config.Database){
		"Name":            func(c *config.Database) { c.Name += "\x00" },
		"User":            func(c *config.Database) { c.User += "\x00" },
		"Password":        func(c *config.Database) { c.Password = "hunter2\x00" },
		"Host":            func(c *config.Database) { c.Host += "\x00" },
		"Options":         func(c *config.Database) { c.Options = "\x00" },
		"ApplicationName": func(c *config.Database) { c.ApplicationName += "\x00" },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config.Default().Databases["default"]
			set(&cfg)
			_, err := db.Open(t.Context(), cfg)
			if err == nil || !strings.Contains(err.Error(), "NUL") || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestAPasswordComesFromItsFile(t *testing.T) {
	cfg := dbtest.Config(t)
	file := filepath.Join(t.TempDir(), "password")
	must(t, os.WriteFile(file, []byte(cfg.Password.Reveal()+"\n"), 0o600))
	cfg.Password, cfg.PasswordFile = "", file
	connect(t, cfg)
	cfg.PasswordFile = file + "x"
	if _, err := db.ConnConfig(cfg, "ddtb/test"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is missing: %v", err)
	}
	must(t, os.WriteFile(file, []byte("*:*:"+cfg.Name+":"+cfg.User+":from pgpass\n"), 0o600))
	t.Setenv("PGPASSFILE", file)
	cfg.PasswordFile = ""
	if cc := connConfig(t, cfg); cc.Password != "from pgpass" {
		t.Errorf("~/.pgpass gives %q", cc.Password)
	}
}

func TestAnErrorOfTheConfigurationHoldsNoPassword(t *testing.T) {
	cfg := config.Database{Name: "a", User: "b", Password: "it's secret", Port: 70000}
	if _, err := db.ConnConfig(cfg, "ddtb/test"); err == nil || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
}

func TestAStatementIsStoppedAfterTheTimeoutAskedFor(t *testing.T) {
	cfg := dbtest.Config(t)
	cfg.StatementTimeout = 1500 * time.Millisecond
	if got := scan[string](t, connect(t, cfg), "SHOW statement_timeout"); got != "1500ms" {
		t.Errorf("statement_timeout is %s", got)
	}
}

func TestAPoolerGetsNothingThatItRefuses(t *testing.T) {
	t.Setenv("PGOPTIONS", "-c work_mem=77MB")
	cc := connConfig(t, config.Database{Name: "a", Pooler: db.PgBouncer, StatementTimeout: time.Second})
	if len(cc.RuntimeParams) != 3 || cc.RuntimeParams["datestyle"] != "ISO" || cc.RuntimeParams["client_encoding"] != "UTF8" || cc.RuntimeParams["application_name"] == "" {
		t.Errorf("the login sends %v", cc.RuntimeParams)
	}
	if cc.DefaultQueryExecMode != pgx.QueryExecModeCacheDescribe {
		t.Errorf("queries are run by %v", cc.DefaultQueryExecMode)
	}
}

func TestAServerThatHangsIsGivenUpAfterTheConnectTimeout(t *testing.T) {
	s := dbtest.NewServer(t, dbtest.Options{})
	cfg := s.Config(t)
	cfg.ConnectTimeout = 200 * time.Millisecond
	s.Pause(t)
	if _, err := db.Connect(t.Context(), connConfig(t, cfg)); db.CauseOf(err) != db.ServerUnavailable {
		t.Error(err)
	}
	s.Resume(t)
	cfg.ConnectTimeout = time.Minute
	connect(t, cfg)
}

func TestTLSIsUsedAsSSLModeSays(t *testing.T) {
	certificate, key := selfSigned(t)
	s := dbtest.NewServer(t, dbtest.Options{})
	plain := s.Config(t)
	plain.SSLMode = "prefer"
	const encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
	if scan[bool](t, connect(t, plain), encrypted) {
		t.Error("a server without a certificate encrypts")
	}
	enableTLS(t, dbtest.Control(t, plain), certificate, key)
	for mode, want := range map[string]bool{"disable": false, "allow": false, "prefer": true, "": true, "require": true} {
		plain.SSLMode = mode
		if got := scan[bool](t, connect(t, plain), encrypted); got != want {
			t.Errorf("sslmode %q encrypts: %v, want %v", mode, got, want)
		}
	}
	plain.Host, plain.SSLMode = "localhost", "verify-full"
	if _, err := db.Connect(t.Context(), connConfig(t, plain)); db.CauseOf(err) != db.CertificateRejected {
		t.Errorf("an unknown certificate is believed: %v", err)
	}
	root := filepath.Join(t.TempDir(), "root.crt")
	must(t, os.WriteFile(root, certificate, 0o600))
	t.Setenv("PGSSLROOTCERT", root)
	connect(t, plain)
	plain.Host = "127.0.0.1"
	if _, err := db.Connect(t.Context(), connConfig(t, plain)); db.CauseOf(err) != db.CertificateRejected {
		t.Errorf("a certificate of another name is believed: %v", err)
	}
}

// enableTLS makes the server write its own files: it only accepts a key that it owns.
func enableTLS(t *testing.T, control *pgx.Conn, certificate, key []byte) {
	t.Helper()
	for name, text := range map[string][]byte{"server.crt": certificate, "server.key": key} {
		lines := "SELECT unnest(string_to_array('" + strings.TrimSpace(string(text)) + "', E'\\n'))"
		run(t, control, "COPY ("+lines+") TO PROGRAM 'umask 077; cat > "+name+"'")
	}
	run(t, control, "ALTER SYSTEM SET ssl = on")
	run(t, control, "SELECT pg_reload_conf()")
	dbtest.Eventually(t, "the server has turned TLS on", func() bool { return scan[string](t, control, "SHOW ssl") == "on" })
}

// selfSigned returns a certificate for localhost and its key.
func selfSigned(t *testing.T) (certificate, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	text := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, text, text, k.Public(), k)
	must(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(k)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
}
