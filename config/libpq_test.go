package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ddtb/db"
)

func TestAServiceIsOverLibpqsVariablesAndUnderOurs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "services")
	write(t, file, "# ours\n[other]\nhost=wrong\n\n[prod]\nhost=service\nport=7\nuser=su\ndbname=sn\npassword= hunter2 \nsslmode=require\n[prod]\nhost=second\n")
	c := mustLoad(t, "[databases.default]\nname = 'file'\n", "PGSERVICE=prod\n", "PGSERVICEFILE="+file, "PGHOST=variable", "PGAPPNAME=mine",
		"DATABASE_URL=postgres://url@/", "DDTB_DATABASES_DEFAULT_PORT=9")
	d := c.Databases["default"]
	equal(t, "the database", fmt.Sprint(d.Host, d.Port, d.User, d.Name, d.SSLMode, d.ApplicationName), "service9urlsnrequiremine")
	equal(t, "the password", d.Password.Reveal(), "hunter2")
	c = mustLoad(t, "", "PGSERVICEFILE="+file, "PGSERVICE=other", "DATABASE_URL=postgres:///?service=prod")
	equal(t, "the host of the URL's service", c.Databases["default"].Host, "service")
}

func TestMistakesOfAServiceNameItAndShowNoValue(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]string{
		"[a]\nhost=h":                  "there is no [prod] in it, and no other file is read",
		"[prod]\nhost":                 "line 2 is not NAME=VALUE",
		"[prod]\nrequirepeer=hunter2":  "line 2: parameter requirepeer can't be honoured: remove it",
		"[prod]\nservice=hunter2":      "line 2: a service can't name another",
		"[prod]\nhost=a,b\nport=1,2,3": "there are 2 hosts and 3 ports",
		"[prod]\nport=hunter2":         "databases.default.port: found a value that is not shown here",
	} {
		file := filepath.Join(dir, "services")
		write(t, file, text)
		_, err := Load(Options{Environ: []string{"PGSERVICE=prod", "PGSERVICEFILE=" + file}})
		message := fmt.Sprint(err)
		equal(t, text+": names the variable", strings.HasPrefix(message, "environment variable PGSERVICE: "), true)
		equal(t, text+": "+message, strings.Contains(message, want), true)
		equal(t, text+": shows a value", strings.Contains(message, "hunter2"), false)
	}
	_, err := Load(Options{Environ: []string{"PGSERVICE=prod", "PGSERVICEFILE=" + dir + "/none"}})
	equal(t, "without a file", strings.Contains(fmt.Sprint(err), dir+"/none can't be read: no such file or directory: set PGSERVICEFILE"), true)
}

func TestALibpqVariableThatCantBeHonouredIsRefused(t *testing.T) {
	for _, u := range parameters {
		if u.key != "" || u.variable == "" {
			continue
		}
		_, err := Load(Options{Environ: []string{u.variable + "=odd"}})
		equal(t, u.variable, fmt.Sprint(err), "environment variable "+u.variable+": "+notHonoured("this", u.harmless))
		for _, value := range u.harmless {
			mustLoad(t, "", u.variable+"="+value)
		}
	}
	_, err := Load(Options{Environ: []string{"PGHOST=a,b,c", "PGPORT=1,2"}})
	equal(t, "hosts and ports", fmt.Sprint(err), "environment variable PGHOST: there are 3 hosts and 2 ports: write one port for all, or one for each")
}

func TestTheLaterOfHostAndHostsIsInForce(t *testing.T) {
	const file = "[databases.default]\nhosts = ['h1', '[::1]:2']\nport = 7\ntarget_session_attrs = 'read-write'\n"
	d := mustLoad(t, file).Databases["default"]
	equal(t, "the hosts", d.Hosts, db.Hosts("h1:7,[::1]:2"))
	equal(t, "the first", fmt.Sprint(d.Host, ":", d.Port), "h1:7")
	d = mustLoad(t, file, "PGHOST=one").Databases["default"]
	equal(t, "the hosts under PGHOST", d.Hosts, db.Hosts(""))
	equal(t, "the host under PGHOST", d.Host, "one")
	d = mustLoad(t, file, "PGHOST=a,b", "PGPORT=3,4").Databases["default"]
	equal(t, "the hosts of PGHOST", d.Hosts, db.Hosts("a:3,b:4"))
	_, err := Load(Options{File: file1(t, file+"host = 'x'\n")})
	equal(t, "both in one file", strings.Contains(fmt.Sprint(err), "databases.default.host: is set, and so is hosts"), true)
}

func TestALineBreakIsNoPartOfASecretOrURL(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("hunter2 \r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]*Config{
		"PGPASSWORD":    mustLoad(t, "", "PGPASSWORD=hunter2 \n"),
		"our variable":  mustLoad(t, "", "DDTB_DATABASES_DEFAULT_PASSWORD=hunter2 \r\n"),
		"DATABASE_URL":  mustLoad(t, "", "DATABASE_URL=postgres://u:hunter2%20@h/n\n"),
		"a URL's value": mustLoad(t, "", "DATABASE_URL=postgres://u:hunter2%20%0A@h/n"),
		"the file":      mustLoad(t, "[databases.default]\npassword = \"hunter2 \\n\"\n"),
		"password_file": mustLoad(t, "[databases.default]\npassword_file = '"+file+"'\n"),
	} {
		equal(t, what, c.Databases["default"].Password.Reveal(), "hunter2 ")
	}
	c := mustLoad(t, "[mail]\npassword_file = '"+file+"'\n[sentry]\ndsn = \"https://k@h/1\\n\"\n")
	equal(t, "mail's password", c.Mail.Password.Reveal(), "hunter2 ")
	equal(t, "Sentry's DSN", c.Sentry.DSN.Reveal(), "https://k@h/1")
	c = mustLoad(t, "", "DDTB_SENTRY_DSN=https://k@h/1\n")
	equal(t, "Sentry's DSN by its variable", c.Sentry.DSN.Reveal(), "https://k@h/1")
}

func TestAPasswordThatOverridesItsFileLeavesNoFileInForce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	write(t, file, "old")
	d := mustLoad(t, "[databases.default]\npassword_file = '"+file+"'\n", "PGPASSWORD=new").Databases["default"]
	equal(t, "the password", d.Password.Reveal(), "new")
	equal(t, "the file", d.PasswordFile, "")
}

func TestAPoolerTakesNoOptions(t *testing.T) {
	_, err := Load(Options{Environ: []string{"PGOPTIONS=-c work_mem=8MB", "DDTB_DATABASES_DEFAULT_POOLER=pgbouncer"}})
	equal(t, "the message", fmt.Sprint(err), "environment variable PGOPTIONS: databases.default.options: a pooler refuses the options of a login: "+
		"use ALTER ROLE … SET in the database instead, or connect past the pooler")
}

func file1(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ddtb.toml")
	write(t, path, text)
	return path
}
