package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
	"ddtb/db/logtest"
)

// asDDTB is the first argument by which this test binary becomes the command itself, for what needs a process.
const asDDTB = "as-ddtb"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == asDDTB {
		os.Args = slices.Delete(os.Args, 1, 2)
		main()
	}
	waitTogether()
	dbtest.Run(m)
}

// waitTogether runs four tests at a time unless -parallel is given: most of the time they wait for a server.
func waitTogether() {
	flag.Parse()
	if p := flag.Lookup("test.parallel"); p.Value.String() == p.DefValue {
		_ = p.Value.Set("4") // a number
	}
}

// machine is where a command is run: a home, a configuration file that may be there, and nothing else.
type machine struct {
	*testing.T
	home    string
	file    string // of the configuration, in its default place
	secrets []string
	more    []string // of the environment
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	home, err := os.MkdirTemp("", "ddtb-home-") // short, for the paths of sockets
	if err == nil {
		err = os.Chmod(home, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(home); err != nil {
			t.Error(err)
		}
	})
	return &machine{T: t, home: home, file: filepath.Join(home, "config", "ddtb.toml")}
}

// withDatabase is a machine with a configuration file that leads to a database of its own, and the lines.
func withDatabase(t *testing.T, lines ...string) (*machine, config.Database) {
	t.Helper()
	m, cfg := newMachine(t), dbtest.Config(t)
	m.configure(cfg, lines...)
	return m, cfg
}

// in is the machine for a part of its test.
func (m *machine) in(t *testing.T) *machine {
	part := *m
	part.T = t
	return &part
}

// configure writes the way to the database into the file, and lines after it: keys of [databases.default] first.
func (m *machine) configure(cfg config.Database, lines ...string) {
	m.Helper()
	m.secrets = append(m.secrets, cfg.Password.Reveal())
	m.write(wayTo(cfg) + strings.Join(lines, "\n") + "\n")
}

func wayTo(cfg config.Database) string {
	address := fmt.Sprintf("host = %q\nport = %d\n", cfg.Host, cfg.Port)
	if cfg.Hosts != "" {
		address = fmt.Sprintf("hosts = [\"%s\"]\n", strings.Join(cfg.Hosts.List(), `", "`))
	}
	return fmt.Sprintf("[databases.default]\nname = %q\nuser = %q\npassword = %q\n%ssslmode = \"disable\"\n",
		cfg.Name, cfg.User, cfg.Password.Reveal(), address)
}

// write replaces the file as an editor does: a new one takes the place of the old.
func (m *machine) write(text string) {
	m.Helper()
	err := os.MkdirAll(filepath.Dir(m.file), 0o700)
	if err == nil {
		err = os.WriteFile(m.file+"~", []byte(text), 0o600)
	}
	if err == nil {
		err = os.Rename(m.file+"~", m.file)
	}
	if err != nil {
		m.Fatal(err)
	}
}

func (m *machine) environ() []string {
	environ := []string{
		"HOME=" + m.home, "XDG_CONFIG_HOME=" + filepath.Dir(m.file), "XDG_RUNTIME_DIR=" + m.home, "XDG_DATA_HOME=" + m.home + "/share",
	}
	for _, v := range os.Environ() { // where PostgreSQL's programs are, and where the lab's server is
		if strings.HasPrefix(v, "PATH=") || strings.HasPrefix(v, "TMPDIR=") {
			environ = append(environ, v)
		}
	}
	return append(environ, m.more...)
}

// outcome is a command that has ended.
type outcome struct {
	t        *testing.T
	args     []string
	code     int
	out, err string
}

// run runs a command in this process. What stdin holds is typed.
func (m *machine) run(stdin string, args ...string) outcome {
	m.Helper()
	return m.runWith(nil, stdin, args...)
}

// runWith is run with more variables in the environment.
func (m *machine) runWith(environ []string, stdin string, args ...string) outcome {
	m.Helper()
	var out, err bytes.Buffer
	c := &cli{in: strings.NewReader(stdin), out: &out, err: &err, environ: append(m.environ(), environ...)}
	ctx, cancel := context.WithTimeout(m.Context(), 5*time.Minute) // a server that should not have started would not end
	defer cancel()
	o := outcome{m.T, args, c.run(ctx, args), out.String(), err.String()}
	m.mustKeepSecrets(o.out + o.err)
	return o
}

func (m *machine) mustKeepSecrets(text string) {
	m.Helper()
	for _, s := range m.secrets {
		if s != "" && strings.Contains(text, s) {
			m.Errorf("a secret was printed:\n%s", text)
		}
	}
}

// must looks at the exit code, and for the words in what was printed.
func (o outcome) must(code int, words ...string) {
	o.t.Helper()
	for _, w := range append(words, "") {
		if o.code != code || !strings.Contains(o.out+o.err, w) {
			o.t.Errorf("ddtb %s: exit code %d, want %d; without %q:\n%s%s", strings.Join(o.args, " "), o.code, code, w, o.out, o.err)
		}
	}
}

// process is a command that runs as one.
type process struct {
	*machine
	cmd  *exec.Cmd
	log  *logtest.Log // what it prints, on both of its outputs
	done chan struct{}
	url  string // where it serves, once it said so
}

func (m *machine) start(args ...string) *process {
	m.Helper()
	return m.startAs(nil, os.Args[0], append([]string{asDDTB}, args...)...)
}

// startAs starts a program, with its errors to a file instead of the log if there is one.
func (m *machine) startAs(errors *os.File, program string, args ...string) *process {
	m.Helper()
	p := &process{machine: m, log: &logtest.Log{}, done: make(chan struct{})}
	p.cmd = exec.CommandContext(context.WithoutCancel(m.Context()), program, args...)
	p.cmd.Env = append(m.environ(), "GORACE=atexit_sleep_ms=0") // a race ends with an exit code all the same
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if errors != nil {
		p.cmd.Stderr = errors
	}
	if err := p.cmd.Start(); err != nil {
		m.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // the process state has the result
	}()
	m.Cleanup(func() {
		p.stop(syscall.SIGKILL)
		m.mustKeepSecrets(p.log.String())
	})
	return p
}

// serving starts a server, and waits until it answers.
func (m *machine) serving(args ...string) *process {
	m.Helper()
	p := m.start(args...)
	end := time.After(time.Minute) // run makes a PostgreSQL, on a busy machine
	for !p.answers() {
		select {
		case <-p.done:
			m.Fatalf("ddtb %s ended:\n%s", strings.Join(args, " "), p.log)
		case <-end:
			m.Fatalf("ddtb %s does not answer:\n%s", strings.Join(args, " "), p.log)
		case <-time.After(10 * time.Millisecond):
		}
	}
	return p
}

// answers reports whether the server answers, and sets the address that it printed.
func (p *process) answers() bool {
	if _, after, ok := strings.Cut(p.log.String(), "http://"); ok && strings.Contains(after, "/") {
		p.url = "http://" + after[:strings.IndexByte(after, '/')]
	}
	return p.url != "" && p.get("/healthz") == http.StatusOK
}

// get is the status of a page; 0 when there is no answer.
func (p *process) get(path string) int {
	status, _ := p.page(path)
	return status
}

func (p *process) page(path string) (status int, body string) {
	req, err := http.NewRequestWithContext(context.WithoutCancel(p.Context()), http.MethodGet, p.url+path, nil)
	if err != nil {
		return 0, err.Error()
	}
	resp, err := fresh.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}

// fresh makes a connection for each request, as ab does.
var fresh = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// signal sends one.
func (p *process) signal(s os.Signal) {
	p.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.Error(err)
	}
}

// stop sends the signal, waits for the end, and gives the exit code.
func (p *process) stop(s os.Signal) int {
	_ = p.cmd.Process.Signal(s) // fails when it ended already
	<-p.done
	return p.cmd.ProcessState.ExitCode()
}

// ends waits for it to end by itself.
func (p *process) ends() outcome {
	p.Helper()
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		p.Fatalf("it does not end:\n%s", p.log)
	}
	return outcome{p.T, p.cmd.Args[2:], p.cmd.ProcessState.ExitCode(), p.log.String(), ""}
}

// logs waits for n lines with all of the words.
func (p *process) logs(n int, words ...string) {
	p.Helper()
	dbtest.Eventually(p.T, fmt.Sprintf("%d lines with %q", n, words), func() bool { return p.log.Count(words...) >= n })
}

func TestAWrongCommandLineIsExitCode2WithTheWayToHelp(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	for _, c := range []struct{ args, word string }{
		{"runsrever", `unknown command "runsrever"`},
		{"ruserver", "did you mean runserver?"},
		{"runserver --adr 8000", "there is no flag --adr\n"},
		{"run --adr 8000", "there is no flag --adr: did you mean --addr?"},
		{"run -adr 8000", "there is no flag -adr: did you mean --addr?"},
		{"run -x", "there is no flag -x\n"},
		{"run --=x", `"--=x" is no flag: write --NAME or --NAME=VALUE`},
		{"runserver 8000 8001", `runserver takes [ADDR], and got "8001" as well`},
		{"run 8000", `run takes no argument, and got "8000"`},
		{"migrate sideways", `unknown command "sideways"`},
		{"db-connections budget --replicas 99999999999999999999", "the number is too large"},
		{"db-connections cancel --pid x", `--pid "x": write a whole number`},
		{"db-connections close-idle --older-than 5x", `--older-than "5x": write a duration as 90s or 5m`},
		{"db-connections --json=maybe", `--json "maybe": write --json, or --json=false`},
		{"changepassword", "changepassword needs USER"},
		{"healthcheck --path", "--path needs a value: what to ask for"},
	} {
		o := m.run("", strings.Fields(c.args)...)
		o.must(exitUsage, c.word, " --help`")
		if strings.Contains(o.err, "strconv") {
			t.Errorf("%s: %s", c.args, o.err)
		}
	}
	for _, command := range []string{"strategy --addr :99999", "strategy pool --addr 0", "healthcheck 99999"} {
		m.run("", strings.Fields(command)...).must(exitUsage, "is not HOST:PORT or a port alone, from 1 to 65535")
	}
	m.run("", "run", "--addr", "nowhere").must(exitUsage, "--addr", `found "nowhere"`)
	m.run("", "runserver", "nowhere").must(exitUsage, "ADDR", `found "nowhere"`)
	m.run("", "config").must(exitUsage, "ddtb config [command]", "check", "show", "init")
	m.run("", "migrate", "stauts").must(exitUsage)
}

func TestHelpListsEveryFlag(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.run("").must(exitFine, "Start with `ddtb run`")
	root := (&cli{}).root()
	root.InitDefaultCompletionCmd()
	commands := []*cobra.Command{root}
	for i := 0; i < len(commands); i++ {
		c := commands[i]
		commands = append(commands, c.Commands()...)
		if c.Name() == "completion" || c.Parent() != nil && c.Parent().Name() == "completion" {
			continue
		}
		help := m.run("", append(strings.Fields(c.CommandPath())[1:], "--help")...)
		help.must(exitFine, strings.TrimSpace(cmp.Or(c.Long, c.Short)))
		for line := range strings.SplitSeq(help.out, "\n") {
			if utf8.RuneCountInString(line) > helpWidth {
				t.Errorf("%s --help is wider than %d: %s", c.CommandPath(), helpWidth, line)
			}
		}
		for _, flags := range []*pflag.FlagSet{c.LocalFlags(), c.InheritedFlags()} {
			flags.VisitAll(func(f *pflag.Flag) {
				if f.Usage == "" && !f.Hidden {
					t.Errorf("%s --%s says nothing", c.CommandPath(), f.Name)
				}
				if !f.Hidden {
					help.must(exitFine, "--"+f.Name)
				}
			})
		}
	}
	if len(commands) < 15 {
		t.Errorf("only %d commands", len(commands))
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.run("", "version").must(exitFine, "ddtb devel, go1.")
	m.run("", "version", "-v").must(exitFine, "github.com/jackc/pgx/v5 v5.")
}

func TestConfigShowsChecksAndBeginsTheFile(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.run("", "config", "check").must(exitFine, "There is no file "+m.file, "No database, user or host is named")
	m.runWith([]string{"DATABASE_URL=postgres://www@db/polls"}, "", "config", "check").must(exitFine, "No mistake. There is no file "+m.file)
	m.write("")
	m.run("", "config", "check").must(exitFine, m.file+" sets nothing", "No database, user or host is named")
	if err := os.Remove(m.file); err != nil {
		t.Fatal(err)
	}
	m.run("", "config", "init").must(exitFine, "Wrote "+m.file, "ddtb config check")
	m.run("", "config", "init").must(exitFailed, m.file+" is left as it is")
	m.run("", "config", "check").must(exitFine, "No database, user or host is named")
	m.write("[databases.default]\nname = \"polls\"\nuser = \"www\"\npassword = \"s3cr3t-word\"\n")
	m.run("", "config", "check").must(exitFine, "No mistake in "+m.file)
	m.secrets = append(m.secrets, "s3cr3t-word")
	m.run("", "config", "show").must(exitFine, `name = "polls"`, m.file+":2", `strategy = "pool"`)
	m.run("", "config", "show", "--config", m.home+"/nothing.toml").must(exitFailed, m.home+"/nothing.toml", "--config")
	if info, err := os.Stat(m.file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestEveryMistakeInTheConfigurationIsReportedWithItsPlace(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.write("[databases.default]\nname = \"polls\"\nstrategie = \"pool\"\nport = 70000\n[test]\nenabled = \"yes\"\n")
	for _, command := range []string{"config check", "config show", "runserver", "migrate", "loaddemo", "run", "healthcheck", "changepassword ada"} {
		m.run("", strings.Fields(command)...).must(exitFailed, m.file+":3:1", "did you mean strategy?", m.file+":4:8", "65535", m.file+":6:11")
	}
	m.runWith([]string{"DB_MAX_CONNS=0"}, "", "config", "check").must(exitFailed, "DB_MAX_CONNS")
}

func TestAServerAsksForAFreeAddress(t *testing.T) {
	t.Parallel()
	m, _ := withDatabase(t)
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	taken := l.Addr().String()
	m.run("", "runserver", taken).must(exitFailed, taken+" is taken by another program", "choose another address (HOST:PORT")
	m.run("", "run", "--addr", taken, "--data", m.home+"/pg").must(exitFailed, taken+" is taken by another program")
	if _, err := os.Stat(m.home + "/pg"); !os.IsNotExist(err) {
		t.Errorf("run made its data before it looked at the address: %v", err)
	}
	m.run("", "runserver", "localhost").must(exitUsage, "server.addr", "HOST:PORT")
	m.run("", "runserver", "70000").must(exitUsage, "70000")
}

func TestAMistakeInThePrivateLoginIsNoWrongUsage(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{"--addr": true, privateLogin: false} {
		c := &cli{environ: []string{"HOME=" + t.TempDir()}}
		_, err := c.load(c.options(config.Flag{Name: name, Key: "databases.default.port", Value: "70000"}))
		ee, is := errors.AsType[*exitError](err)
		if err == nil || (is && ee.code == exitUsage) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestThePrivateLoginKeepsNothingOfTheConfiguredOne(t *testing.T) {
	t.Parallel()
	c := &cli{log: slog.New(slog.DiscardHandler), environ: []string{
		"HOME=" + t.TempDir(), "DATABASE_URL=postgres://u@db.prod/wall?sslmode=require&channel_binding=require&target_session_attrs=standby&options=-c%20geqo%3Doff",
		"DDTB_DATABASES_DEFAULT_POOLER=pgbouncer", "DDTB_DATABASES_DEFAULT_DIRECT_HOST=db.prod",
	}}
	login := config.Database{Name: "ddtb", User: "ddtb", Host: "127.0.0.1", Port: 1, SSLMode: "disable", ChannelBinding: "disable"}
	cfg, err := c.load(c.options(place(login)...))
	must(t, err)
	d := cfg.Databases["default"]
	if d.Pooler != "" || db.Direct(d).Host != "127.0.0.1" || d.SSLMode != "disable" || d.ChannelBinding != "disable" || d.TargetSessionAttrs != "any" || d.Options != "" {
		t.Errorf("%+v", d)
	}
}

func TestHealthIsUnknownWhereItCanNotBeJudged(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.run("", "db-connections", "health", "--dsn", "").must(3, "--dsn")
	m.run("", "db-connections", "status", "--dsn", "").must(exitUsage, "--dsn")
	m.run("", "db-connections", "health", "--wach").must(3, "--wach")
	m.run("", "db-connections", "--action=health", "--older-than=5s").must(3, "--older-than")
	m.run("", "db-connections", "--action=health", "--wach").must(3, "--wach")
	must(t, os.MkdirAll(filepath.Dir(m.file), 0o700))
	must(t, os.WriteFile(m.file, []byte("[server]\nadr = 1\n"), 0o600))
	m.run("", "db-connections", "health").must(3, "adr")
}

func TestHealthcheckReportsWhetherAServerAnswers(t *testing.T) {
	t.Parallel()
	m, _ := withDatabase(t)
	p := m.serving("runserver", "127.0.0.1:0")
	addr := strings.TrimPrefix(p.url, "http://")
	at := []string{"DDTB_SERVER_ADDR=" + addr}
	m.runWith(at, "", "healthcheck").must(exitFine, p.url+"/healthz answers 200 OK")
	m.runWith(at, "", "healthcheck", "--path", "/readyz").must(exitFine, "200 OK")
	m.runWith(at, "", "healthcheck", "--path", "nothing").must(exitFailed, p.url+"/nothing answers 404 Not Found: There is no such page.\n")
	_, port, _ := net.SplitHostPort(addr)
	m.runWith([]string{"DDTB_SERVER_ADDR=0.0.0.0:" + port}, "", "healthcheck").must(exitFine, "200 OK")
	m.write("strategie = \"pool\"\n") // with which the server goes on as before
	m.run("", "healthcheck").must(exitFailed, m.file+":1:1", "ddtb healthcheck HOST:PORT")
	for _, named := range []string{addr, port, ":" + port, "0.0.0.0:" + port} {
		m.run("", "healthcheck", named).must(exitFine, p.url+"/healthz answers 200 OK")
	}
	m.run("", "healthcheck", "localhost").must(exitUsage, `"localhost" is not HOST:PORT`)
	if code := p.stop(syscall.SIGTERM); code != exitFine {
		t.Errorf("the server ended with %d:\n%s", code, p.log)
	}
	m.run("", "healthcheck", addr).must(exitFailed, "no answer", "connection refused")
}
